-- Tenants: everything that was there before belongs to `default`.
CREATE TABLE "tenants" (
    "id" TEXT NOT NULL,
    "name" TEXT NOT NULL,
    "created_at" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "tenants_pkey" PRIMARY KEY ("id"),
    CONSTRAINT "tenants_id_check" CHECK ("id" ~ '^[a-z0-9]([a-z0-9-]{0,46}[a-z0-9])?$')
);
INSERT INTO "tenants" ("id", "name") VALUES ('default', 'Default');

-- The second wall. `matfleet.tenant` holds a tenant's id for the length of a transaction, or '*' in the system scope; without it no row is seen.
-- The setting is read once a statement, not once a row.
CREATE FUNCTION "matfleet_isolate"("of_table" regclass, "tenant_column" text DEFAULT 'tenant_id') RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', of_table);
  EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', of_table);
  EXECUTE format(
    'CREATE POLICY tenant ON %1$s USING (%2$I = (SELECT current_setting(''matfleet.tenant'', true)) OR (SELECT current_setting(''matfleet.tenant'', true)) = ''*'')',
    of_table, tenant_column);
  IF tenant_column = 'tenant_id' THEN
    -- '*' and what a transaction leaves behind, the empty text, are no tenants.
    EXECUTE format('ALTER TABLE %s ADD CONSTRAINT tenant_is_named CHECK (tenant_id NOT IN ('''', ''*''))', of_table);
  END IF;
END $$;

ALTER TABLE "api_keys" ADD COLUMN "tenant_id" TEXT NOT NULL DEFAULT 'default', ADD COLUMN "installation" BOOLEAN NOT NULL DEFAULT true;
ALTER TABLE "console_sessions" ADD COLUMN "tenant_id" TEXT NOT NULL DEFAULT 'default';
ALTER TABLE "join_tokens" ADD COLUMN "tenant_id" TEXT NOT NULL DEFAULT 'default';
ALTER TABLE "enrolments" ADD COLUMN "tenant_id" TEXT NOT NULL DEFAULT 'default';
ALTER TABLE "device_keys" ADD COLUMN "tenant_id" TEXT NOT NULL DEFAULT 'default';
ALTER TABLE "tombstones" ADD COLUMN "tenant_id" TEXT NOT NULL DEFAULT 'default';
ALTER TABLE "audit_records" ADD COLUMN "tenant_id" TEXT NOT NULL DEFAULT 'default';
ALTER TABLE "device_events" ADD COLUMN "tenant_id" TEXT NOT NULL DEFAULT 'default';
ALTER TABLE "devices" ADD COLUMN "tenant_id" TEXT NOT NULL DEFAULT 'default';
ALTER TABLE "model_versions" ADD COLUMN "tenant_id" TEXT NOT NULL DEFAULT 'default';
ALTER TABLE "chunks" ADD COLUMN "tenant_id" TEXT NOT NULL DEFAULT 'default', ADD COLUMN "arrived_at" TIMESTAMP(3) DEFAULT CURRENT_TIMESTAMP;
ALTER TABLE "assignments" ADD COLUMN "tenant_id" TEXT NOT NULL DEFAULT 'default';
ALTER TABLE "latency_windows" ADD COLUMN "tenant_id" TEXT NOT NULL DEFAULT 'default';
ALTER TABLE "trust_metadata" ADD COLUMN "tenant_id" TEXT NOT NULL DEFAULT 'default';
ALTER TABLE "updates" ADD COLUMN "tenant_id" TEXT NOT NULL DEFAULT 'default';
ALTER TABLE "update_targets" ADD COLUMN "tenant_id" TEXT NOT NULL DEFAULT 'default';
ALTER TABLE "inferences" ADD COLUMN "tenant_id" TEXT NOT NULL DEFAULT 'default';
ALTER TABLE "inference_attempts" ADD COLUMN "tenant_id" TEXT NOT NULL DEFAULT 'default';

-- Keys so far could do everything; new ones are their tenant's. Chunks so far count as sent.
ALTER TABLE "api_keys" ALTER COLUMN "installation" SET DEFAULT false;
ALTER TABLE "chunks" ALTER COLUMN "arrived_at" DROP DEFAULT;

-- A version's id is the hash of its manifest, a chunk's of its bytes: two tenants may have the same.
ALTER TABLE "devices" DROP CONSTRAINT "devices_model_version_id_fkey";
ALTER TABLE "assignments" DROP CONSTRAINT "assignments_model_version_id_fkey", DROP CONSTRAINT "assignments_device_id_fkey";
ALTER TABLE "updates" DROP CONSTRAINT "updates_model_version_id_fkey";
ALTER TABLE "update_targets" DROP CONSTRAINT "update_targets_update_id_fkey", DROP CONSTRAINT "update_targets_device_id_fkey";
ALTER TABLE "latency_windows" DROP CONSTRAINT "latency_windows_device_id_fkey";
ALTER TABLE "inference_attempts" DROP CONSTRAINT "inference_attempts_inference_id_fkey", DROP CONSTRAINT "inference_attempts_device_id_fkey";
ALTER TABLE "console_sessions" DROP CONSTRAINT "console_sessions_api_key_id_fkey";
ALTER TABLE "model_versions" DROP CONSTRAINT "model_versions_pkey", ADD CONSTRAINT "model_versions_pkey" PRIMARY KEY ("tenant_id", "id");
ALTER TABLE "chunks" DROP CONSTRAINT "chunks_pkey", ADD CONSTRAINT "chunks_pkey" PRIMARY KEY ("tenant_id", "id");
ALTER TABLE "audit_records" DROP CONSTRAINT "audit_records_pkey", ADD CONSTRAINT "audit_records_pkey" PRIMARY KEY ("tenant_id", "sequence");
ALTER TABLE "trust_metadata" DROP CONSTRAINT "trust_metadata_pkey", ADD CONSTRAINT "trust_metadata_pkey" PRIMARY KEY ("tenant_id", "role", "version");

DROP INDEX "devices_name_key";
DROP INDEX "model_versions_name_published_at_idx";
DROP INDEX "inferences_created_at_idx";
DROP INDEX "audit_records_subject_sequence_idx";
CREATE UNIQUE INDEX "devices_tenant_id_name_key" ON "devices"("tenant_id", "name");
CREATE UNIQUE INDEX "devices_tenant_id_id_key" ON "devices"("tenant_id", "id");
CREATE UNIQUE INDEX "updates_tenant_id_id_key" ON "updates"("tenant_id", "id");
CREATE UNIQUE INDEX "inferences_tenant_id_id_key" ON "inferences"("tenant_id", "id");
CREATE UNIQUE INDEX "api_keys_tenant_id_id_key" ON "api_keys"("tenant_id", "id");
CREATE INDEX "model_versions_tenant_id_name_published_at_idx" ON "model_versions"("tenant_id", "name", "published_at");
CREATE INDEX "inferences_tenant_id_created_at_idx" ON "inferences"("tenant_id", "created_at");
CREATE INDEX "audit_records_tenant_id_subject_sequence_idx" ON "audit_records"("tenant_id", "subject", "sequence");

-- Foreign keys are not subject to row-level security: with the tenant in them, no row can point into another tenant.
ALTER TABLE "console_sessions" ADD CONSTRAINT "console_sessions_api_key_id_fkey" FOREIGN KEY ("tenant_id", "api_key_id") REFERENCES "api_keys"("tenant_id", "id") ON DELETE CASCADE ON UPDATE CASCADE;
ALTER TABLE "devices" ADD CONSTRAINT "devices_model_version_id_fkey" FOREIGN KEY ("tenant_id", "model_version_id") REFERENCES "model_versions"("tenant_id", "id") ON DELETE RESTRICT ON UPDATE CASCADE;
ALTER TABLE "assignments" ADD CONSTRAINT "assignments_device_id_fkey" FOREIGN KEY ("tenant_id", "device_id") REFERENCES "devices"("tenant_id", "id") ON DELETE CASCADE ON UPDATE CASCADE;
ALTER TABLE "assignments" ADD CONSTRAINT "assignments_model_version_id_fkey" FOREIGN KEY ("tenant_id", "model_version_id") REFERENCES "model_versions"("tenant_id", "id") ON DELETE RESTRICT ON UPDATE CASCADE;
ALTER TABLE "latency_windows" ADD CONSTRAINT "latency_windows_device_id_fkey" FOREIGN KEY ("tenant_id", "device_id") REFERENCES "devices"("tenant_id", "id") ON DELETE CASCADE ON UPDATE CASCADE;
ALTER TABLE "updates" ADD CONSTRAINT "updates_model_version_id_fkey" FOREIGN KEY ("tenant_id", "model_version_id") REFERENCES "model_versions"("tenant_id", "id") ON DELETE RESTRICT ON UPDATE CASCADE;
ALTER TABLE "update_targets" ADD CONSTRAINT "update_targets_update_id_fkey" FOREIGN KEY ("tenant_id", "update_id") REFERENCES "updates"("tenant_id", "id") ON DELETE CASCADE ON UPDATE CASCADE;
ALTER TABLE "update_targets" ADD CONSTRAINT "update_targets_device_id_fkey" FOREIGN KEY ("tenant_id", "device_id") REFERENCES "devices"("tenant_id", "id") ON DELETE CASCADE ON UPDATE CASCADE;
ALTER TABLE "inference_attempts" ADD CONSTRAINT "inference_attempts_inference_id_fkey" FOREIGN KEY ("tenant_id", "inference_id") REFERENCES "inferences"("tenant_id", "id") ON DELETE CASCADE ON UPDATE CASCADE;
ALTER TABLE "inference_attempts" ADD CONSTRAINT "inference_attempts_device_id_fkey" FOREIGN KEY ("tenant_id", "device_id") REFERENCES "devices"("tenant_id", "id") ON DELETE CASCADE ON UPDATE CASCADE;

-- From here on a row takes its tenant from the scope that writes it.
ALTER TABLE "api_keys" ALTER COLUMN "tenant_id" SET DEFAULT current_setting('matfleet.tenant');
ALTER TABLE "console_sessions" ALTER COLUMN "tenant_id" SET DEFAULT current_setting('matfleet.tenant');
ALTER TABLE "join_tokens" ALTER COLUMN "tenant_id" SET DEFAULT current_setting('matfleet.tenant');
ALTER TABLE "enrolments" ALTER COLUMN "tenant_id" SET DEFAULT current_setting('matfleet.tenant');
ALTER TABLE "device_keys" ALTER COLUMN "tenant_id" SET DEFAULT current_setting('matfleet.tenant');
ALTER TABLE "tombstones" ALTER COLUMN "tenant_id" SET DEFAULT current_setting('matfleet.tenant');
ALTER TABLE "audit_records" ALTER COLUMN "tenant_id" SET DEFAULT current_setting('matfleet.tenant');
ALTER TABLE "device_events" ALTER COLUMN "tenant_id" SET DEFAULT current_setting('matfleet.tenant');
ALTER TABLE "devices" ALTER COLUMN "tenant_id" SET DEFAULT current_setting('matfleet.tenant');
ALTER TABLE "model_versions" ALTER COLUMN "tenant_id" SET DEFAULT current_setting('matfleet.tenant');
ALTER TABLE "chunks" ALTER COLUMN "tenant_id" SET DEFAULT current_setting('matfleet.tenant');
ALTER TABLE "assignments" ALTER COLUMN "tenant_id" SET DEFAULT current_setting('matfleet.tenant');
ALTER TABLE "latency_windows" ALTER COLUMN "tenant_id" SET DEFAULT current_setting('matfleet.tenant');
ALTER TABLE "trust_metadata" ALTER COLUMN "tenant_id" SET DEFAULT current_setting('matfleet.tenant');
ALTER TABLE "updates" ALTER COLUMN "tenant_id" SET DEFAULT current_setting('matfleet.tenant');
ALTER TABLE "update_targets" ALTER COLUMN "tenant_id" SET DEFAULT current_setting('matfleet.tenant');
ALTER TABLE "inferences" ALTER COLUMN "tenant_id" SET DEFAULT current_setting('matfleet.tenant');
ALTER TABLE "inference_attempts" ALTER COLUMN "tenant_id" SET DEFAULT current_setting('matfleet.tenant');

SELECT "matfleet_isolate"('tenants', 'id');
SELECT "matfleet_isolate"('api_keys');
SELECT "matfleet_isolate"('console_sessions');
SELECT "matfleet_isolate"('join_tokens');
SELECT "matfleet_isolate"('enrolments');
SELECT "matfleet_isolate"('device_keys');
SELECT "matfleet_isolate"('tombstones');
SELECT "matfleet_isolate"('audit_records');
SELECT "matfleet_isolate"('device_events');
SELECT "matfleet_isolate"('devices');
SELECT "matfleet_isolate"('model_versions');
SELECT "matfleet_isolate"('chunks');
SELECT "matfleet_isolate"('assignments');
SELECT "matfleet_isolate"('latency_windows');
SELECT "matfleet_isolate"('trust_metadata');
SELECT "matfleet_isolate"('updates');
SELECT "matfleet_isolate"('update_targets');
SELECT "matfleet_isolate"('inferences');
SELECT "matfleet_isolate"('inference_attempts');
