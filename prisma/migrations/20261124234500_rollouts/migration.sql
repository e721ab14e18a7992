-- Updates become rollouts: waves, targets with their reasons, and what happened. What was an update is a rollout of one wave.
CREATE TABLE "rollouts" (
    "tenant_id" TEXT NOT NULL DEFAULT current_setting('matfleet.tenant'),
    "id" TEXT NOT NULL,
    "name" TEXT,
    "model_version_id" TEXT NOT NULL,
    "state" TEXT NOT NULL,
    "reason" TEXT,
    "plan" JSONB NOT NULL DEFAULT '{}',
    "filter" TEXT,
    "whole_fleet" BOOLEAN NOT NULL DEFAULT false,
    "pace" JSONB,
    "holds" JSONB,
    "wake_at" TIMESTAMP(3),
    "created_at" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "finished_at" TIMESTAMP(3),

    CONSTRAINT "rollouts_pkey" PRIMARY KEY ("id")
);

CREATE TABLE "rollout_waves" (
    "tenant_id" TEXT NOT NULL DEFAULT current_setting('matfleet.tenant'),
    "rollout_id" TEXT NOT NULL,
    "ordinal" INTEGER NOT NULL,
    "state" TEXT NOT NULL,
    "reason" TEXT,
    "opened_at" TIMESTAMP(3),
    "observed_since" TIMESTAMP(3),
    "ended_at" TIMESTAMP(3),
    "approved_at" TIMESTAMP(3),
    "waived" JSONB,
    "gates" JSONB,

    CONSTRAINT "rollout_waves_pkey" PRIMARY KEY ("rollout_id","ordinal")
);

CREATE TABLE "rollout_targets" (
    "tenant_id" TEXT NOT NULL DEFAULT current_setting('matfleet.tenant'),
    "rollout_id" TEXT NOT NULL,
    "device_id" TEXT NOT NULL,
    "wave" INTEGER NOT NULL DEFAULT 0,
    "position" INTEGER NOT NULL DEFAULT 0,
    "state" TEXT NOT NULL,
    "reason" TEXT,
    "failure" TEXT,
    "attempts" INTEGER NOT NULL DEFAULT 0,
    "retry_at" TIMESTAMP(3),
    "generation" BIGINT,
    "change_over" TEXT,
    "previous_version_id" TEXT,
    "pushed_at" TIMESTAMP(3),
    "changed_at" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "rollout_targets_pkey" PRIMARY KEY ("rollout_id","device_id")
);

CREATE TABLE "rollout_events" (
    "tenant_id" TEXT NOT NULL DEFAULT current_setting('matfleet.tenant'),
    "id" BIGSERIAL NOT NULL,
    "rollout_id" TEXT NOT NULL,
    "at" TIMESTAMP(3) NOT NULL,
    "wave" INTEGER,
    "state" TEXT NOT NULL,
    "reason" TEXT,
    "actor" TEXT,

    CONSTRAINT "rollout_events_pkey" PRIMARY KEY ("id")
);

CREATE UNIQUE INDEX "rollouts_tenant_id_id_key" ON "rollouts"("tenant_id", "id");
CREATE UNIQUE INDEX "rollouts_tenant_id_name_key" ON "rollouts"("tenant_id", "name");
CREATE INDEX "rollouts_state_idx" ON "rollouts"("state");
CREATE INDEX "rollouts_tenant_id_created_at_idx" ON "rollouts"("tenant_id", "created_at");
CREATE INDEX "rollout_targets_rollout_id_wave_state_idx" ON "rollout_targets"("rollout_id", "wave", "state");
CREATE INDEX "rollout_targets_device_id_state_idx" ON "rollout_targets"("device_id", "state");
CREATE INDEX "rollout_events_rollout_id_id_idx" ON "rollout_events"("rollout_id", "id");

ALTER TABLE "rollouts" ADD CONSTRAINT "rollouts_model_version_id_fkey" FOREIGN KEY ("tenant_id", "model_version_id") REFERENCES "model_versions"("tenant_id", "id") ON DELETE RESTRICT ON UPDATE CASCADE;
ALTER TABLE "rollout_waves" ADD CONSTRAINT "rollout_waves_rollout_id_fkey" FOREIGN KEY ("tenant_id", "rollout_id") REFERENCES "rollouts"("tenant_id", "id") ON DELETE CASCADE ON UPDATE CASCADE;
ALTER TABLE "rollout_targets" ADD CONSTRAINT "rollout_targets_rollout_id_fkey" FOREIGN KEY ("tenant_id", "rollout_id") REFERENCES "rollouts"("tenant_id", "id") ON DELETE CASCADE ON UPDATE CASCADE;
ALTER TABLE "rollout_targets" ADD CONSTRAINT "rollout_targets_device_id_fkey" FOREIGN KEY ("tenant_id", "device_id") REFERENCES "devices"("tenant_id", "id") ON DELETE CASCADE ON UPDATE CASCADE;
ALTER TABLE "rollout_events" ADD CONSTRAINT "rollout_events_rollout_id_fkey" FOREIGN KEY ("tenant_id", "rollout_id") REFERENCES "rollouts"("tenant_id", "id") ON DELETE CASCADE ON UPDATE CASCADE;

-- Of all tenants; a row keeps its own.
SELECT set_config('matfleet.tenant', '*', true);
INSERT INTO "rollouts" ("tenant_id", "id", "model_version_id", "state", "whole_fleet", "created_at", "finished_at")
SELECT "tenant_id", "id", "model_version_id", CASE WHEN "state" = 'running' THEN 'running' ELSE 'succeeded' END, "whole_fleet", "created_at", "finished_at" FROM "updates";
INSERT INTO "rollout_waves" ("tenant_id", "rollout_id", "ordinal", "state", "opened_at", "ended_at")
SELECT "tenant_id", "id", 0, CASE WHEN "state" = 'running' THEN 'running' ELSE 'succeeded' END, "created_at", "finished_at" FROM "updates";
INSERT INTO "rollout_targets" ("tenant_id", "rollout_id", "device_id", "state", "reason", "failure", "attempts", "generation", "pushed_at", "changed_at")
SELECT "tenant_id", "update_id", "device_id", CASE WHEN "state" = 'pending' THEN 'waiting' ELSE "state" END, "error", CASE WHEN "state" = 'failed' THEN 'device' END,
    CASE WHEN "generation" IS NULL THEN 0 ELSE 1 END, "generation", CASE WHEN "generation" IS NOT NULL THEN "changed_at" END, "changed_at"
FROM "update_targets";

DROP TABLE "update_targets";
DROP TABLE "updates";

ALTER TABLE "assignments" RENAME COLUMN "update_id" TO "rollout_id";
ALTER TABLE "assignments" ADD COLUMN "change_over" TEXT NOT NULL DEFAULT 'at-once';

SELECT "matfleet_isolate"('rollouts');
SELECT "matfleet_isolate"('rollout_waves');
SELECT "matfleet_isolate"('rollout_targets');
SELECT "matfleet_isolate"('rollout_events');
