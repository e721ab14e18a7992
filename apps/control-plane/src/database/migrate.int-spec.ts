import { spawnSync } from 'node:child_process';
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import pg from 'pg';
import { createDatabase, type TestDatabase } from '../../../../test/support/database.js';
import { migrate, MIGRATIONS_DIR } from './migrate.js';

const SCHEMA_FILE = fileURLToPath(new URL('../../../../prisma/schema.prisma', import.meta.url));
const SQL_TYPES: Record<string, string> = {
  String: 'text',
  DateTime: 'timestamp without time zone',
  Int: 'integer',
  BigInt: 'bigint',
  Float: 'double precision',
  Json: 'jsonb',
  Bytes: 'bytea',
  Boolean: 'boolean',
};

interface Table {
  /** `name type [not null]`, sorted. */
  columns: string[];
  /** `[unique] (columns)` of every index, the primary key among them, sorted. */
  indexes: string[];
  /** `(columns) -> table`, sorted. */
  foreignKeys: string[];
}

/** What schema.prisma says that the database should be. Reads the part of the language that the schema uses, and refuses types it does not know. */
function readSchema(text: string): Map<string, Table> {
  const blocks = [...text.matchAll(/^model (\w+) \{\n([\s\S]*?)^\}/gm)].map(([, name = '', body = '']) => ({ name, body }));
  const tableOf = new Map(blocks.map(({ name, body }) => [name, /@@map\("(\w+)"\)/.exec(body)![1]!]));
  return new Map(
    blocks.map(({ name, body }) => {
      const fields = [...body.matchAll(/^ {2}(\w+) +(\w+)(\?|\[\])? *(.*)$/gm)].map(([, field = '', type = '', mark = '', rest = '']) => ({
        field,
        type,
        mark,
        rest,
        column: /@map\("(\w+)"\)/.exec(rest)?.[1] ?? field,
      }));
      const columnsOf = (list: string): string =>
        list
          .split(',')
          .map((field) => fields.find((f) => f.field === field.trim())!.column)
          .join(', ');
      const scalars = fields.filter(({ type }) => !tableOf.has(type));
      for (const { type } of scalars) if (!SQL_TYPES[type]) throw new Error(`model ${name} uses the type ${type}, which this spec does not know`);
      return [
        tableOf.get(name)!,
        {
          columns: scalars.map(({ column, type, mark }) => `${column} ${SQL_TYPES[type]}${mark === '?' ? '' : ' not null'}`).sort(),
          indexes: [
            ...scalars.filter(({ rest }) => /@id\b/.test(rest) || /@unique\b/.test(rest)).map(({ column }) => `unique (${column})`),
            ...[...body.matchAll(/@@(id|unique|index)\(\[([\w, ]+)\]\)/g)].map(
              ([, kind, list = '']) => `${kind === 'index' ? '' : 'unique '}(${columnsOf(list)})`,
            ),
          ].sort(),
          foreignKeys: fields
            .flatMap(({ type, rest }) => {
              const list = /fields: \[([\w, ]+)\]/.exec(rest)?.[1];
              return list ? [`(${columnsOf(list)}) -> ${tableOf.get(type)}`] : [];
            })
            .sort(),
        },
      ];
    }),
  );
}

/** What the database is. */
async function introspect(client: pg.Client): Promise<Map<string, Table>> {
  const tables = new Map<string, Table>();
  const table = (name: string): Table => tables.get(name) ?? tables.set(name, { columns: [], indexes: [], foreignKeys: [] }).get(name)!;
  const columns = await client.query<{ t: string; c: string; type: string; nullable: string }>(
    `SELECT table_name AS t, column_name AS c, data_type AS type, is_nullable AS nullable FROM information_schema.columns WHERE table_schema = 'public' AND table_name <> '_prisma_migrations'`,
  );
  for (const { t, c, type, nullable } of columns.rows) table(t).columns.push(`${c} ${type}${nullable === 'YES' ? '' : ' not null'}`);
  const indexes = await client.query<{ t: string; is_unique: boolean; columns: string }>(
    `SELECT r.relname AS t, i.indisunique AS is_unique, (SELECT string_agg(a.attname, ', ' ORDER BY k.n) FROM unnest(i.indkey) WITH ORDINALITY AS k(attnum, n) JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum = k.attnum) AS columns
     FROM pg_index i JOIN pg_class r ON r.oid = i.indrelid JOIN pg_namespace s ON s.oid = r.relnamespace WHERE s.nspname = 'public' AND r.relname <> '_prisma_migrations'`,
  );
  for (const { t, is_unique, columns: list } of indexes.rows) table(t).indexes.push(`${is_unique ? 'unique ' : ''}(${list})`);
  const keys = await client.query<{ t: string; target: string; columns: string }>(
    `SELECT r.relname AS t, f.relname AS target, (SELECT string_agg(a.attname, ', ' ORDER BY k.n) FROM unnest(c.conkey) WITH ORDINALITY AS k(attnum, n) JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum = k.attnum) AS columns
     FROM pg_constraint c JOIN pg_class r ON r.oid = c.conrelid JOIN pg_class f ON f.oid = c.confrelid WHERE c.contype = 'f'`,
  );
  for (const { t, target, columns: list } of keys.rows) table(t).foreignKeys.push(`(${list}) -> ${target}`);
  for (const { columns: c, indexes: i, foreignKeys: f } of tables.values()) for (const list of [c, i, f]) list.sort();
  return tables;
}

describe('migrate', () => {
  let database: TestDatabase;
  let client: pg.Client;
  let dir: string;

  beforeAll(async () => {
    database = await createDatabase();
    client = new pg.Client({ connectionString: database.url });
    client.on('error', () => {});
    await client.connect();
    dir = await mkdtemp(join(tmpdir(), 'matfleet-migrations-'));
  });
  afterAll(async () => {
    await client.end();
    await database.drop();
    await rm(dir, { recursive: true, force: true });
  });

  it('brings an empty database to exactly what schema.prisma says', async () => {
    expect(await migrate(database.url)).not.toHaveLength(0);
    const wanted = readSchema(await readFile(SCHEMA_FILE, 'utf8'));
    expect(wanted.size).toBeGreaterThan(10);
    expect(Object.fromEntries(await introspect(client))).toEqual(Object.fromEntries(wanted));
  });

  it('applies nothing the second time, nor when two replicas start at once', async () => {
    expect(await Promise.all([migrate(database.url), migrate(database.url)])).toEqual([[], []]);
  });

  it('applies each new migration once, and leaves no trace of one that fails', async () => {
    const own = join(dir, 'own');
    await cp(MIGRATIONS_DIR, own, { recursive: true });
    await addMigration(own, '20990101000000_good', 'CREATE TABLE good (id int);');
    await addMigration(own, '20990102000000_bad', 'CREATE TABLE half (id int); SELECT no_such_function();');
    await expect(migrate(database.url, own)).rejects.toThrow('migration 20990102000000_bad failed: function no_such_function() does not exist');
    const { rows } = await client.query(`SELECT to_regclass('good') AS good, to_regclass('half') AS half`);
    expect(rows).toEqual([{ good: 'good', half: null }]);
  });

  it('refuses when the file of an applied migration was changed', async () => {
    const changed = join(dir, 'changed');
    await cp(MIGRATIONS_DIR, changed, { recursive: true });
    await addMigration(changed, '20261124000000_initial', 'SELECT 1;');
    await expect(migrate(database.url, changed)).rejects.toThrow('migration 20261124000000_initial has checksum');
  });

  it('is a command of its own too, for a job before the replicas', async () => {
    const bin = fileURLToPath(new URL('../../bin/matfleet-migrate.mjs', import.meta.url));
    const run = (DATABASE_URL?: string) => spawnSync(process.execPath, [bin], { encoding: 'utf8', env: { PATH: process.env['PATH'], DATABASE_URL } });
    const fresh = await createDatabase();
    try {
      const first = run(fresh.url);
      expect([first.status, first.stdout.includes('20261124000000_initial')]).toEqual([0, true]);
      expect(run(fresh.url)).toMatchObject({ status: 0, stdout: 'the schema is up to date\n' });
      const without = run();
      expect([without.status, without.stderr.includes('DATABASE_URL is needed')]).toEqual([78, true]);
    } finally {
      await fresh.drop();
    }
  });
});

async function addMigration(dir: string, name: string, sql: string): Promise<void> {
  await mkdir(join(dir, name), { recursive: true });
  await writeFile(join(dir, name, 'migration.sql'), sql);
}
