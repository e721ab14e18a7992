-- The first schema. Made by `prisma migrate diff --from-empty --to-schema prisma/schema.prisma --script`.
-- CreateSchema
CREATE SCHEMA IF NOT EXISTS "public";

-- CreateTable
CREATE TABLE "api_keys" (
    "id" TEXT NOT NULL,
    "name" TEXT NOT NULL,
    "secret_hash" TEXT NOT NULL,
    "created_at" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "revoked_at" TIMESTAMP(3),

    CONSTRAINT "api_keys_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "console_sessions" (
    "secret_hash" TEXT NOT NULL,
    "api_key_id" TEXT NOT NULL,
    "created_at" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "expires_at" TIMESTAMP(3) NOT NULL,

    CONSTRAINT "console_sessions_pkey" PRIMARY KEY ("secret_hash")
);

-- CreateTable
CREATE TABLE "join_tokens" (
    "id" TEXT NOT NULL,
    "secret_hash" TEXT NOT NULL,
    "uses_left" INTEGER NOT NULL,
    "expires_at" TIMESTAMP(3) NOT NULL,
    "created_at" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "join_tokens_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "devices" (
    "id" TEXT NOT NULL,
    "name" TEXT NOT NULL,
    "public_key_hash" TEXT NOT NULL,
    "created_at" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "epoch" BIGINT NOT NULL DEFAULT 0,
    "boot_id" TEXT,
    "agent_version" TEXT,
    "capabilities" JSONB,
    "last_seen_at" TIMESTAMP(3),
    "model_version_id" TEXT,
    "generation" BIGINT NOT NULL DEFAULT 0,
    "observed" JSONB,
    "phase" TEXT,
    "phase_error" TEXT,
    "fetched_bytes" BIGINT NOT NULL DEFAULT 0,
    "total_bytes" BIGINT NOT NULL DEFAULT 0,
    "latency_correction" DOUBLE PRECISION NOT NULL DEFAULT 1,

    CONSTRAINT "devices_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "model_versions" (
    "id" TEXT NOT NULL,
    "name" TEXT NOT NULL,
    "manifest" BYTEA NOT NULL,
    "created_at" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "published_at" TIMESTAMP(3),

    CONSTRAINT "model_versions_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "chunks" (
    "id" TEXT NOT NULL,
    "bytes" BIGINT NOT NULL,
    "created_at" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "chunks_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "assignments" (
    "device_id" TEXT NOT NULL,
    "generation" BIGINT NOT NULL,
    "model_version_id" TEXT NOT NULL,
    "slice_id" TEXT NOT NULL,
    "context_tokens" INTEGER NOT NULL,
    "reason" TEXT NOT NULL,
    "explanation" JSONB NOT NULL,
    "update_id" TEXT,
    "created_at" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "assignments_pkey" PRIMARY KEY ("device_id","generation")
);

-- CreateTable
CREATE TABLE "latency_windows" (
    "device_id" TEXT NOT NULL,
    "window_start" TIMESTAMP(3) NOT NULL,
    "model_version_id" TEXT NOT NULL,
    "slice_id" TEXT NOT NULL,
    "ttft" JSONB NOT NULL,
    "inter_token" JSONB NOT NULL,
    "queue" JSONB NOT NULL,
    "output_tokens" BIGINT NOT NULL DEFAULT 0,
    "failed" BIGINT NOT NULL DEFAULT 0,

    CONSTRAINT "latency_windows_pkey" PRIMARY KEY ("device_id","window_start","model_version_id","slice_id")
);

-- CreateTable
CREATE TABLE "updates" (
    "id" TEXT NOT NULL,
    "model_version_id" TEXT NOT NULL,
    "state" TEXT NOT NULL,
    "whole_fleet" BOOLEAN NOT NULL DEFAULT false,
    "created_at" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "deadline_at" TIMESTAMP(3) NOT NULL,
    "finished_at" TIMESTAMP(3),

    CONSTRAINT "updates_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "update_targets" (
    "update_id" TEXT NOT NULL,
    "device_id" TEXT NOT NULL,
    "state" TEXT NOT NULL,
    "generation" BIGINT,
    "error" TEXT,
    "changed_at" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "update_targets_pkey" PRIMARY KEY ("update_id","device_id")
);

-- CreateTable
CREATE TABLE "inferences" (
    "id" TEXT NOT NULL,
    "state" TEXT NOT NULL,
    "request" JSONB NOT NULL,
    "task" TEXT,
    "quality_floor" DOUBLE PRECISION,
    "deadline_at" TIMESTAMP(3) NOT NULL,
    "answer" TEXT,
    "error" TEXT,
    "answered_by" TEXT,
    "created_at" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "finished_at" TIMESTAMP(3),

    CONSTRAINT "inferences_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "inference_attempts" (
    "id" TEXT NOT NULL,
    "inference_id" TEXT NOT NULL,
    "ordinal" INTEGER NOT NULL,
    "device_id" TEXT NOT NULL,
    "model_version_id" TEXT NOT NULL,
    "slice_id" TEXT NOT NULL,
    "state" TEXT NOT NULL,
    "reason" TEXT NOT NULL,
    "error" TEXT,
    "ttft_ms" DOUBLE PRECISION,
    "output_tokens" INTEGER,
    "started_at" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "finished_at" TIMESTAMP(3),

    CONSTRAINT "inference_attempts_pkey" PRIMARY KEY ("id")
);

-- CreateIndex
CREATE UNIQUE INDEX "api_keys_secret_hash_key" ON "api_keys"("secret_hash");

-- CreateIndex
CREATE INDEX "console_sessions_expires_at_idx" ON "console_sessions"("expires_at");

-- CreateIndex
CREATE UNIQUE INDEX "join_tokens_secret_hash_key" ON "join_tokens"("secret_hash");

-- CreateIndex
CREATE UNIQUE INDEX "devices_name_key" ON "devices"("name");

-- CreateIndex
CREATE UNIQUE INDEX "devices_public_key_hash_key" ON "devices"("public_key_hash");

-- CreateIndex
CREATE INDEX "model_versions_name_published_at_idx" ON "model_versions"("name", "published_at");

-- CreateIndex
CREATE INDEX "updates_state_idx" ON "updates"("state");

-- CreateIndex
CREATE INDEX "update_targets_device_id_state_idx" ON "update_targets"("device_id", "state");

-- CreateIndex
CREATE UNIQUE INDEX "inferences_answered_by_key" ON "inferences"("answered_by");

-- CreateIndex
CREATE INDEX "inferences_created_at_idx" ON "inferences"("created_at");

-- CreateIndex
CREATE UNIQUE INDEX "inference_attempts_inference_id_ordinal_key" ON "inference_attempts"("inference_id", "ordinal");

-- AddForeignKey
ALTER TABLE "console_sessions" ADD CONSTRAINT "console_sessions_api_key_id_fkey" FOREIGN KEY ("api_key_id") REFERENCES "api_keys"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "devices" ADD CONSTRAINT "devices_model_version_id_fkey" FOREIGN KEY ("model_version_id") REFERENCES "model_versions"("id") ON DELETE SET NULL ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "assignments" ADD CONSTRAINT "assignments_device_id_fkey" FOREIGN KEY ("device_id") REFERENCES "devices"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "assignments" ADD CONSTRAINT "assignments_model_version_id_fkey" FOREIGN KEY ("model_version_id") REFERENCES "model_versions"("id") ON DELETE RESTRICT ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "latency_windows" ADD CONSTRAINT "latency_windows_device_id_fkey" FOREIGN KEY ("device_id") REFERENCES "devices"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "updates" ADD CONSTRAINT "updates_model_version_id_fkey" FOREIGN KEY ("model_version_id") REFERENCES "model_versions"("id") ON DELETE RESTRICT ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "update_targets" ADD CONSTRAINT "update_targets_update_id_fkey" FOREIGN KEY ("update_id") REFERENCES "updates"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "update_targets" ADD CONSTRAINT "update_targets_device_id_fkey" FOREIGN KEY ("device_id") REFERENCES "devices"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "inference_attempts" ADD CONSTRAINT "inference_attempts_inference_id_fkey" FOREIGN KEY ("inference_id") REFERENCES "inferences"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "inference_attempts" ADD CONSTRAINT "inference_attempts_device_id_fkey" FOREIGN KEY ("device_id") REFERENCES "devices"("id") ON DELETE CASCADE ON UPDATE CASCADE;


