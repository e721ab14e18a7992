import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import pg from 'pg';
import { createDatabase, type TestDatabase } from '../../../../test/support/database.js';
import { migrateFor, roleBeyondRowSecurity } from './application-role.js';
import { migrate } from './migrate.js';
import { PrismaService } from './prisma.service.js';
import { inSystem, inTenant, SYSTEM_OPTIONS } from './scope.js';

/** Tables of no tenant, each with the reason. Whoever adds one here answers for it; every other table needs `matfleet_isolate`. */
const SHARED: Record<string, string> = {
  replicas: 'processes of the installation',
  leader_leases: 'who of them leads',
  _prisma_migrations: 'the schema itself',
};

const TEXTS = `SELECT table_name AS table, column_name AS column, data_type AS type FROM information_schema.columns
               WHERE table_schema = 'public' AND column_name <> 'tenant_id' AND is_nullable = 'NO' AND column_default IS NULL`;
const VALUES: Record<string, (tenant: string) => unknown> = {
  text: (tenant) => tenant,
  jsonb: () => '{}',
  bytea: (tenant) => Buffer.from(tenant),
  boolean: () => false,
  'timestamp without time zone': () => new Date(0).toISOString(),
};

/** Row-level security alone, without the service before it: this spec speaks SQL. */
describe('rows of two tenants', () => {
  let database: TestDatabase;
  let system: pg.Client;
  let client: pg.Client;
  let tables: string[];

  const connect = async (options?: string): Promise<pg.Client> => {
    const one = new pg.Client({ connectionString: database.url, ...(options !== undefined && { options }) });
    one.on('error', () => {});
    await one.connect();
    return one;
  };
  const ownerOf = (table: string): string => (table === 'tenants' ? 'id' : 'tenant_id');
  /** In a transaction that is rolled back, as the door would do it. */
  async function under<T>(tenant: string, work: () => Promise<T>): Promise<T> {
    await client.query('BEGIN');
    await client.query(`SELECT set_config('matfleet.tenant', $1, true)`, [tenant]);
    return work().finally(() => client.query('ROLLBACK'));
  }

  /** One row a table: every text is the tenant's name, so that foreign keys hold whatever they are. */
  function insert(by: pg.Client, table: string, columns: { column: string; type: string }[], tenant: string): Promise<unknown> {
    const named = table === 'tenants' ? columns : [...columns, { column: 'tenant_id', type: 'text' }];
    const values = named.map(({ type }) => (VALUES[type] ?? (() => 1))(tenant));
    const list = named.map(({ column }) => `"${column}"`).join(', ');
    return by.query(`INSERT INTO "${table}" (${list}) VALUES (${values.map((_, i) => `$${i + 1}`).join(', ')})`, values);
  }
  const columnsOf = new Map<string, { column: string; type: string }[]>();

  beforeAll(async () => {
    database = await createDatabase();
    await migrate(database.url);
    [client, system] = [await connect(), await connect(SYSTEM_OPTIONS)];
    const { rows } = await client.query<{ name: string }>(`SELECT tablename AS name FROM pg_tables WHERE schemaname = 'public' ORDER BY 1`);
    tables = rows.map((row) => row.name).filter((name) => !(name in SHARED));
    for (const { table, ...column } of (await client.query<{ table: string; column: string; type: string }>(TEXTS)).rows)
      columnsOf.set(table, [...(columnsOf.get(table) ?? []), column]);
    // In the order that foreign keys ask for, found by trying.
    let rest = tables.flatMap((table) => ['north', 'south'].map((tenant) => ({ table, tenant })));
    for (let failures: { table: string; tenant: string; why: unknown }[]; rest.length > 0; rest = failures) {
      failures = [];
      for (const { table, tenant } of rest)
        await insert(system, table, columnsOf.get(table)!, tenant).catch((why: unknown) => failures.push({ table, tenant, why }));
      if (failures.length === rest.length) throw new Error(`no row of ${failures[0]!.table} can be made: ${String(failures[0]!.why)}`);
    }
  });
  afterAll(async () => {
    await Promise.all([client?.end(), system?.end()]);
    await database?.drop();
  });

  it('are told apart in every table, but for a short list: a table that nobody thought of fails here', async () => {
    const { rows } = await client.query<{ name: string; forced: boolean; policies: string }>(`
      SELECT c.relname AS name, c.relrowsecurity AND c.relforcerowsecurity AS forced,
             (SELECT string_agg(p.polname || ' ' || pg_get_expr(p.polqual, p.polrelid), '; ') FROM pg_policy p WHERE p.polrelid = c.oid) AS policies
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p')`);
    expect(rows.length).toBeGreaterThan(15);
    for (const { name, forced, policies } of rows)
      expect([
        name,
        name in SHARED || (forced && policies.startsWith(`tenant ((${ownerOf(name)} = ( SELECT current_setting('matfleet.tenant'`)),
      ]).toEqual([name, true]);
    const { rows: views } = await client.query(`SELECT viewname FROM pg_views WHERE schemaname = 'public'`);
    expect(views).toEqual([]); // A view would read with its owner's eyes.
  });

  it('are seen by their own tenant alone, by none without a tenant, by all in the system scope', async () => {
    for (const table of tables) {
      const owners = async (by: pg.Client): Promise<string[]> =>
        (await by.query<{ owner: string }>(`SELECT ${ownerOf(table)} AS owner FROM "${table}" ORDER BY 1`)).rows.map((row) => row.owner);
      expect([table, await under('north', () => owners(client))]).toEqual([table, ['north']]);
      expect([table, await owners(client)]).toEqual([table, []]);
      expect([table, (await owners(system)).filter((owner) => owner !== 'default')]).toEqual([table, ['north', 'south']]);
    }
  });

  it('are changed, removed and made by their own tenant alone', async () => {
    const refused = /violates row-level security policy|append-only|violates check constraint/;
    for (const table of tables) {
      const owner = ownerOf(table);
      const touched = (sql: string): Promise<number | string | null> =>
        under('north', () =>
          client.query(sql, ['south']).then(
            (result) => result.rowCount,
            (error: Error) => error.message,
          ),
        );
      for (const sql of [`UPDATE "${table}" SET ${owner} = ${owner} WHERE ${owner} = $1`, `DELETE FROM "${table}" WHERE ${owner} = $1`])
        expect([sql, table === 'audit_records' ? expect.stringMatching(refused) : 0]).toEqual([sql, await touched(sql)]);
      expect([table, await touched(`UPDATE "${table}" SET ${owner} = $1`)]).toEqual([table, expect.stringMatching(refused)]);
      await expect(under('north', () => insert(client, table, columnsOf.get(table)!, 'south'))).rejects.toThrow(refused);
    }
  });

  it('cannot point at each other, because foreign keys look past row-level security', async () => {
    const { rows } = await client.query<{ name: string; columns: string[]; target: string }>(`
      SELECT conname AS name, f.relname AS target, (SELECT array_agg(a.attname::text) FROM pg_attribute a WHERE a.attrelid = k.conrelid AND a.attnum = ANY(k.conkey)) AS columns
      FROM pg_constraint k JOIN pg_class f ON f.oid = k.confrelid WHERE k.contype = 'f' AND k.connamespace = 'public'::regnamespace`);
    expect(rows.length).toBeGreaterThan(5);
    for (const { name, columns, target } of rows) expect([name, target in SHARED || columns.includes('tenant_id')]).toEqual([name, true]);
  });

  it('cannot be made without a tenant, or with one that means all', async () => {
    const insertVersion = `INSERT INTO model_versions (id, name, manifest) VALUES ('v', 'v', '')`;
    await expect(client.query(insertVersion)).rejects.toThrow();
    await expect(system.query(insertVersion)).rejects.toThrow('tenant_is_named');
    await expect(under('north', () => client.query(insertVersion))).resolves.toMatchObject({ rowCount: 1 });
  });

  it('come through the door by the scope of the work, with the service’s own condition as the first wall', async () => {
    const prisma = new PrismaService(database.url);
    const ids = (): Promise<string[]> => prisma.device.findMany({ orderBy: { id: 'asc' } }).then((devices) => devices.map(({ id }) => id));
    try {
      expect(await inTenant('north', ids)).toEqual(['north']);
      expect(await inSystem(ids)).toEqual(['north', 'south']);
      expect(await Promise.all(['north', 'south', 'north'].map((tenant) => inTenant(tenant, ids)))).toEqual([['north'], ['south'], ['north']]);
      await expect(ids()).rejects.toThrow('has no tenant');
      // The same moment, the same question: Prisma must not answer two tenants together.
      const find = (tenant: string) => inTenant(tenant, () => prisma.device.findUnique({ where: { id: 'south' }, select: { id: true } }));
      expect(await Promise.all([find('north'), find('south')])).toEqual([null, { id: 'south' }]);
      expect(await inTenant('north', () => prisma.$queryRaw`SELECT id FROM devices`)).toEqual([{ id: 'north' }]);
      const { count } = await inTenant('north', () => prisma.device.updateMany({ where: { id: 'south' }, data: { name: 'taken' } }));
      expect(count).toBe(0);
      await inTenant('north', () =>
        prisma.$transaction(async (tx) => {
          expect(await tx.device.count()).toBe(1);
          expect(await tx.$queryRaw`SELECT id FROM devices`).toEqual([{ id: 'north' }]);
          // The second wall taken away: what is left is the condition that the door adds.
          await tx.$executeRaw`SELECT set_config('matfleet.tenant', '*', true)`;
          expect(await tx.$queryRaw`SELECT id FROM devices ORDER BY id`).toHaveLength(2);
          expect((await tx.device.findMany()).map(({ id }) => id)).toEqual(['north']);
          expect(await tx.device.findUnique({ where: { id: 'south' } })).toBeNull();
        }),
      );
    } finally {
      await prisma.$disconnect();
    }
  });

  it('are served by a role that was made for it, which changes no table and no audit record', async () => {
    const owner = await createDatabase();
    const [ownerUrl, serviceUrl] = [new URL(owner.serverUrl), new URL(owner.url)];
    ownerUrl.pathname = serviceUrl.pathname;
    serviceUrl.username = `service_${randomBytes(6).toString('hex')}`;
    const service = new pg.Client({ connectionString: serviceUrl.href });
    service.on('error', () => {});
    try {
      expect(await migrateFor(serviceUrl.href, ownerUrl.href)).not.toEqual([]);
      expect(await migrateFor(serviceUrl.href, ownerUrl.href)).toEqual([]);
      expect(await roleBeyondRowSecurity(serviceUrl.href)).toBeNull();
      await service.connect();
      expect((await service.query(`SELECT id FROM tenants`)).rows).toEqual([]);
      await service.query(`SET matfleet.tenant = 'default'`);
      expect((await service.query(`SELECT id FROM tenants`)).rows).toEqual([{ id: 'default' }]);
      await service.query(`INSERT INTO device_events (device_id, at, kind, detail) VALUES ('d', now(), 'engine', '{}')`);
      for (const sql of [
        'ALTER TABLE devices DISABLE ROW LEVEL SECURITY',
        'DROP TABLE devices',
        `UPDATE audit_records SET actor = 'x'`,
        'CREATE TABLE own (id int)',
      ])
        await expect(service.query(sql)).rejects.toThrow(/must be owner of|permission denied/);
    } finally {
      await service.end();
      await owner.drop();
    }
  });

  it('are not safe from a superuser, which is told', async () => {
    expect(await roleBeyondRowSecurity(database.url)).toBeNull();
    expect(await roleBeyondRowSecurity(database.serverUrl)).toBe('matfleet');
  });
});
