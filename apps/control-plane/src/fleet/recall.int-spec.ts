import 'reflect-metadata';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, expect, it } from '@jest/globals';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import { asTenant } from '../../../../test/support/as-tenant.js';
import { createDatabase, type TestDatabase } from '../../../../test/support/database.js';
import { enrolledDevice } from '../../../../test/support/enrolled-device.js';
import { createApplication } from '../application.js';
import { type Config, parseConfig } from '../config.js';
import { migrate } from '../database/migrate.js';
import { PrismaService } from '../database/prisma.service.js';
import { createLogger, PinoNestLogger } from '../telemetry.js';
import type { Capabilities } from './device.js';
import { DeviceViews } from './device-views.js';
import { FleetService } from './fleet.service.js';
import { Leases } from './leases.js';

const hello = { bootId: 'b', agentVersion: 'spec', capabilities: { architecture: 'x64' } as Capabilities, observed: null };
const running: NestFastifyApplication[] = [];
let database: TestDatabase;
let config: Config;

async function start() {
  const app = await createApplication(config, database.url, new PinoNestLogger(createLogger('fatal')));
  running.push(app);
  await app.listen(0, '127.0.0.1');
  const [fleet, leases, views] = [
    asTenant(app.get(FleetService, { strict: false })),
    app.get(Leases, { strict: false }),
    asTenant(app.get(DeviceViews, { strict: false })),
  ];
  const presences = (ids: string[]): Promise<string[]> => Promise.all(ids.map(async (id) => (await views.get(id)).presence));
  return { app, fleet, leases, presences };
}

beforeAll(async () => {
  database = await createDatabase();
  await migrate(database.url);
  config = parseConfig({ MATFLEET_DATA_DIR: await mkdtemp(join(tmpdir(), 'matfleet-recall-')), MATFLEET_DEVICE_PORT: '0' });
});
afterEach(async () => {
  for (const app of running.splice(0)) await app.close();
});
afterAll(async () => {
  await database?.drop();
  await rm(config.dataDir, { recursive: true, force: true });
});

it('calls nobody offline because the control plane was, however long: who was here when it ended has a lease to come back in', async () => {
  const before = await start();
  const ids = [await enrolledDevice(before.app, 'here'), await enrolledDevice(before.app, 'gone'), await enrolledDevice(before.app, 'never')];
  const [here, gone] = ids as [string, string];
  for (const id of [here, gone]) await before.fleet.hello(id, hello);
  const prisma = before.app.get(PrismaService, { strict: false });
  await prisma.system.$executeRaw`UPDATE devices SET last_seen_at = last_seen_at - interval '10 minutes' WHERE id = ${gone}`;
  await before.app.close();
  const { app } = await start();
  await app.get(PrismaService, { strict: false }).system
    .$executeRaw`UPDATE replicas SET renewed_at = renewed_at - interval '5 minutes' WHERE ended_at IS NOT NULL`;
  await app.close();
  const after = await start();
  expect(await after.presences(ids)).toEqual(['suspect', 'offline', 'offline']);
  const { epoch } = await after.fleet.hello(here, hello);
  expect([epoch, ...(await after.presences([here]))]).toEqual([2n, 'online']);
});

it('leaves the devices of a replica that lives to that replica', async () => {
  const first = await start();
  const id = await enrolledDevice(first.app, 'held');
  await first.fleet.hello(id, hello);
  const second = await start();
  expect(second.leases.has(id)).toBe(false);
  expect(await second.presences([id])).toEqual(['online']);
});
