// For Prisma's own command line (`npx prisma migrate dev`); the control plane applies prisma/migrations itself at start.
import { defineConfig } from 'prisma/config';

export default defineConfig({
  schema: 'prisma/schema.prisma',
  migrations: { path: 'prisma/migrations' },
  datasource: { url: process.env['DATABASE_URL'] ?? 'postgresql://matfleet@127.0.0.1:5432/matfleet' },
});
