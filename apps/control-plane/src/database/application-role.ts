import pg from 'pg';
import { awaitDatabase } from './await-database.js';
import { migrate } from './migrate.js';

const QUEUE_SCHEMA = 'matfleet_queue';

/** Waits for the database, migrates as the owner, and lets the role of `applicationUrl` in where that is another one. Returns the names of the migrations it applied. */
export async function migrateFor(applicationUrl: string, ownerUrl: string): Promise<string[]> {
  await awaitDatabase(ownerUrl);
  const applied = await migrate(ownerUrl);
  const { username, password } = new URL(applicationUrl);
  if (username !== new URL(ownerUrl).username) await grantApplication(ownerUrl, decodeURIComponent(username), decodeURIComponent(password));
  return applied;
}

/**
 * Gives the role that the service connects as what it needs in a migrated database, and no more: it changes no table, and no audit record. Makes
 * the role where there is none. Safe to repeat, one replica at a time. `ownerUrl` is of whoever migrated.
 */
async function grantApplication(ownerUrl: string, role: string, password: string): Promise<void> {
  await withClient(ownerUrl, async (client) => {
    const name = client.escapeIdentifier(role);
    await client.query('BEGIN');
    await client.query('SELECT pg_advisory_xact_lock($1)', [LOCK_KEY]);
    const { rowCount: known } = await client.query('SELECT 1 FROM pg_roles WHERE rolname = $1', [role]);
    if (known === 0) await client.query(`CREATE ROLE ${name} LOGIN NOSUPERUSER NOBYPASSRLS PASSWORD ${client.escapeLiteral(password)}`);
    await client.query(`GRANT USAGE ON SCHEMA public TO ${name}`);
    await client.query(`GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO ${name}`);
    await client.query(`GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO ${name}`);
    await client.query(`REVOKE UPDATE, DELETE, TRUNCATE ON audit_records FROM ${name}`);
    await client.query(`REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON "_prisma_migrations" FROM ${name}`);
    // BullMQ makes the queue's schema itself. One that the owner made before is made again: what waited in it the sweeps find.
    const { rows } = await client.query<{ database: string; owner: string | null }>(
      `SELECT current_database() AS database, (SELECT r.rolname FROM pg_namespace n JOIN pg_roles r ON r.oid = n.nspowner WHERE n.nspname = $1) AS owner`,
      [QUEUE_SCHEMA],
    );
    const { database, owner } = rows[0]!;
    if (owner !== null && owner !== role) await client.query(`DROP SCHEMA ${QUEUE_SCHEMA} CASCADE`);
    await client.query(`GRANT CREATE ON DATABASE ${client.escapeIdentifier(database)} TO ${name}`);
    await client.query('COMMIT');
  });
}

/** The name of the connecting role if row-level security does not hold for it, else null. */
export async function roleBeyondRowSecurity(databaseUrl: string): Promise<string | null> {
  return withClient(databaseUrl, async (client) => (await client.query<{ name: string }>(BEYOND)).rows[0]?.name ?? null);
}

/** One row when the role is a superuser or has BYPASSRLS. */
const BEYOND = 'SELECT rolname AS name FROM pg_roles WHERE rolname = current_user AND (rolsuper OR rolbypassrls)';

/** Any constant serves; it only has to be the same in every replica. */
const LOCK_KEY = 5_316_911_786n;

async function withClient<T>(connectionString: string, work: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client({ connectionString, connectionTimeoutMillis: 10_000 });
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}
