-- AlterTable
ALTER TABLE "model_versions" ADD COLUMN "pinned_at" TIMESTAMP(3),
ADD COLUMN "retired_at" TIMESTAMP(3);
