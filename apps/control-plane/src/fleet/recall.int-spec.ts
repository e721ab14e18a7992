import 'reflect-metadata';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from '@jest/globals';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import { createDatabase, type TestDatabase } from '../../../../test/support/database.js';
import { enrolledDevice } from '../../../../test/support/enrolled-device.js';
import { createApplication } from '../application.js';
import { type Config, parseConfig } from '../config.js';
import { migrate } from '../database/migrate.js';
import { PrismaService } from '../database/prisma.service.js';
import { createLogger, PinoNestLogger } from '../telemetry.js';
import type { Capabilities } from './device.js';
import { FleetService } from './fleet.service.js';

let database: TestDatabase;
let config: Config;
let app: NestFastifyApplication;

const start = async (): Promise<FleetService> => {
  app = await createApplication(config, database.url, new PinoNestLogger(createLogger('fatal')));
  await app.listen(0, '127.0.0.1');
  return app.get(FleetService, { strict: false });
};

beforeAll(async () => {
  database = await createDatabase();
  await migrate(database.url);
  config = parseConfig({ MATFLEET_DATA_DIR: await mkdtemp(join(tmpdir(), 'matfleet-recall-')), MATFLEET_DEVICE_PORT: '0' });
});
afterAll(async () => {
  await app?.close();
  await database?.drop();
  await rm(config.dataDir, { recursive: true, force: true });
});

it('calls nobody offline because the control plane was: who was here when it ended has a lease to come back in', async () => {
  const before = await start();
  const [here, gone, never] = [await enrolledDevice(app, 'here'), await enrolledDevice(app, 'gone'), await enrolledDevice(app, 'never')];
  const hello = { bootId: 'b', agentVersion: 'spec', capabilities: { architecture: 'x64' } as Capabilities, observed: null };
  for (const id of [here, gone]) await before.hello(id, hello);
  await app.get(PrismaService, { strict: false })
    .$executeRaw`UPDATE devices SET last_seen_at = last_seen_at - interval '10 minutes' WHERE id = ${gone}`;
  await app.close();
  const after = await start();
  expect([here, gone, never].map((id) => after.presenceOf(id))).toEqual(['suspect', 'offline', 'offline']);
  const { epoch } = await after.hello(here, hello);
  expect([epoch, after.presenceOf(here)]).toEqual([2n, 'online']);
});
