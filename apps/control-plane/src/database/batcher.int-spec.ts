import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { createDatabase, type TestDatabase } from '../../../../test/support/database.js';
import { Batcher } from './batcher.js';
import { PrismaService } from './prisma.service.js';
import { currentTenant, inSystem, inTenant } from './scope.js';

interface Item {
  readonly key: string;
  readonly note: string;
}

describe('Batcher', () => {
  let database: TestDatabase;
  let prisma: PrismaService;
  const batches: number[] = [];

  beforeAll(async () => {
    database = await createDatabase();
    prisma = new PrismaService(database.url);
    await prisma.system.$executeRaw`CREATE TABLE noted (key text, note jsonb, at serial)`;
  });
  afterAll(async () => {
    await prisma.$disconnect();
    await database.drop();
  });

  const batcher = (): Batcher<Item, number> =>
    new Batcher(
      async (items) => {
        batches.push(items.length);
        const rows = await prisma.system.$queryRaw<{ key: string; at: number }[]>`
          INSERT INTO noted (key, note) SELECT key, to_jsonb(note) FROM jsonb_to_recordset(${JSON.stringify(items)}::jsonb) AS i(key text, note text)
          RETURNING key, at`;
        return items.map(({ key }) => rows.find((row) => row.key === key)!.at);
      },
      ({ key }) => key,
    );
  const items = (count: number, note = 'x'): Item[] => Array.from({ length: count }, (_, i) => ({ key: `k${i}`, note }));

  const add = <R>(noted: Batcher<Item, R>, item: Item): Promise<R> => inSystem(() => noted.add(item));

  it('does 1200 askings of one moment in three statements, and answers each with its own row', async () => {
    batches.length = 0;
    const noted = batcher();
    const rows = await Promise.all(items(1_200).map((item) => add(noted, item)));
    expect(batches).toEqual([500, 500, 200]);
    expect(new Set(rows).size).toBe(1_200);
  });

  it('keeps what one key asks in its order, one statement after another', async () => {
    batches.length = 0;
    const noted = batcher();
    const rows = await Promise.all(
      [1, 2, 3].flatMap((n) => [add(noted, { key: 'same', note: String(n) }), add(noted, { key: `other-${n}`, note: '' })]),
    );
    expect(batches).toEqual([4, 1, 1]);
    const same = [rows[0]!, rows[2]!, rows[4]!];
    expect(same).toEqual([...same].sort((a, b) => a - b));
  });

  it('refuses what PostgreSQL cannot store without losing the 99 others of its batch', async () => {
    const noted = batcher();
    const asked = items(100).map((item, i) => add(noted, i === 37 ? { ...item, note: 'zero \0 character' } : item));
    const outcomes = await Promise.allSettled(asked);
    expect(outcomes.flatMap(({ status }, i) => (status === 'rejected' ? [i] : []))).toEqual([37]);
  });

  it('does again what a deadlock has undone', async () => {
    await prisma.system.$executeRaw`CREATE TABLE locked (key text PRIMARY KEY, at int)`;
    await prisma.system.$executeRaw`INSERT INTO locked VALUES ('a', 0), ('b', 0)`;
    let runs = 0;
    const inOrder = (first: string, second: string): Batcher<string, number> =>
      new Batcher(async (some) => {
        runs += 1;
        await prisma.system.$transaction(async (tx) => {
          await tx.$executeRaw`UPDATE locked SET at = at + 1 WHERE key = ${first}`;
          await new Promise((resolve) => setTimeout(resolve, 200));
          await tx.$executeRaw`UPDATE locked SET at = at + 1 WHERE key = ${second}`;
        });
        return some.map(() => runs);
      });
    await inSystem(() => Promise.all([inOrder('a', 'b').add('x'), inOrder('b', 'a').add('x')]));
    expect(runs).toBe(3);
    expect(await prisma.system.$queryRaw`SELECT at FROM locked`).toEqual([{ at: 2 }, { at: 2 }]);
  });

  it('asks a database that is gone once, not once for each item', async () => {
    batches.length = 0;
    const gone = new PrismaService('postgresql://nobody@127.0.0.1:1/none');
    const noted = new Batcher<Item, unknown>((some) => (batches.push(some.length), gone.system.$queryRaw<unknown[]>`SELECT 1`));
    const outcomes = await Promise.allSettled(items(100).map((item) => add(noted, item)));
    expect(outcomes.every(({ status }) => status === 'rejected')).toBe(true);
    expect(batches).toEqual([100]);
    await gone.$disconnect();
  });

  it('never puts what two tenants ask into one statement, and runs each in the scope of who asked', async () => {
    const seen: [string, string[]][] = [];
    const noted = new Batcher<string, string>(async (asked) => {
      seen.push([currentTenant(), [...asked]]);
      return asked;
    });
    await Promise.all(['a', 'b', 'a', 'b'].map((tenant, i) => inTenant(tenant, () => noted.add(`${tenant}${i}`))));
    expect(seen).toEqual([
      ['a', ['a0', 'a2']],
      ['b', ['b1', 'b3']],
    ]);
    expect(() => noted.add('of nobody')).toThrow('has no tenant');
  });
});
