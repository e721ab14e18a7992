-- Keys so far could do everything; a new one can do what it is given.
ALTER TABLE "api_keys" ADD COLUMN "role" TEXT NOT NULL DEFAULT 'admin',
ADD COLUMN "device_filter" TEXT,
ADD COLUMN "expires_at" TIMESTAMP(3),
ADD COLUMN "last_used_at" TIMESTAMP(3);
ALTER TABLE "api_keys" ALTER COLUMN "role" SET DEFAULT 'viewer';
