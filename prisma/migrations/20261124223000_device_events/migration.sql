CREATE TABLE "device_events" (
    "id" BIGSERIAL NOT NULL,
    "device_id" TEXT NOT NULL,
    "at" TIMESTAMP(3) NOT NULL,
    "kind" TEXT NOT NULL,
    "detail" JSONB NOT NULL,

    CONSTRAINT "device_events_pkey" PRIMARY KEY ("id")
);

CREATE INDEX "device_events_device_id_id_idx" ON "device_events"("device_id", "id");

CREATE INDEX "device_events_at_idx" ON "device_events"("at");
