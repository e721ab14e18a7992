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
import type { RolloutPlanInput } from '../domain/rollout-plan.js';
import type { Rollout, RolloutTarget } from './rollout.js';
import { RolloutRepository } from './rollout.repository.js';

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

describe('rollouts', () => {
  let database: TestDatabase;
  let config: Config;
  let app: NestFastifyApplication;

  beforeAll(async () => {
    database = await createDatabase();
    await migrate(database.url);
    config = parseConfig({ MATFLEET_DATA_DIR: await mkdtemp(join(tmpdir(), 'matfleet-rollout-')), MATFLEET_DEVICE_PORT: '0' });
    app = await boot();
  });
  afterAll(async () => {
    await app?.close();
    await database?.drop();
    await rm(config.dataDir, { recursive: true, force: true });
  });

  const boot = async (): Promise<NestFastifyApplication> => {
    const application = await createApplication(config, database.url, new PinoNestLogger(createLogger('fatal')));
    await application.listen(0, '127.0.0.1');
    return application;
  };
  const rollouts = (): RolloutService => asTenant(app.get(RolloutService, { strict: false }));
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
  const report = (deviceId: string, epoch: bigint, modelVersionId: string, phase: Phase, generation: number, error: string | null = null) =>
    fleet().report(deviceId, epoch, {
      generation,
      phase,
      observed: phase === 'active' ? { generation, modelVersionId, sliceId: 'full' } : null,
      fetchedBytes: 0,
      totalBytes: 0,
      error,
      activation: phase === 'active' ? TRIAL : null,
    });
  interface Seen extends Rollout {
    targets: RolloutTarget[];
  }
  const see = async (id: string): Promise<Seen> => ({ ...(await rollouts().get(id)), targets: await rollouts().targets(id) });
  const eventually = async (id: string, check: (rollout: Seen) => void): Promise<Seen> => {
    for (const deadline = Date.now() + 20_000; ; await new Promise((resolve) => setTimeout(resolve, 50))) {
      const seen = await see(id);
      try {
        check(seen);
        return seen;
      } catch (error) {
        if (Date.now() > deadline) throw error;
      }
    }
  };
  const statesOf = ({ targets }: Seen): string[] => targets.map(({ state }) => state);
  const of = ({ targets }: Seen, deviceId: string): RolloutTarget => targets.find((target) => target.deviceId === deviceId)!;
  /** Devices that are here and run `modelVersionId`, by a rollout of their own. */
  const running = async (modelVersionId: string, names: readonly string[]) => {
    const devices: { id: string; epoch: bigint }[] = [];
    for (const name of names) {
      const id = await enrol(name);
      devices.push({ id, epoch: await hello(id) });
    }
    const { id } = await start({ modelVersionId, deviceIds: devices.map((device) => device.id) });
    await answer(id, devices, modelVersionId);
    await eventually(id, ({ state }) => expect(state).toBe('succeeded'));
    return devices;
  };
  /** What devices do: each shows the version at the generation that it was sent; returns once it was sent to all of them. */
  const answer = async (rolloutId: string, devices: readonly { id: string; epoch: bigint }[], modelVersionId: string, state = 'pushed') => {
    for (const { id, epoch } of devices) {
      const seen = await eventually(rolloutId, (rollout) =>
        expect([of(rollout, id).state, of(rollout, id).generation]).toEqual([state, expect.any(Number)]),
      );
      await report(id, epoch, modelVersionId, 'active', of(seen, id).generation!);
    }
  };
  const start = (rollout: { modelVersionId: string; deviceIds?: string[]; filter?: string; name?: string; plan?: RolloutPlanInput }) =>
    rollouts().start(rollout, 'key:spec');

  it('takes the devices that a filter means, and refuses a filter that means none or is none', async () => {
    const modelVersionId = await publish('filtered');
    const [berlin] = [await enrol('kiosk-berlin'), await enrol('kiosk-rome')];
    await fleet().patchLabels(berlin, { site: 'berlin' }, 'control-plane');
    const { id } = await start({ modelVersionId, filter: 'labels.site == "berlin"' });
    expect((await see(id)).targets.map((target) => target.deviceName)).toEqual(['kiosk-berlin']);
    await expect(start({ modelVersionId, filter: 'labels.site == "oslo"' })).rejects.toThrow('the filter matches no device');
    await expect(start({ modelVersionId, filter: 'labels.site = "oslo"' })).rejects.toThrow(/^filter, column 13: /);
    await expect(start({ modelVersionId, filter: 'true', deviceIds: [berlin] })).rejects.toThrow('not both');
    await rollouts().abort(id, { rollBack: true, reason: 'the spec goes on' }, 'key:spec');
  });

  it('refuses a version that is not published, a device that is not there, and a plan that makes no sense, each by name', async () => {
    const model = manifestOnlyPackage('unpublished', 1);
    await asTenant(app.get(CatalogService, { strict: false })).register(model.manifest, 'control-plane');
    await expect(start({ modelVersionId: model.id })).rejects.toThrow('is not published');
    const modelVersionId = await publish('nobody');
    await expect(start({ modelVersionId, deviceIds: ['no-such-device'] })).rejects.toThrow('there is no device no-such-device');
    const window = { cron: '0 25 * * *', durationMs: 3_600_000 };
    await expect(start({ modelVersionId, plan: { window } })).rejects.toThrow(/^plan\.window\.cron: /);
    await expect(start({ modelVersionId, plan: { waves: [{ count: 1, percent: 10 }] } })).rejects.toThrow(
      'a wave takes a count, a percentage or a filter',
    );
    await expect(start({ modelVersionId, plan: { forceAt: '2030-01-01T00:00:00Z' } })).rejects.toThrow('only a soft rollout is forced at a time');
  });

  it('brings wave after wave, tells what happened, and lets a name be used once', async () => {
    const devices = await running(await publish('before-waves'), ['w-a', 'w-b', 'w-c']);
    const modelVersionId = await publish('waves');
    const plan = {
      waves: [
        { count: 1, name: 'canary' },
        { percent: 100, approval: true },
      ],
    };
    const { id } = await start({ modelVersionId, name: 'spring', deviceIds: devices.map((device) => device.id), plan });
    await expect(start({ modelVersionId, name: 'spring' })).rejects.toThrow('there is a rollout spring already');
    const begun = await eventually('spring', (rollout) => expect(statesOf(rollout).sort()).toEqual(['pushed', 'waiting', 'waiting']));
    const canary = begun.targets.find(({ state }) => state === 'pushed')!;
    await answer(id, [devices.find((device) => device.id === canary.deviceId)!], modelVersionId);
    const waits = await eventually(id, ({ waves }) => expect(waves.map(({ state }) => state)).toEqual(['succeeded', 'awaiting-approval']));
    expect(statesOf(waits).filter((state) => state === 'pushed')).toEqual([]);
    await rollouts().approve(id, 'key:spec');
    const rest = devices.filter((device) => device.id !== canary.deviceId);
    await answer(id, rest, modelVersionId);
    const ended = await eventually(id, ({ state }) => expect(state).toBe('succeeded'));
    expect([ended.reason, ended.finishedAt]).toEqual(['3 of 3 devices run it', expect.any(Date)]);
    expect((await rollouts().history(id)).map(({ wave, state, actor }) => [wave, state, actor])).toEqual([
      [null, 'running', 'key:spec'],
      [0, 'running', null],
      [0, 'observing', null],
      [0, 'succeeded', null],
      [1, 'awaiting-approval', null],
      [1, 'running', 'key:spec'],
      [1, 'running', null],
      [1, 'observing', null],
      [1, 'succeeded', null],
      [null, 'succeeded', null],
    ]);
    expect((await rollouts().ofDevice(canary.deviceId)).map(({ state }) => state)).toEqual(['succeeded', 'succeeded']);
  });

  it('takes every device back to what it ran before when too many fail, whatever they had come to', async () => {
    const oldVersionId = await publish('before-bad');
    const devices = await running(oldVersionId, ['b-a', 'b-b', 'b-c']);
    const modelVersionId = await publish('bad');
    const { id } = await start({ modelVersionId, deviceIds: devices.map((device) => device.id), plan: { error: { minSample: 2 } } });
    const pushed = await eventually(id, (rollout) => expect(rollout.targets.every(({ generation }) => generation !== null)).toBe(true));
    const [good, bad] = devices;
    await report(good!.id, good!.epoch, modelVersionId, 'active', of(pushed, good!.id).generation!);
    await report(bad!.id, bad!.epoch, modelVersionId, 'failed', of(pushed, bad!.id).generation!, 'golden prompt 1 of 2 differs');
    const back = await eventually(id, (rollout) => expect(statesOf(rollout)).toEqual(['reverting', 'reverting', 'reverting']));
    expect([back.state, back.reason]).toEqual(['rolling-back', "wave 1: 1 of the wave's 3 devices failed, more than 10 %"]);
    await answer(id, devices, oldVersionId, 'reverting');
    const ended = await eventually(id, ({ state }) => expect(state).toBe('rolled-back'));
    expect(statesOf(ended)).toEqual(['reverted', 'reverted', 'reverted']);
    expect((await fleet().record(good!.id)).modelVersionId).toBe(oldVersionId);
  }, 60_000);

  it('is stopped by a gate after its first wave when answers are no longer those of the version before', async () => {
    const oldVersionId = await publish('before-gate');
    const devices = await running(oldVersionId, ['g-a', 'g-b']);
    const modelVersionId = await publish('changed-answers');
    const plan = { waves: [{ count: 1 }, {}], gates: { agreementPercent: 90, ttftRatio: 1.5 } };
    const { id } = await start({ modelVersionId, deviceIds: devices.map((device) => device.id), plan });
    const begun = await eventually(id, (rollout) => expect(statesOf(rollout).sort()).toEqual(['pushed', 'waiting']));
    await answer(
      id,
      devices.filter((device) => of(begun, device.id).state === 'pushed'),
      modelVersionId,
    );
    const stopped = await eventually(id, ({ state }) => expect(state).toBe('rolling-back'));
    expect(stopped.reason).toBe(
      'wave 1: gate agreement: 30 of 40 tokens of the golden answers are those of the version before, 75.0 %; at least 90 %',
    );
    expect(stopped.waves[0]!.gates.map(({ gate, verdict }) => [gate, verdict])).toEqual([
      ['ttft', 'unknown'],
      ['agreement', 'failed'],
    ]);
    await eventually(id, (rollout) => expect(statesOf(rollout).sort()).toEqual(['reverting', 'skipped']));
  });

  it('pauses, lets pass what stopped it when it is resumed, and takes no failure of an earlier generation for one of its own', async () => {
    const devices = await running(await publish('before-pause'), ['p-a', 'p-b']);
    const modelVersionId = await publish('paused');
    const plan: RolloutPlanInput = { waves: [{ count: 1 }, {}], error: { then: 'pause', minSample: 1 } };
    const { id } = await start({ modelVersionId, deviceIds: devices.map((device) => device.id), plan });
    const begun = await eventually(id, (rollout) => expect(rollout.targets.filter(({ generation }) => generation !== null)).toHaveLength(1));
    const [first, second] = [...devices].sort((a, b) => Number(of(begun, b.id).generation !== null) - Number(of(begun, a.id).generation !== null));
    await report(first!.id, first!.epoch, modelVersionId, 'failed', of(begun, first!.id).generation!, 'disk full');
    const paused = await eventually(id, ({ state }) => expect(state).toBe('paused'));
    expect([of(paused, first!.id).reason, of(paused, second!.id).state]).toEqual(['disk full', 'waiting']);
    await rollouts().resume(id, 'key:spec');
    await answer(id, [second!], modelVersionId);
    expect((await eventually(id, ({ state }) => expect(state).toBe('succeeded'))).reason).toBe('1 of 2 devices run it, 1 failed');

    const next = await start({ modelVersionId, deviceIds: [first!.id] });
    const again = await eventually(next.id, (rollout) => expect(rollout.targets[0]!.generation).toBeGreaterThan(of(begun, first!.id).generation!));
    await report(first!.id, first!.epoch, modelVersionId, 'failed', of(begun, first!.id).generation!, 'disk full, told again');
    await report(first!.id, first!.epoch, modelVersionId, 'active', again.targets[0]!.generation!);
    await eventually(next.id, ({ state }) => expect(state).toBe('succeeded'));
  }, 60_000);

  it('leaves a device to the older rollout that has it, and takes it over where the plan says so', async () => {
    const [device] = await running(await publish('before-overlap'), ['o-a']);
    const older = await start({ modelVersionId: await publish('older'), deviceIds: [device!.id] });
    await eventually(older.id, (rollout) => expect(statesOf(rollout)).toEqual(['pushed']));
    const modelVersionId = await publish('newer');
    const waits = await start({ modelVersionId, deviceIds: [device!.id] });
    await eventually(waits.id, ({ holds }) => expect(holds).toEqual({ 'other-rollout': 1 }));
    expect((await rollouts().foresee(waits.id)).holds[0]!.reason).toBe(`rollout ${older.id} has the device and goes first`);
    await rollouts().abort(waits.id, { rollBack: true, reason: 'another way' }, 'key:spec');

    const takes = await start({ modelVersionId, deviceIds: [device!.id], plan: { overlap: 'supersede' } });
    await eventually(takes.id, (rollout) => expect(statesOf(rollout)).toEqual(['pushed']));
    const left = await eventually(older.id, ({ state }) => expect(state).toBe('succeeded'));
    expect(statesOf(left)).toEqual(['skipped']);
  });

  it('has a device fetch outside its window and change over inside, on the clock of its own time zone', async () => {
    const [device] = await running(await publish('before-window'), ['z-a']);
    const modelVersionId = await publish('windowed');
    const hourIn = (timeZone: string): number =>
      Number(new Intl.DateTimeFormat('en', { hour: 'numeric', hourCycle: 'h23', timeZone }).format(new Date()));
    await fleet().patchLabels(device!.id, { timezone: 'Asia/Tokyo' }, 'control-plane');
    const window = { cron: `0 ${(hourIn('Asia/Tokyo') + 12) % 24} * * *`, durationMs: 3_600_000 };
    const { id } = await start({ modelVersionId, deviceIds: [device!.id], plan: { window } });
    const held = await eventually(id, (rollout) =>
      expect([statesOf(rollout), rollout.targets[0]!.generation]).toEqual([['fetching'], expect.any(Number)]),
    );
    await report(device!.id, device!.epoch, modelVersionId, 'fetched', held.targets[0]!.generation!);
    await eventually(id, (rollout) => expect([statesOf(rollout), rollout.holds]).toEqual([['fetched'], { window: 1 }]));
    await fleet().patchLabels(device!.id, { timezone: zoneTwelveHoursFrom('Asia/Tokyo') }, 'control-plane');
    await answer(id, [device!], modelVersionId);
    await eventually(id, ({ state }) => expect(state).toBe('succeeded'));
  });

  it('goes on in the next process where the last one was cut off, and fails a device past its deadline', async () => {
    const [device] = await running(await publish('before-restart'), ['r-a']);
    const absent = await enrol('absent');
    const modelVersionId = await publish('taken-up');
    // As a process leaves it that is killed between the two: taken, and no document written.
    const lost = await start({ modelVersionId, deviceIds: [device!.id] });
    const late = await start({
      modelVersionId,
      deviceIds: [absent],
      plan: { timeouts: { reachMs: 1 }, success: { percent: 0 }, error: { percent: 100 } },
    });
    await app.close();
    app = await boot();
    const again = await eventually(lost.id, (rollout) =>
      expect([statesOf(rollout), rollout.targets[0]!.generation]).toEqual([['pushed'], expect.any(Number)]),
    );
    expect(again.state).toBe('running');
    const ended = await eventually(late.id, ({ state }) => expect(state).toBe('succeeded'));
    expect(ended.targets[0]).toMatchObject({ state: 'failed', failure: 'unreachable', reason: 'the device did not come by within 1 ms' });
  }, 60_000);

  it('writes nothing with the token of a leader that is not the newest any more', async () => {
    const [device] = await running(await publish('before-fence'), ['f-a']);
    const { id } = await start({ modelVersionId: await publish('fenced'), deviceIds: [device!.id], plan: { approval: true } });
    const rollout = await rollouts().get(id);
    const write = asTenant(app.get(RolloutRepository, { strict: false })).whileIn(id, rollout.state, { lease: 'fleet', token: 0n }, () =>
      Promise.resolve(),
    );
    await expect(write).rejects.toThrow('token 0 of the leader lease fleet is not the newest any more');
  });

  it('makes its version the one that new devices get once it has gone to the whole fleet, and takes devices in that come meanwhile', async () => {
    const modelVersionId = await publish('fleet-wide');
    const catalog = asTenant(app.get(CatalogService, { strict: false }));
    const plan: RolloutPlanInput = {
      membership: { kind: 'dynamic' },
      overlap: 'supersede',
      success: { percent: 0 },
      error: { percent: 100 },
      timeouts: { reachMs: 15_000, doneMs: 15_000 },
    };
    const { id } = await start({ modelVersionId, plan });
    const before = (await see(id)).targets.length;
    await enrol('newcomer');
    await eventually(id, ({ targets }) =>
      expect([targets.length, targets.some(({ deviceName }) => deviceName === 'newcomer')]).toEqual([before + 1, true]),
    );
    expect((await catalog.currentVersion())?.id).not.toBe(modelVersionId);
    await eventually(id, ({ state }) => expect(state).toBe('succeeded')).catch(() => eventually(id, ({ state }) => expect(state).toBe('succeeded')));
    expect((await catalog.currentVersion())?.id).toBe(modelVersionId);
  }, 90_000);
});

/** What a device says of a slice that it has tried: three quarters of the tokens of the version before. */
const TRIAL = {
  ...{ step: 'committed' as const, reason: null, failure: null, ttftMs: 5, interTokenMs: 2, residentBytes: 1e6, replacedFirst: false },
  ...{
    goldenPromptsTotal: 2,
    goldenPromptsMatched: 2,
    goldenTokensTotal: 40,
    goldenTokensMatched: 40,
    previousTokensTotal: 40,
    previousTokensMatched: 30,
  },
};

/** Tokyo knows no summer time: UTC+9; twelve hours from it is UTC-3. */
const zoneTwelveHoursFrom = (_tokyo: 'Asia/Tokyo'): string => 'Etc/GMT+3';
