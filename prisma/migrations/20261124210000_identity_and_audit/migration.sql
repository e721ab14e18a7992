-- AlterTable
ALTER TABLE "join_tokens" ADD COLUMN "mode" TEXT NOT NULL DEFAULT 'auto',
ADD COLUMN "labels" JSONB NOT NULL DEFAULT '{}',
ADD COLUMN "revoked_at" TIMESTAMP(3);

-- AlterTable
ALTER TABLE "devices" ADD COLUMN "standing" TEXT NOT NULL DEFAULT 'accepted',
ADD COLUMN "standing_reason" TEXT,
ADD COLUMN "standing_at" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
ADD COLUMN "boots" JSONB;

-- CreateIndex
CREATE INDEX "devices_standing_at_idx" ON "devices"("standing_at");

-- CreateTable
CREATE TABLE "enrolments" (
    "id" TEXT NOT NULL,
    "public_key_hash" TEXT NOT NULL,
    "name" TEXT NOT NULL,
    "state" TEXT NOT NULL,
    "labels" JSONB NOT NULL DEFAULT '{}',
    "created_at" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "enrolments_pkey" PRIMARY KEY ("id")
);

-- CreateIndex
CREATE UNIQUE INDEX "enrolments_public_key_hash_key" ON "enrolments"("public_key_hash");

-- CreateIndex
CREATE INDEX "enrolments_state_created_at_idx" ON "enrolments"("state", "created_at");

-- CreateTable
CREATE TABLE "device_keys" (
    "public_key_hash" TEXT NOT NULL,
    "device_id" TEXT NOT NULL,
    "state" TEXT NOT NULL,
    "created_at" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "reused_at" TIMESTAMP(3),

    CONSTRAINT "device_keys_pkey" PRIMARY KEY ("public_key_hash")
);

-- CreateIndex
CREATE INDEX "device_keys_device_id_created_at_idx" ON "device_keys"("device_id", "created_at");

-- CreateTable
CREATE TABLE "tombstones" (
    "device_id" TEXT NOT NULL,
    "name" TEXT NOT NULL,
    "reason" TEXT NOT NULL,
    "wipe" BOOLEAN NOT NULL,
    "wiped_at" TIMESTAMP(3),
    "created_at" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "tombstones_pkey" PRIMARY KEY ("device_id")
);

-- CreateIndex
CREATE INDEX "tombstones_created_at_idx" ON "tombstones"("created_at");

-- CreateTable
CREATE TABLE "audit_records" (
    "sequence" BIGINT NOT NULL,
    "at" TIMESTAMP(3) NOT NULL,
    "actor" TEXT NOT NULL,
    "action" TEXT NOT NULL,
    "subject" TEXT NOT NULL,
    "before" JSONB,
    "after" JSONB,
    "previous" TEXT NOT NULL,
    "hash" TEXT NOT NULL,

    CONSTRAINT "audit_records_pkey" PRIMARY KEY ("sequence")
);

-- CreateIndex
CREATE INDEX "audit_records_subject_sequence_idx" ON "audit_records"("subject", "sequence");

-- Append-only, also for our own mistakes.
CREATE FUNCTION "audit_records_refuse"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'audit_records is append-only: % is refused', TG_OP USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER "audit_records_append_only" BEFORE UPDATE OR DELETE OR TRUNCATE ON "audit_records"
FOR EACH STATEMENT EXECUTE FUNCTION "audit_records_refuse"();
