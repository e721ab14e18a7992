import 'reflect-metadata';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import { createClient } from 'graphql-ws';
import { WebSocket } from 'ws';
import { asTenant } from '../../../../test/support/as-tenant.js';
import { createDatabase, type TestDatabase } from '../../../../test/support/database.js';
import { enrolledDevice } from '../../../../test/support/enrolled-device.js';
import { ApiKeyService } from '../access/api-key.service.js';
import { createApplication } from '../application.js';
import { parseConfig } from '../config.js';
import type { Fence } from '../database/fence.js';
import { migrate } from '../database/migrate.js';
import { PrismaService } from '../database/prisma.service.js';
import { inSystem } from '../database/scope.js';
import type { Capabilities, Condition } from '../fleet/device.js';
import { FleetService } from '../fleet/fleet.service.js';
import { createLogger, PinoNestLogger } from '../telemetry.js';
import { TimelineRepository } from './timeline.repository.js';
import { Timeline } from './timeline.service.js';

interface Entry {
  id: number;
  at: string;
  kind: string;
  detail: Record<string, unknown>;
}

const hello = { bootId: 'b', agentVersion: 'spec', capabilities: { architecture: 'x64' } as Capabilities, observed: null };
const well: Condition = {
  ...{
    memorySomePercent: 0,
    memoryFullPercent: 0,
    power: 'mains',
    batteryPercent: 90,
    temperatureCelsius: 50,
    throttlesAtCelsius: 95,
    roundTripMs: 1,
  },
};
const beat = { queued: 0, engineReady: false, availableMemoryBytes: 0, memoryBandwidthBytesPerSecond: 0, condition: null, latency: [] };

describe('the timeline of a device', () => {
  let database: TestDatabase;
  let dataDir: string;
  let app: NestFastifyApplication;
  let fleet: FleetService;
  let [url, apiKey] = ['', ''];

  beforeAll(async () => {
    database = await createDatabase();
    await migrate(database.url);
    dataDir = await mkdtemp(join(tmpdir(), 'matfleet-timeline-'));
    const config = parseConfig({ MATFLEET_DATA_DIR: dataDir, MATFLEET_DEVICE_PORT: '0', MATFLEET_HEARTBEAT_MS: '100', MATFLEET_LEASE_MS: '600' });
    app = await createApplication(config, database.url, new PinoNestLogger(createLogger('fatal')));
    await app.get(ApiKeyService, { strict: false }).ensureFirstKey();
    await app.listen(0, '127.0.0.1');
    url = await app.getUrl();
    apiKey = (await readFile(join(dataDir, 'admin-api-key'), 'utf8')).trim();
    fleet = asTenant(app.get(FleetService, { strict: false }));
  });
  afterAll(async () => {
    await app?.close();
    await database?.drop();
    await rm(dataDir, { recursive: true, force: true });
  });

  async function call<T>(method: string, path: string, body?: object): Promise<T> {
    const response = await fetch(`${url}${path}`, {
      method,
      headers: { authorization: `Bearer ${apiKey}`, ...(body && { 'content-type': 'application/json' }) },
      ...(body && { body: JSON.stringify(body) }),
    });
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`);
    return (await response.json()) as T;
  }
  const page = (id: string, query = ''): Promise<{ entries: Entry[]; next: number | null }> => call('GET', `/api/v1/devices/${id}/timeline${query}`);

  /** Oldest first, once `kind` is among them. */
  async function until(id: string, is: (entry: Entry) => boolean): Promise<Entry[]> {
    for (const end = Date.now() + 10_000; ; await new Promise((resolve) => setTimeout(resolve, 50))) {
      const entries = (await page(id)).entries.toReversed();
      if (entries.some(is)) return entries;
      if (Date.now() > end) throw new Error(`not there after 10 s: ${JSON.stringify(entries)}`);
    }
  }

  it('tells enrolment, session, presence, condition, failure and operators’ changes in their order, and beats that say nothing new not at all', async () => {
    const id = await enrolledDevice(app, 'told');
    const { epoch } = await fleet.hello(id, hello);
    for (let count = 0; count < 20; count++) fleet.beat(id, epoch, { ...beat, condition: { ...well, temperatureCelsius: 50 + (count % 3) } });
    fleet.beat(id, epoch, { ...beat, condition: { ...well, temperatureCelsius: 93 } });
    const effective = { sliceId: 's-small', reason: 'heat: 93 °C' };
    let said: Parameters<typeof fleet.beat>[2] = { ...beat, effective };
    fleet.beat(id, epoch, said);
    const beats = setInterval(() => fleet.beat(id, epoch, said), 30);
    expect(await call('GET', `/api/v1/devices/${id}`)).toMatchObject({ effective });
    fleet.beat(id, epoch, (said = beat));
    await fleet.report(id, epoch, {
      ...{
        generation: 0,
        phase: 'failed',
        observed: { generation: 0, modelVersionId: 'v', sliceId: 's' },
        fetchedBytes: 0,
        totalBytes: 0,
        error: 'no room',
      },
    });
    await until(id, ({ kind }) => kind === 'failed');
    await call('POST', `/api/v1/devices/${id}/revoke`, { reason: 'stolen' });
    await until(id, ({ kind, detail }) => kind === 'change' && detail['action'] === 'device.revoked');
    clearInterval(beats);
    fleet.disconnected(id, epoch, 'the stream was cut');
    const entries = await until(id, ({ kind, detail }) => kind === 'presence' && detail['to'] === 'offline');
    expect(
      entries.map(({ kind, detail }) => [
        kind,
        detail['to'] ?? detail['concern'] ?? detail['sliceId'] ?? detail['error'] ?? detail['action'] ?? detail['reason'] ?? null,
      ]),
    ).toEqual([
      ['change', 'device.enrolled'],
      ['session-opened', null],
      ['presence', 'online'],
      ['condition', 'heat'],
      ['effective', 's-small'],
      ['effective', 'the assigned slice'],
      ['failed', 'no room'],
      ['change', 'device.revoked'],
      ['session-ended', 'the stream was cut'],
      ['presence', 'suspect'],
      ['presence', 'offline'],
    ]);
    expect(entries.find(({ kind }) => kind === 'condition')!.detail).toEqual({
      concern: 'heat',
      began: true,
      reason: '93 °C, throttled from 95 °C on',
    });
  });

  it('hears nothing more of a session once a newer one was opened', async () => {
    const id = await enrolledDevice(app, 'moved');
    const first = await fleet.hello(id, hello);
    const timeline = app.get(Timeline, { strict: false });
    await until(id, ({ detail }) => detail['to'] === 'online');
    const second = await fleet.hello(id, hello);
    timeline.note(id, 'presence', { to: 'offline' }, first.epoch);
    timeline.note(id, 'engine', { ready: true }, second.epoch);
    const entries = await until(id, ({ kind }) => kind === 'engine');
    expect(entries.some(({ detail }) => detail['to'] === 'offline')).toBe(false);
  });

  it('is read page by page, without a gap and without an entry twice, and forwards from where a follower was', async () => {
    const id = await enrolledDevice(app, 'long');
    const timeline = app.get(Timeline, { strict: false });
    for (let count = 0; count < 25; count++) timeline.note(id, 'engine', { count });
    await until(id, ({ detail }) => detail['count'] === 24);
    const read: Entry[] = [];
    for (let query = '?limit=10&kind=engine'; ;) {
      const { entries, next } = await page(id, query);
      read.push(...entries);
      if (next === null) break;
      query = `?limit=10&kind=engine&before=${next}`;
    }
    expect(read.map(({ detail }) => detail['count'])).toEqual(Array.from({ length: 25 }, (_, at) => 24 - at));
    const { entries } = await page(id, `?after=${read[5]!.id}`);
    expect(entries.map(({ detail }) => detail['count'])).toEqual([20, 21, 22, 23, 24]);
    await expect(page(id, '?before=1&after=1')).rejects.toThrow('400');
  });

  it('reaches a subscriber as it is written', async () => {
    const id = await enrolledDevice(app, 'watched');
    const client = createClient({
      url: `${url.replace('http', 'ws')}/graphql`,
      retryAttempts: 0,
      webSocketImpl: class extends WebSocket {
        constructor(address: string, protocols: string | string[]) {
          super(address, protocols, { headers: { authorization: `Bearer ${apiKey}` } });
        }
      },
    });
    const entries = client.iterate<{ deviceTimelineGrew: { kind: string; detail: string } }>({
      query: 'subscription ($id: ID!) { deviceTimelineGrew(deviceId: $id) { kind detail } }',
      variables: { id },
    });
    // The subscription stands a moment after the socket does.
    const timeline = app.get(Timeline, { strict: false });
    let count = 0;
    const timer = setInterval(() => timeline.note(id, 'engine', { count: count++ }), 100);
    const counts: number[] = [];
    while (counts.length < 3) counts.push((JSON.parse((await entries.next()).value!.data!.deviceTimelineGrew.detail) as { count: number }).count);
    clearInterval(timer);
    expect(counts).toEqual([counts[0]!, counts[0]! + 1, counts[0]! + 2]);
    await call('POST', `/api/v1/devices/${id}/revoke`, { reason: 'lost' });
    for (;;) {
      const { kind, detail } = (await entries.next()).value!.data!.deviceTimelineGrew;
      if (kind !== 'change') continue;
      expect(detail).toContain('device.revoked');
      break;
    }
    await client.dispose();
  });

  it('is bounded by age and by count, device for device', async () => {
    const [busy, quiet] = [await enrolledDevice(app, 'busy'), await enrolledDevice(app, 'quiet')];
    const prisma = app.get(PrismaService, { strict: false });
    const nowMs = Date.now();
    const entriesOf = (deviceId: string, ageMs: number, count: number) =>
      Array.from({ length: count }, (_, at) => ({ deviceId, atMs: nowMs - ageMs + at, kind: 'engine' as const, detail: { at } }));
    await inSystem(() =>
      app
        .get(TimelineRepository, { strict: false })
        .write([...entriesOf(quiet, 90_000_000, 3), ...entriesOf(quiet, 1_000, 2), ...entriesOf(busy, 1_000, 30)]),
    );
    const [lease] = await prisma.system.leaderLease.findMany();
    const fence: Fence = { lease: lease!.name, token: lease!.token };
    await inSystem(() =>
      app
        .get(TimelineRepository, { strict: false })
        .sweep({ before: new Date(nowMs - 80_000_000), since: new Date(nowMs - 60_000), keep: 10 }, fence),
    );
    const left = async (id: string) => (await page(id, '?kind=engine')).entries.map(({ detail }) => detail['at']);
    expect(await left(quiet)).toEqual([1, 0]);
    expect(await left(busy)).toEqual([29, 28, 27, 26, 25, 24, 23, 22, 21, 20]);
  });
});
