import 'reflect-metadata';
import { createHash } from 'node:crypto';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import { createDatabase, type TestDatabase } from '../../../../test/support/database.js';
import { enrolledDevice } from '../../../../test/support/enrolled-device.js';
import { startS3, type S3Server } from '../../../../test/support/s3.js';
import { ApiKeyService } from '../access/api-key.service.js';
import { createApplication } from '../application.js';
import { parseConfig } from '../config.js';
import { migrate } from '../database/migrate.js';
import { PrismaService } from '../database/prisma.service.js';
import { manifestOf, sliceOf } from '../domain/fixtures.js';
import { createLogger, PinoNestLogger } from '../telemetry.js';
import type { GarbageReport } from './garbage.service.js';
import { Storage } from './storage/storage.js';

const sha256 = (bytes: Uint8Array | string): string => createHash('sha256').update(bytes).digest('hex');
const NO_AGE = { olderThanSeconds: 0 };

describe.each(['on disk', 'in S3'])('the catalogue with its chunks %s', (where) => {
  let database: TestDatabase;
  let s3: S3Server | undefined;
  let dataDir: string;
  let app: NestFastifyApplication;
  let [url, apiKey] = ['', ''];

  beforeAll(async () => {
    database = await createDatabase();
    await migrate(database.url);
    dataDir = await mkdtemp(join(tmpdir(), 'matfleet-catalogue-'));
    if (where === 'in S3') {
      s3 = await startS3();
      process.env.AWS_ACCESS_KEY_ID = process.env.AWS_SECRET_ACCESS_KEY = 'S3RVER';
    }
    const config = parseConfig({
      MATFLEET_DATA_DIR: dataDir,
      MATFLEET_HTTP_PORT: '0',
      MATFLEET_DEVICE_PORT: '0',
      ...(s3 && {
        MATFLEET_S3_BUCKET: s3.bucket,
        MATFLEET_S3_ENDPOINT: s3.endpoint,
        MATFLEET_S3_PATH_STYLE: '1',
        MATFLEET_S3_PREFIX: 'fleet/chunks/',
      }),
    });
    app = await createApplication(config, database.url, new PinoNestLogger(createLogger('fatal')));
    await app.get(ApiKeyService, { strict: false }).ensureFirstKey();
    await app.listen(0, '127.0.0.1');
    url = await app.getUrl();
    apiKey = (await readFile(join(dataDir, 'admin-api-key'), 'utf8')).trim();
  });
  afterAll(async () => {
    await app?.close();
    await s3?.stop();
    await database?.drop();
    await rm(dataDir, { recursive: true, force: true });
  });

  const request = (method: string, path: string, body?: Uint8Array | object, headers: Record<string, string> = {}): Promise<Response> => {
    const isBytes = body instanceof Uint8Array;
    return fetch(`${url}/api/v1/${path}`, {
      method,
      headers: {
        authorization: `Bearer ${apiKey}`,
        ...(body && { 'content-type': isBytes ? 'application/octet-stream' : 'application/json' }),
        ...headers,
      },
      ...(body && { body: isBytes ? new Uint8Array(body) : JSON.stringify(body) }),
    });
  };
  const json = async <T>(method: string, path: string, body?: Uint8Array | object): Promise<T> => {
    const response = await request(method, path, body);
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`);
    return (await response.json()) as T;
  };
  const storage = () => app.get(Storage, { strict: false }).chunks;
  const stored = async (): Promise<string[]> => {
    const ids: string[] = [];
    for await (const { id } of storage().list()) ids.push(id);
    return ids;
  };

  /** A version of `name` whose chunks begin with these texts; equal texts are equal chunks. */
  function packageOf(name: string, texts: readonly string[]) {
    const draft = manifestOf([sliceOf('only', 0, 0.6)], 3_000);
    const contents = draft.chunks.map((chunk, i) => Buffer.alloc(chunk.bytes, `${texts[i % texts.length]} ${i} `));
    const bytes = Buffer.from(JSON.stringify({ ...draft, name, chunks: draft.chunks.map((chunk, i) => ({ ...chunk, id: sha256(contents[i]!) })) }));
    return { id: sha256(bytes), bytes, contents, ids: contents.map(sha256) };
  }
  async function publish(model: ReturnType<typeof packageOf>): Promise<string[]> {
    const { missingChunks } = await json<{ missingChunks: string[] }>('POST', 'models', model.bytes);
    for (const id of missingChunks) expect((await request('PUT', `chunks/${id}`, model.contents[model.ids.indexOf(id)]!)).status).toBe(204);
    await json('POST', `models/${model.id}/publish`);
    return missingChunks;
  }
  const listed = async (): Promise<string[]> => {
    const newest = async (role: string) =>
      (await json<{ role: string; version: number }[]>('GET', 'trust')).find((view) => view.role === role)!.version;
    const { signed } = await json<{ signed: { targets: object } }>('GET', `trust/metadata/${await newest('targets')}.targets.json`);
    return Object.keys(signed.targets);
  };

  it('takes a chunk as a stream and gives it back, whole and by ranges', async () => {
    const model = packageOf('streams', ['a']);
    await publish(model);
    const [id, content] = [model.ids[0]!, model.contents[0]!];
    expect(Buffer.from(await (await request('GET', `chunks/${id}`)).arrayBuffer()).equals(content)).toBe(true);
    const part = await request('GET', `chunks/${id}`, undefined, { range: 'bytes=100-199', 'if-range': `"${id}"` });
    expect([part.status, part.headers.get('content-range')]).toEqual([206, `bytes 100-199/${content.length}`]);
    expect(Buffer.from(await part.arrayBuffer()).equals(content.subarray(100, 200))).toBe(true);
    const changed = await request('GET', `chunks/${id}`, undefined, { range: 'bytes=100-199', 'if-range': '"another"' });
    expect([changed.status, (await changed.arrayBuffer()).byteLength]).toEqual([200, content.length]);
    expect((await request('GET', `chunks/${id}`, undefined, { range: `bytes=${content.length}-` })).status).toBe(416);
  });

  it('keeps nothing of a chunk that is damaged, too long, too short, or cut off on the way', async () => {
    const model = packageOf('damaged', ['b']);
    await json('POST', 'models', model.bytes);
    const [id, content] = [model.ids[0]!, model.contents[0]!];
    const flipped = Buffer.from(content);
    flipped[7]! ^= 1;
    expect([400, 400, 413]).toEqual(
      await Promise.all(
        [flipped, content.subarray(1), Buffer.concat([content, Buffer.from('x')])].map(
          async (bytes) => (await request('PUT', `chunks/${id}`, bytes)).status,
        ),
      ),
    );
    const socket = connect(Number(new URL(url).port), '127.0.0.1');
    await once(socket, 'connect');
    socket.write(
      `PUT /api/v1/chunks/${id} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${apiKey}\r\ncontent-type: application/octet-stream\r\ncontent-length: ${content.length}\r\n\r\n`,
    );
    socket.write(content.subarray(0, 1_000));
    await new Promise((resolve) => setTimeout(resolve, 100));
    socket.destroy();
    await new Promise((resolve) => setTimeout(resolve, 200));
    expect(await stored()).not.toContain(id);
    expect((await request('POST', `models/${model.id}/publish`)).status).toBe(409);
    expect((await request('PUT', `chunks/${id}`, content)).status).toBe(204);
  });

  it('asks for a chunk that it holds from somebody else, and gives it to nobody who has not sent it', async () => {
    const model = packageOf('others', ['c']);
    const [id, content] = [model.ids[0]!, model.contents[0]!];
    await storage().put(id, content.length, Readable.from([content]));
    const { missingChunks } = await json<{ missingChunks: string[] }>('POST', 'models', model.bytes);
    expect(missingChunks).toContain(id);
    expect((await request('GET', `chunks/${id}`)).status).toBe(404);
    expect((await request('POST', `chunks/${id}/url`, {})).status).toBe(404);
    expect((await request('PUT', `chunks/${id}`, Buffer.alloc(content.length))).status).toBe(400);
    expect((await request('GET', `chunks/${id}`)).status).toBe(404);
    expect((await request('PUT', `chunks/${id}`, content)).status).toBe(204);
    expect((await request('GET', `chunks/${id}`)).status).toBe(200);
  });

  it('signs addresses that need no key, give ranges, end, and are for their chunk alone', async () => {
    const model = packageOf('signed', ['d', 'e']);
    await publish(model);
    const [id, content] = [model.ids[0]!, model.contents[0]!];
    const signed = await json<{ url: string; expiresAt: string }>('POST', `chunks/${id}/url`, { seconds: 60 });
    const address = new URL(signed.url, url);
    expect(new URL(s3?.endpoint ?? url).host).toBe(address.host);
    expect(Date.parse(signed.expiresAt)).toBeGreaterThan(Date.now() + 50_000);
    const part = await fetch(address, { headers: { range: 'bytes=10-19' } });
    expect([part.status, Buffer.from(await part.arrayBuffer()).equals(content.subarray(10, 20))]).toEqual([206, true]);
    // Whether a bucket's own addresses hold is the business of whoever runs it.
    if (s3) return;
    const other = new URL(address);
    other.pathname = other.pathname.replace(id, model.ids[1]!);
    expect((await fetch(other)).status).toBe(403);
    const later = new URL(address);
    later.searchParams.set('expires', String(Number(later.searchParams.get('expires')) + 60));
    expect((await fetch(later)).status).toBe(403);
    const brief = new URL((await json<{ url: string }>('POST', `chunks/${id}/url`, { seconds: 1 })).url, url);
    await new Promise((resolve) => setTimeout(resolve, 2_000));
    expect((await fetch(brief)).status).toBe(403);
  });

  it('shows of a version its slices with their roots, and what they were measured on', async () => {
    const shown = await json<{ slices: { id: string; root: string; ffn: number[] }[]; pinnedAt: null; evaluation: unknown }>(
      'GET',
      `models/${packageOf('streams', ['a']).id}`,
    );
    expect(shown.slices[0]).toMatchObject({
      id: 'only',
      root: expect.stringMatching(/^[0-9a-f]{64}$/),
      ffn: expect.arrayContaining([expect.any(Number)]),
    });
    expect(shown).toMatchObject({ pinnedAt: null, evaluation: null });
  });

  describe('collecting garbage', () => {
    const old = packageOf('gc', ['one', 'shared']);
    const middle = packageOf('gc', ['two', 'shared']);
    const newest = packageOf('gc', ['three', 'shared']);
    const own = (model: typeof old, others: readonly (typeof old)[]) => model.ids.filter((id) => !others.some(({ ids }) => ids.includes(id)));
    const gc = (remove: boolean) => json<GarbageReport>('POST', 'models/gc', { ...NO_AGE, remove });
    const why = (report: GarbageReport, model: typeof old) => report.kept.find(({ id }) => id === model.id)?.why;

    it('says first what would go; young versions stay without being asked for', async () => {
      for (const model of [old, middle, newest]) await publish(model);
      expect((await json<GarbageReport>('POST', 'models/gc', {})).garbage).toEqual([]);
      const report = await gc(false);
      expect(report.garbage.map(({ id }) => id)).toEqual(expect.arrayContaining([old.id, middle.id]));
      expect(why(report, newest)).toBe('the newest of gc');
      expect(report.chunks).toBeGreaterThan(0);
      expect(await stored()).toEqual(expect.arrayContaining(old.ids));
    });

    it('keeps what is pinned or what a device is to run, whatever its age', async () => {
      await json('PUT', `models/${old.id}/pin`);
      const deviceId = await enrolledDevice(app, `gc-${where.slice(-2)}`);
      await app.get(PrismaService, { strict: false }).system.device.update({ where: { id: deviceId }, data: { modelVersionId: middle.id } });
      const report = await gc(false);
      expect([why(report, old), why(report, middle)]).toEqual(['pinned', 'assigned to devices']);
      await json('DELETE', `models/${old.id}/pin`);
    });

    it('keeps the way back of a rollout that is under way', async () => {
      const { system } = app.get(PrismaService, { strict: false });
      const deviceId = await enrolledDevice(app, `back-${where.slice(-2)}`);
      const { tenantId } = await system.device.findUniqueOrThrow({ where: { id: deviceId }, select: { tenantId: true } });
      const rollout = await system.rollout.create({ data: { tenantId, id: `back-${deviceId}`, modelVersionId: newest.id, state: 'running' } });
      await system.rolloutTarget.create({ data: { tenantId, rolloutId: rollout.id, deviceId, state: 'waiting', previousVersionId: old.id } });
      expect(why(await gc(false), old)).toBe('being rolled out');
      await system.rollout.delete({ where: { id: rollout.id } });
    });

    it('takes versions from devices before their bytes go, and leaves what others share', async () => {
      expect(await listed()).toContain(old.id);
      const report = await gc(true);
      expect(report.garbage.map(({ id }) => id)).toContain(old.id);
      expect(await listed()).not.toContain(old.id);
      expect(await listed()).toContain(newest.id);
      const left = await stored();
      const gone = own(old, [middle, newest]);
      expect(gone.length).toBeGreaterThan(0);
      for (const id of gone) expect(left).not.toContain(id);
      expect(left).toEqual(expect.arrayContaining([...middle.ids, ...newest.ids]));
      expect(await json('GET', `models/${old.id}`)).toMatchObject({ publishedAt: null, retiredAt: expect.any(String) });
      const audit = await json<{ action: string }[]>('GET', `audit?subject=model:${old.id}`);
      expect(audit.map(({ action }) => action)).toEqual(['model.retired', 'model.unpinned', 'model.pinned', 'model.published', 'model.registered']);
    });

    it('takes a retired version back when it is sent again, only what is missing of it', async () => {
      expect((await publish(old)).sort()).toEqual([...new Set(own(old, [middle, newest]))].sort());
      expect(await listed()).toContain(old.id);
    });
  });
});
