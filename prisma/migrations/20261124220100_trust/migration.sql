-- CreateTable
CREATE TABLE "trust_metadata" (
    "role" TEXT NOT NULL,
    "version" INTEGER NOT NULL,
    "bytes" BYTEA NOT NULL,
    "created_at" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "trust_metadata_pkey" PRIMARY KEY ("role","version")
);
