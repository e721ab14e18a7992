-- Labels of a device, by key: what operators and join tokens say of it.
ALTER TABLE "devices" ADD COLUMN "labels" JSONB NOT NULL DEFAULT '{}';
