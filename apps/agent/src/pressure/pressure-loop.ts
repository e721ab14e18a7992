import { performance } from 'node:perf_hooks';
import { chunksOf, frontier, sliceById, type Manifest, type Slice } from '@matfleet/model';
import { PowerSource } from '@matfleet/protocol';
import type { Supervisor } from '../engine/supervisor.js';
import { readCondition } from '../hardware/condition.js';
import { measureMemory } from '../hardware/memory.js';
import { ASSIGNED, nextDescent, type Descent, type Signals } from './pressure.js';

const EVERY_MS = 1_000;

/** The slice that answers instead of the assigned one, and why. */
export interface Effective {
  readonly sliceId: string;
  readonly reason: string;
}

export interface PressureLoopOptions {
  readonly supervisor: Supervisor;
  readonly manifest: (modelVersionId: string) => Manifest | undefined;
  /** Called with the slice that answers from now on. */
  readonly onChange: (sliceId: string, reason: string) => void;
  readonly signals?: () => Signals;
  readonly nowMs?: () => number;
}

/** Watches the box, and lets smaller slices answer while it is short of memory, hot or nearly empty: down from the assigned slice and back, never above it. */
export class PressureLoop {
  private descent: Descent = ASSIGNED;
  private readonly timer: NodeJS.Timeout;
  private answering: { engineSlice: string; sliceId: string } | undefined;

  constructor(private readonly options: PressureLoopOptions) {
    this.timer = setInterval(() => this.look(), EVERY_MS);
    this.timer.unref();
  }

  stop(): void {
    clearInterval(this.timer);
  }

  /** Undefined while the assigned slice answers. */
  get effective(): Effective | undefined {
    const ladder = this.ladder();
    const sliceId = ladder[Math.min(this.descent.steps, ladder.length - 1)];
    return this.descent.steps === 0 || sliceId === undefined || sliceId === ladder[0] ? undefined : { sliceId, reason: this.descent.reason };
  }

  look(): void {
    const { signals = readSignals, nowMs = () => performance.now(), onChange } = this.options;
    const ladder = this.ladder();
    if (ladder.length === 0) return;
    this.descent = nextDescent(this.descent, signals(), ladder.length - 1, nowMs());
    const [engineSlice, sliceId] = [ladder[0]!, ladder[this.descent.steps]!];
    const before = this.answering;
    this.answering = { engineSlice, sliceId };
    // An engine begins with its own slice.
    const was = before?.engineSlice === engineSlice ? before.sliceId : engineSlice;
    if (was !== sliceId) onChange(sliceId, this.descent.reason);
  }

  /** The assigned slice, and those that the engine holds and that are worth running, each smaller than the one before. */
  private ladder(): string[] {
    const { supervisor, manifest: manifestOf } = this.options;
    const engine = supervisor.current();
    const manifest = engine && manifestOf(engine.spec.modelVersionId);
    if (!manifest) return [];
    const bytes = (slice: Slice): number => chunksOf(manifest, slice).reduce((sum, chunk) => sum + chunk.bytes, 0);
    const assigned = sliceById(manifest, engine.spec.sliceId);
    const held = engine.status().heldSlices.map((id) => sliceById(manifest, id));
    const smaller = frontier(held, { sizeOf: bytes }).filter((slice) => bytes(slice) < bytes(assigned));
    return [assigned, ...smaller.reverse()].map(({ id }) => id);
  }
}

function readSignals(): Signals {
  const { memoryFullPercent, temperatureCelsius, throttlesAtCelsius, power, batteryPercent } = readCondition();
  const { availableBytes, totalBytes } = measureMemory();
  return {
    memoryFullPercent,
    availableShare: availableBytes / totalBytes,
    temperatureCelsius,
    throttlesAtCelsius,
    onBattery: power === PowerSource.POWER_SOURCE_BATTERY,
    batteryPercent,
  };
}
