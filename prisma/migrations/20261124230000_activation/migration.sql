-- AlterTable
ALTER TABLE "devices" ADD COLUMN "activation" JSONB;
