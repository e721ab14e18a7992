// Brings the database's schema up to date and ends: for a deployment that does so before its replicas start.
import { migrateFor } from './database/application-role.js';

const databaseUrl = process.env['DATABASE_URL'];
if (!databaseUrl) {
  console.error('DATABASE_URL is needed: the database whose schema is to be brought up to date');
  process.exit(78); // EX_CONFIG
}
const applied = await migrateFor(databaseUrl, process.env['DATABASE_MIGRATION_URL'] || databaseUrl);
console.log(applied.length > 0 ? `applied migrations: ${applied.join(', ')}` : 'the schema is up to date');
