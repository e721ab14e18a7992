-- What a tenant may have at most; null: as much as it wants.
ALTER TABLE "tenants" ADD COLUMN "devices_max" INTEGER,
ADD COLUMN "model_bytes_max" BIGINT,
ADD COLUMN "queued_inferences_max" INTEGER,
ADD COLUMN "api_calls_per_minute_max" INTEGER;
