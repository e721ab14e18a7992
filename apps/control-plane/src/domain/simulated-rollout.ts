import { chooseMembers } from './rollout-membership.js';
import { RolloutPlan, type RolloutPlanInput } from './rollout-plan.js';
import type { Pace } from './rollout-rate.js';
import { isEnded, type RolloutSight, type RolloutState, type RolloutStep, type WaveState } from './rollout-sight.js';
import { emptyTally, type ChangeOver, type TargetMove, type TargetSight, type TargetState } from './rollout-target.js';
import { nextStep } from './rollout.js';

/** What a device makes of the version. */
export interface Fate {
  /** Whether it takes it, at this try (from 1). */
  takes(attempt: number): boolean;
  readonly tookMs: number;
  readonly site: string;
  readonly isHere: (nowMs: number) => boolean;
  readonly window: (nowMs: number) => { isOpen: boolean; changesAtMs: number } | null;
}

interface Device {
  readonly id: string;
  readonly fate: Fate;
  readonly wave: number;
  state: TargetState;
  attempts: number;
  sinceMs: number;
  retryAtMs: number | null;
  changeOver: ChangeOver | null;
  generation: number | null;
  /** What it shows: the version before until it has changed. */
  runs: 'old' | 'new';
  shownGeneration: number;
  phase: string | null;
  doneAtMs: number | null;
}

export interface Happening {
  readonly atMs: number;
  readonly move: TargetMove;
}

const TIMEOUTS = { reachMs: 3_600_000, doneMs: 600_000 };

/** A rollout and its devices in memory: what the control plane, its database and a fleet do, with a clock that jumps. */
export class SimulatedRollout {
  readonly plan: RolloutPlan;
  readonly devices: Device[];
  readonly waves: { state: WaveState; openedAtMs: number | null; observedSinceMs: number | null; isApproved: boolean }[];
  /** Every move, in order. */
  readonly happened: Happening[] = [];
  state: RolloutState = 'running';
  reason: string | null = null;
  nowMs = 0;
  private pace: Pace | null = null;
  private generations = 1;
  private readonly byId: ReadonlyMap<string, Device>;
  private readonly underWay = new Set<Device>();

  constructor(fates: ReadonlyMap<string, Fate>, input: RolloutPlanInput) {
    this.plan = RolloutPlan.parse(input);
    const { members } = chooseMembers(
      [...fates.keys()],
      this.plan.waves.map((plan) => ({ plan, matching: null })),
      this.plan.seed,
    );
    this.waves = members.map(() => ({ state: 'pending', openedAtMs: null, observedSinceMs: null, isApproved: false }));
    this.devices = members.flatMap((ids, wave) =>
      ids.map((id) => ({
        ...{
          id,
          wave,
          fate: fates.get(id)!,
          state: 'waiting' as const,
          attempts: 0,
          sinceMs: 0,
          retryAtMs: null,
          changeOver: null,
          generation: null,
        },
        ...{ runs: 'old' as const, shownGeneration: 1, phase: null, doneAtMs: null },
      })),
    );
    this.byId = new Map(this.devices.map((device) => [device.id, device]));
  }

  /** Until it ends or nothing would ever happen again; throws when that takes more than `stepsMax`. */
  run(stepsMax = 20_000, eachStep: (step: RolloutStep, sight: RolloutSight, targets: readonly TargetSight[]) => void = () => {}): this {
    for (let steps = 0; !isEnded(this.state); steps += 1) {
      if (steps >= stepsMax) throw new Error(`still ${this.state} after ${stepsMax} steps, at ${this.nowMs} ms`);
      this.devicesAct();
      const [sight, targets] = [this.sight(), this.targets()];
      const step = nextStep(sight, targets, this.nowMs);
      eachStep(step, sight, targets);
      this.apply(step);
      if (step.state || step.waves.length > 0) continue;
      const nextMs = [...this.underWay].reduce((least, { doneAtMs }) => Math.min(least, doneAtMs!), step.wakeAtMs ?? Infinity);
      if (nextMs === Infinity || this.state === 'paused') return this;
      this.nowMs = Math.max(this.nowMs + 1_000, Math.ceil(nextMs / 1_000) * 1_000);
    }
    return this;
  }

  /** What devices have changed, or are about to. */
  touched(): Device[] {
    return this.devices.filter(({ attempts }) => attempts > 0);
  }

  private get at(): number {
    return this.waves.findIndex(({ state }) => state !== 'succeeded');
  }

  private devicesAct(): void {
    for (const device of this.underWay) {
      if (device.doneAtMs! > this.nowMs) continue;
      device.doneAtMs = null;
      this.underWay.delete(device);
      if (device.state === 'reverting') Object.assign(device, { runs: 'old', shownGeneration: device.generation });
      else if (!device.fate.takes(device.attempts)) device.phase = 'failed';
      else if (device.changeOver === 'hold') device.phase = 'fetched';
      else Object.assign(device, { runs: 'new', shownGeneration: device.generation, phase: 'active' });
    }
  }

  private sight(): RolloutSight {
    const { at } = this;
    const counts = this.waves.map(() => ({ tally: emptyTally(), gone: 0 }));
    for (const { wave, state, fate } of this.devices) {
      counts[wave]!.tally[state] += 1;
      if (wave === at && (state === 'pushed' || state === 'succeeded') && !fate.isHere(this.nowMs)) counts[wave]!.gone += 1;
    }
    return {
      ...{ modelVersionId: 'new', state: this.state, reason: this.reason, plan: this.plan, timeouts: TIMEOUTS, pace: this.pace, evidence: null },
      waves: this.waves.map((wave, ordinal) => ({
        ...wave,
        ...counts[ordinal]!,
        plan: this.plan.waves[ordinal] ?? { approval: false, observeMs: 0 },
        waived: { failed: 0, gone: 0, outcome: false },
      })),
    };
  }

  private targets(): TargetSight[] {
    const { at } = this;
    const open: TargetState[] = ['waiting', 'fetching', 'fetched', 'pushed'];
    const seen =
      this.state === 'rolling-back'
        ? this.devices.filter(({ state, attempts }) => attempts > 0 && state !== 'reverted' && state !== 'revert-failed' && state !== 'skipped')
        : this.devices.filter(({ wave, state }) => wave === at && open.includes(state));
    return seen.map((device) => ({
      ...{ deviceId: device.id, state: device.state, attempts: device.attempts, sinceMs: device.sinceMs, retryAtMs: device.retryAtMs },
      ...{ spreadBy: this.plan.spread ? device.fate.site : null, isHere: device.fate.isHere(this.nowMs), window: device.fate.window(this.nowMs) },
      ...{ heldBy: null, generation: device.generation, changeOver: device.changeOver, previousVersionId: 'old' },
      desired: device.generation === null ? null : { generation: device.generation, modelVersionId: device.state === 'reverting' ? 'old' : 'new' },
      observed: { generation: device.shownGeneration, modelVersionId: device.runs },
      failure: null,
      ...{ phase: device.phase, phaseError: device.phase === 'failed' ? 'golden prompt 1 of 2 differs' : null },
    }));
  }

  private apply(step: RolloutStep): void {
    this.pace = step.pace;
    for (const move of step.moves) {
      this.happened.push({ atMs: this.nowMs, move });
      const device = this.byId.get(move.deviceId)!;
      if (move.kind === 'settle') Object.assign(device, { state: move.state, sinceMs: this.nowMs });
      else if (move.kind === 'retry') Object.assign(device, { state: 'waiting', retryAtMs: move.atMs, sinceMs: this.nowMs, phase: null });
      else this.send(device, move);
    }
    for (const { wave, state } of step.waves) {
      const changed = this.waves[wave]!;
      changed.state = state;
      if (state === 'running') changed.openedAtMs ??= this.nowMs;
      if (state === 'observing') changed.observedSinceMs ??= this.nowMs;
    }
    if (!step.state) return;
    this.state = step.state.to;
    this.reason = step.state.reason;
    for (const device of this.devices)
      if (
        ['waiting', 'fetching', 'fetched', 'pushed'].includes(device.state) &&
        (this.state === 'aborted' || (this.state === 'rolling-back' && device.attempts === 0))
      )
        device.state = 'skipped';
  }

  private send(device: Device, move: Extract<TargetMove, { kind: 'push' | 'revert' }>): void {
    const changeOver = move.kind === 'push' ? move.changeOver : 'at-once';
    if (move.kind === 'push' && device.state === 'waiting') device.attempts += 1;
    Object.assign(device, {
      ...{ state: move.kind === 'revert' ? 'reverting' : changeOver === 'hold' ? 'fetching' : 'pushed', changeOver, phase: null },
      ...{ sinceMs: this.nowMs, generation: ++this.generations, doneAtMs: this.nowMs + device.fate.tookMs },
    });
    this.underWay.add(device);
  }
}
