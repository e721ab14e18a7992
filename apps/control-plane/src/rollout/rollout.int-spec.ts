import 'reflect-metadata';
import { randomUUID } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import { asTenant } from '../../../../test/support/as-tenant.js';
import { createDatabase, type TestDatabase } from '../../../../test/support/database.js';
import { enrolledDevice } from '../../../../test/support/enrolled-device.js';
import { manifestOnlyPackage } from '../../../../test/support/manifest-only-package.js';
import { createApplication } from '../application.js';
import { CatalogService } from '../catalog/catalog.service.js';
import { type Config, parseConfig } from '../config.js';
import { migrate } from '../database/migrate.js';
import type { Capabilities, Phase } from '../fleet/device.js';
import { FleetService } from '../fleet/fleet.service.js';
import { createLogger, PinoNestLogger } from '../telemetry.js';
import { RolloutService } from './rollout.service.js';
import type { UpdateView } from './update.js';
import { UpdateRepository } from './update.repository.js';

const CAPABILITIES: Capabilities = {
  architecture: 'x64',
  platform: 'linux',
  cores: 2,
  cpuFeatures: [],
  totalMemoryBytes: 2 ** 30,
  availableMemoryBytes: 2 ** 30,
  modelMemoryBytes: 2 ** 28,
  runtimeMemoryBytes: 0,
  freeDiskBytes: 2 ** 30,
  memoryBandwidthBytesPerSecond: 10 ** 10,
  executionProviders: ['cpu'],
  nodeVersion: 'v20',
  runtimeVersion: '1',
};

describe('updates', () => {
  let database: TestDatabase;
  let config: Config;
  let app: NestFastifyApplication;

  beforeAll(async () => {
    database = await createDatabase();
    await migrate(database.url);
    config = parseConfig({ MATFLEET_DATA_DIR: await mkdtemp(join(tmpdir(), 'matfleet-rollout-')), MATFLEET_DEVICE_PORT: '0' });
    app = await start();
  });
  afterAll(async () => {
    await app?.close();
    await database?.drop();
    await rm(config.dataDir, { recursive: true, force: true });
  });

  const start = async (): Promise<NestFastifyApplication> => {
    const application = await createApplication(config, database.url, new PinoNestLogger(createLogger('fatal')));
    await application.listen(0, '127.0.0.1');
    return application;
  };
  const rollout = (): RolloutService => asTenant(app.get(RolloutService, { strict: false }));
  const fleet = (): FleetService => asTenant(app.get(FleetService, { strict: false }));

  const publish = async (name: string): Promise<string> => {
    const catalog = asTenant(app.get(CatalogService, { strict: false }));
    const model = manifestOnlyPackage(name, Math.random());
    await catalog.register(model.manifest, 'control-plane');
    for (const [id, bytes] of model.chunks) await catalog.putChunk(id, Readable.from([bytes]));
    return (await catalog.publish(model.id, 'control-plane')).id;
  };
  const enrol = (name: string): Promise<string> => enrolledDevice(app, name);
  /** What the gateway does when a device connects. */
  const hello = async (deviceId: string): Promise<bigint> =>
    (await fleet().hello(deviceId, { bootId: randomUUID(), agentVersion: 'spec', capabilities: CAPABILITIES, observed: null })).epoch;
  const report = (deviceId: string, epoch: bigint, update: UpdateView, phase: Phase, generation: number, error: string | null = null) =>
    fleet().report(deviceId, epoch, {
      generation,
      phase,
      observed: phase === 'active' ? { generation, modelVersionId: update.modelVersionId, sliceId: 'full' } : null,
      fetchedBytes: 0,
      totalBytes: 0,
      error,
      activation: null,
    });
  const eventually = async (id: string, check: (update: UpdateView) => void): Promise<UpdateView> => {
    for (const deadline = Date.now() + 20_000; ; await new Promise((resolve) => setTimeout(resolve, 50))) {
      const update = await rollout().get(id);
      try {
        check(update);
        return update;
      } catch (error) {
        if (Date.now() > deadline) throw error;
      }
    }
  };
  const statesOf = (update: UpdateView): string[] => update.targets.map((target) => target.state);

  it('updates the devices that a filter means, and refuses a filter that means none or is none', async () => {
    const modelVersionId = await publish('filtered');
    const [berlin] = [await enrol('kiosk-berlin'), await enrol('kiosk-rome')];
    await fleet().patchLabels(berlin, { site: 'berlin' }, 'control-plane');
    const update = await rollout().create({ modelVersionId, filter: 'labels.site == "berlin"' });
    expect(update.targets.map((target) => target.deviceName)).toEqual(['kiosk-berlin']);
    await expect(rollout().create({ modelVersionId, filter: 'labels.site == "oslo"' })).rejects.toThrow('the filter matches no device');
    await expect(rollout().create({ modelVersionId, filter: 'labels.site = "oslo"' })).rejects.toThrow(/^filter, column 13: /);
    await expect(rollout().create({ modelVersionId, filter: 'true', deviceIds: [berlin] })).rejects.toThrow('not both');
  });

  it('succeeds when every device runs the version, and fails when one of them says why it cannot', async () => {
    const devices = [await enrol('a'), await enrol('b')];
    const epochs = [await hello(devices[0]!), await hello(devices[1]!)];
    const { id } = await rollout().create({ modelVersionId: await publish('first'), deviceIds: devices });
    const pushed = await eventually(id, (update) => expect(statesOf(update)).toEqual(['pushed', 'pushed']));

    await report(devices[0]!, epochs[0]!, pushed, 'active', pushed.targets[0]!.generation!);
    const half = await eventually(id, (update) => expect(statesOf(update)).toEqual(['succeeded', 'pushed']));
    expect([half.state, half.finishedAt]).toEqual(['running', null]);

    await report(devices[1]!, epochs[1]!, pushed, 'failed', pushed.targets[1]!.generation!, 'golden prompt 1 of 2 differs');
    const ended = await eventually(id, (update) => expect(update.state).toBe('failed'));
    expect(ended.targets[1]).toMatchObject({ deviceName: 'b', state: 'failed', error: 'golden prompt 1 of 2 differs' });
    expect(ended.finishedAt).not.toBeNull();
  });

  it('takes no failure of an earlier generation for one of its own', async () => {
    const device = await enrol('flaky');
    const epoch = await hello(device);
    const first = await rollout().create({ modelVersionId: await publish('flaky-1'), deviceIds: [device] });
    const failing = await eventually(first.id, (update) => expect(statesOf(update)).toEqual(['pushed']));
    await report(device, epoch, failing, 'failed', failing.targets[0]!.generation!, 'disk full');
    await eventually(first.id, (update) => expect(update.state).toBe('failed'));

    const second = await rollout().create({ modelVersionId: await publish('flaky-2'), deviceIds: [device] });
    const pushed = await eventually(second.id, (update) => expect(statesOf(update)).toEqual(['pushed']));
    await report(device, epoch, failing, 'failed', failing.targets[0]!.generation!, 'disk full, told again');
    await report(device, epoch, pushed, 'active', pushed.targets[0]!.generation!);
    await eventually(second.id, (update) => expect(update.state).toBe('succeeded'));
  });

  it('refuses a version that is not published, and a device that is not there', async () => {
    const model = manifestOnlyPackage('unpublished', 1);
    await asTenant(app.get(CatalogService, { strict: false })).register(model.manifest, 'control-plane');
    await expect(rollout().create({ modelVersionId: model.id })).rejects.toThrow('is not published');
    await expect(rollout().create({ modelVersionId: await publish('nobody'), deviceIds: ['no-such-device'] })).rejects.toThrow(
      'there is no device no-such-device',
    );
  });

  it('is taken up by the next process when its job was never enqueued, and fails a target past its deadline', async () => {
    const [device, absent] = [await enrol('later'), await enrol('absent')];
    await hello(device);
    const modelVersionId = await publish('taken-up');
    // As a process leaves it that is killed between the two: rows without jobs.
    const updates = asTenant(app.get(UpdateRepository, { strict: false }));
    const [lost, late] = [randomUUID(), randomUUID()];
    await updates.create({ id: lost, modelVersionId, wholeFleet: false, deadlineAt: new Date(Date.now() + 60_000), deviceIds: [device] });
    await updates.create({ id: late, modelVersionId, wholeFleet: false, deadlineAt: new Date(Date.now() - 1), deviceIds: [absent] });
    await app.close();
    app = await start();
    await eventually(lost, (update) => expect(statesOf(update)).toEqual(['pushed']));
    const ended = await eventually(late, (update) => expect(update.state).toBe('failed'));
    expect(ended.targets[0]!.error).toBe('the device did not come back before the deadline');
  });

  it('makes its version the one that new devices get, when it went to the whole fleet', async () => {
    const modelVersionId = await publish('fleet-wide');
    const catalog = asTenant(app.get(CatalogService, { strict: false }));
    expect((await catalog.currentVersion())?.id).not.toBe(modelVersionId);
    await rollout().create({ modelVersionId });
    expect((await catalog.currentVersion())?.id).toBe(modelVersionId);
  });
});
