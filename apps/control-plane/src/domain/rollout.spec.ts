import { describe, expect, it } from '@jest/globals';
import { seededRandom } from '@matfleet/model';
import fc from 'fast-check';
import type { RolloutPlanInput } from './rollout-plan.js';
import { shareAtLeast } from './rollout-threshold.js';
import { SimulatedRollout, type Fate } from './simulated-rollout.js';

const fate = (change: Partial<Fate> = {}): Fate => ({
  takes: () => true,
  tookMs: 5_000,
  site: 'berlin',
  isHere: () => true,
  window: () => null,
  ...change,
});
const fleet = (count: number, of: (index: number) => Fate = () => fate()): Map<string, Fate> =>
  new Map(Array.from({ length: count }, (_, index) => [`device-${index}`, of(index)]));
const TEN_WAVES: RolloutPlanInput = { waves: Array.from({ length: 10 }, () => ({ percent: 10 })) };
const states = ({ devices }: SimulatedRollout): string[] => [...new Set(devices.map(({ state }) => state))].sort();

describe('a rollout of 5,000 devices in ten waves', () => {
  const seeds = [1, 2];

  it.each(seeds)('goes through with 3 %% failures, whatever the seed says who fails (seed %i)', (seed) => {
    const random = seededRandom(seed);
    const rollout = new SimulatedRollout(
      fleet(5_000, () => {
        const [takes, tookMs] = [random() >= 0.03, 2_000 + 20_000 * random()];
        return fate({ takes: () => takes, tookMs });
      }),
      { ...TEN_WAVES, seed },
    ).run();
    expect([rollout.state, rollout.waves.map(({ state }) => state)]).toEqual(['succeeded', Array(10).fill('succeeded')]);
    expect(states(rollout)).toEqual(['failed', 'succeeded']);
  });

  it.each(seeds)('stops a version that 40 %% cannot take after a handful of devices, and takes every one of them back (seed %i)', (seed) => {
    const random = seededRandom(seed);
    const rollout = new SimulatedRollout(
      fleet(5_000, () => {
        const [takes, tookMs] = [random() >= 0.4, 2_000 + 20_000 * random()];
        return fate({ takes: () => takes, tookMs });
      }),
      { ...TEN_WAVES, seed, rate: { kind: 'constant', perMinute: 120 } },
    ).run();
    expect(rollout.state).toBe('rolled-back');
    expect(rollout.reason).toMatch(/^wave 1: \d+ of the first \d+ devices failed, more than 10 % beyond chance$/);
    expect(rollout.touched().length).toBeLessThan(60);
    expect(new Set(rollout.touched().map(({ wave }) => wave))).toEqual(new Set([0]));
    expect(rollout.devices.filter(({ runs }) => runs === 'new')).toEqual([]);
    expect(states(rollout)).toEqual(['reverted', 'skipped']);
  });

  it.each(seeds)('takes the finished waves back when a later one goes wrong (seed %i)', (seed) => {
    const random = seededRandom(seed);
    const bad = new Set<string>();
    const rollout = new SimulatedRollout(
      fleet(5_000, (index) => {
        const [bent, tookMs] = [random() < 0.4, 2_000 + 20_000 * random()];
        if (bent) bad.add(`device-${index}`);
        return fate({ takes: () => true, tookMs });
      }),
      { ...TEN_WAVES, seed },
    );
    for (const device of rollout.devices)
      if (device.wave === 3 && bad.has(device.id)) Object.assign(device, { fate: fate({ takes: () => false, tookMs: device.fate.tookMs }) });
    rollout.run();
    expect([rollout.state, rollout.waves.map(({ state }) => state)]).toEqual([
      'rolled-back',
      [...Array(3).fill('succeeded'), 'failed', ...Array(6).fill('pending')],
    ]);
    expect(rollout.touched().filter(({ wave }) => wave < 3)).toHaveLength(1_500);
    expect(rollout.devices.filter(({ runs }) => runs === 'new')).toEqual([]);
  });

  it.each(seeds)('pauses when a tenth of the devices that it changed go and a fifth of a wave is enough (seed %i)', (seed) => {
    const random = seededRandom(seed);
    const rollout = new SimulatedRollout(
      fleet(5_000, () => {
        const [gone, tookMs] = [random() < 0.25, 2_000 + 20_000 * random()];
        return fate({ tookMs, isHere: (nowMs) => !(gone && nowMs > 60_000) });
      }),
      { ...TEN_WAVES, seed, rate: { kind: 'constant', perMinute: 300 } },
    ).run();
    expect(rollout.state).toBe('paused');
    expect(rollout.reason).toMatch(/^wave \d+: brake: \d+ of the \d+ devices that this wave has changed are gone$/);
  });

  it('chooses the same members for the same seed, and others for another one', () => {
    const members = (seed: number) => new SimulatedRollout(fleet(200), { ...TEN_WAVES, seed }).devices.map(({ id }) => id);
    expect(members(3)).toEqual(members(3));
    expect(members(3)).not.toEqual(members(4));
  });
});

describe('a wave', () => {
  it('waits for its time and for its approval, and the next one for its observation', () => {
    const rollout = new SimulatedRollout(fleet(4), {
      waves: [{ count: 2, notBefore: '1970-01-01T01:00:00Z', observeMs: 60_000 }, { approval: true }],
    });
    const begun: number[] = [];
    rollout.run(1_000, ({ moves, waves }) => {
      if (moves.some(({ kind }) => kind === 'push')) begun.push(rollout.nowMs);
      if (waves.some(({ state }) => state === 'awaiting-approval')) rollout.waves[1]!.isApproved = true;
    });
    expect(rollout.state).toBe('succeeded');
    expect(begun).toEqual([3_600_000, 3_600_000 + 5_000 + 60_000]);
  });

  it('has the devices of one site one after the other', () => {
    const rollout = new SimulatedRollout(
      fleet(12, (index) => fate({ site: `site-${index % 3}` })),
      { spread: { label: 'site' } },
    );
    rollout.run(1_000, () => {
      const busy = rollout.devices.filter(({ state }) => state === 'pushed').map(({ fate: { site } }) => site);
      expect(new Set(busy).size).toBe(busy.length);
    });
    expect([rollout.state, rollout.nowMs]).toEqual(['succeeded', 20_000]);
  });

  it('fetches before the maintenance window and changes over inside', () => {
    const opensAtMs = 3_600_000;
    const rollout = new SimulatedRollout(
      fleet(3, () => fate({ window: (nowMs) => ({ isOpen: nowMs >= opensAtMs, changesAtMs: opensAtMs }) })),
      {
        window: { cron: '0 2 * * *', durationMs: 3_600_000 },
      },
    ).run();
    expect(rollout.state).toBe('succeeded');
    const pushes = rollout.happened.flatMap(({ atMs, move }) => (move.kind === 'push' ? [[atMs, move.changeOver]] : []));
    expect(pushes).toEqual([...Array(3).fill([0, 'hold']), ...Array(3).fill([opensAtMs, 'at-once'])]);
  });

  it('asks softly until the hour at which it must', () => {
    const rollout = new SimulatedRollout(
      fleet(2, () => fate({ tookMs: 7_200_000 - 1 })),
      { mode: 'soft', forceAt: '1970-01-01T00:05:00Z', timeouts: {} },
    );
    rollout.run(2_000);
    const pushes = rollout.happened.flatMap(({ atMs, move }) => (move.kind === 'push' ? [[atMs, move.changeOver]] : []));
    expect(pushes.slice(0, 4)).toEqual([...Array(2).fill([0, 'when-idle']), ...Array(2).fill([300_000, 'at-once'])]);
  });

  it('tries again as often as the plan says for that kind of failure, later each time', () => {
    const rollout = new SimulatedRollout(
      fleet(1, () => fate({ takes: (attempt) => attempt === 3 })),
      { retries: { device: { times: 2, backoffMs: 10_000 } } },
    ).run();
    expect(rollout.state).toBe('succeeded');
    const pushes = rollout.happened.filter(({ move }) => move.kind === 'push').map(({ atMs }) => atMs);
    expect(pushes).toEqual([0, 5_000 + 10_000, 20_000 + 20_000]);
  });

  it('fails a device that never comes, and pauses when too few are left', () => {
    const rollout = new SimulatedRollout(
      fleet(10, (index) => fate({ isHere: () => index > 0 })),
      {},
    ).run();
    expect([rollout.state, rollout.reason]).toEqual(['paused', "wave 1: 9 of the wave's 10 devices run it and 1 failed; 95 % were asked for"]);
    expect(rollout.nowMs).toBeGreaterThanOrEqual(3_600_000);
  });

  it('of download only ends with the bytes there and nothing changed', () => {
    const rollout = new SimulatedRollout(fleet(3), { downloadOnly: true }).run();
    expect([rollout.state, rollout.devices.map(({ runs }) => runs)]).toEqual(['succeeded', ['old', 'old', 'old']]);
  });
});

describe('any rollout', () => {
  const plans: fc.Arbitrary<RolloutPlanInput> = fc.record({
    waves: fc.array(
      fc.oneof(
        fc.record({ count: fc.integer({ min: 1, max: 20 }) }),
        fc.record({ percent: fc.integer({ min: 1, max: 100 }) }),
        fc.record({ observeMs: fc.integer({ min: 0, max: 60_000 }) }),
      ),
      { minLength: 1, maxLength: 5 },
    ),
    rate: fc.option(
      fc.oneof(
        fc.record({ kind: fc.constant('constant' as const), perMinute: fc.integer({ min: 5, max: 600 }) }),
        fc.record({
          kind: fc.constant('exponential' as const),
          basePerMinute: fc.integer({ min: 5, max: 60 }),
          everySucceeded: fc.integer({ min: 1, max: 10 }),
        }),
      ),
      { nil: undefined },
    ),
    error: fc.record({ percent: fc.integer({ min: 0, max: 60 }), then: fc.constantFrom('pause' as const, 'abort' as const, 'roll-back' as const) }),
    spread: fc.option(fc.record({ label: fc.constant('site'), atOnce: fc.integer({ min: 1, max: 3 }) }), { nil: undefined }),
    retries: fc.constantFrom({}, { device: { times: 1, backoffMs: 5_000 } }),
    downloadOnly: fc.boolean(),
    seed: fc.nat(1_000),
  });
  const fleets = fc.array(
    fc.record({
      failing: fc.integer({ min: 0, max: 3 }),
      tookMs: fc.integer({ min: 500, max: 60_000 }),
      site: fc.constantFrom('a', 'b', 'c'),
      awayUntilMs: fc.constantFrom(0, 0, 30_000, 4_000_000),
    }),
    { minLength: 1, maxLength: 40 },
  );
  const simulated = (devices: { failing: number; tookMs: number; site: string; awayUntilMs: number }[], plan: RolloutPlanInput) =>
    new SimulatedRollout(
      fleet(devices.length, (index) => {
        const { failing, tookMs, site, awayUntilMs } = devices[index]!;
        return fate({
          takes: (attempt) => attempt > (failing === 3 ? 9 : failing === 2 ? 1 : 0),
          tookMs,
          site,
          isHere: (nowMs) => nowMs >= awayUntilMs,
        });
      }),
      plan,
    );

  it('ends or pauses with a reason; never begins a wave before the one before is through, more of a site than allowed, or more than the rate', () => {
    fc.assert(
      fc.property(fleets, plans, (devices, plan) => {
        const rollout = simulated(devices, plan);
        rollout.run(20_000, ({ moves }) => {
          const begins = moves.filter(({ kind }) => kind === 'push').map(({ deviceId }) => rollout.devices.find(({ id }) => id === deviceId)!);
          const at = rollout.waves.findIndex(({ state }) => state !== 'succeeded');
          expect(begins.every(({ wave }) => wave === at)).toBe(true);
          if (rollout.plan.rate?.kind === 'constant') expect(begins.length).toBeLessThanOrEqual(Math.max(1, rollout.plan.rate.perMinute / 60));
        });
        const open = rollout.devices.filter(({ state }) => ['waiting', 'fetching', 'fetched', 'pushed', 'reverting'].includes(state));
        if (rollout.state !== 'paused') expect(open).toEqual([]);
        expect(rollout.reason).not.toBeNull();
      }),
      { numRuns: 150 },
    );
  });

  it('leaves nobody on the new version once it is rolled back, and stops for failures only where the rule says so', () => {
    fc.assert(
      fc.property(fleets, plans, (devices, plan) => {
        const rollout = simulated(devices, plan).run();
        if (rollout.state === 'rolled-back')
          expect(rollout.devices.filter(({ runs, state }) => runs === 'new' && state !== 'revert-failed')).toEqual([]);
        const { percent } = rollout.plan.error;
        rollout.waves.forEach(({ state }, wave) => {
          const ended = rollout.devices.filter((device) => device.wave === wave);
          const failed = rollout.happened.filter(
            ({ move }) => move.kind === 'settle' && move.state === 'failed' && ended.some(({ id }) => id === move.deviceId),
          ).length;
          if (state === 'succeeded') expect(failed * 100).toBeLessThanOrEqual(percent * ended.length);
          if (state === 'failed') expect(failed * 100 > percent * ended.length || shareAtLeast(failed, ended.length) < 1).toBe(true);
        });
      }),
      { numRuns: 150 },
    );
  });
});
