import { createHash } from 'node:crypto';
import type { ModelConfig } from '@matfleet/model';
import { roundToBfloat16 } from './bfloat16.js';
import { expectedTensors, type TensorSource } from './checkpoint.js';
import { VALUE_BYTES, type RawRows } from './raw-rows.js';

/** Distinct values that every tensor is cut from, at a place that its name and row decide. */
const POOL = 2 ** 20;

/**
 * A model of random values in true shape: the same name, row and seed always give the same values. Matrices are normal with a standard
 * deviation of 1 / sqrt(inputs), so that values keep their size from layer to layer; norms lie around one. All are bfloat16 numbers, as in
 * published checkpoints.
 */
export class RandomTensors implements TensorSource {
  private readonly shapes: ReadonlyMap<string, readonly number[]>;
  private readonly pool: Float32Array;

  constructor(
    config: ModelConfig,
    private readonly seed: number,
  ) {
    this.shapes = new Map(expectedTensors(config));
    this.pool = normalPool(seed);
  }

  get names(): string[] {
    return [...this.shapes.keys()];
  }

  shape(name: string): readonly number[] {
    const shape = this.shapes.get(name);
    if (!shape) throw new Error(`the model has no tensor ${name}`);
    return shape;
  }

  async readRows(name: string, from: number, to: number): Promise<Float32Array> {
    const shape = this.shape(name);
    const width = shape.length > 1 ? shape[1]! : 1;
    const values = new Float32Array((to - from) * width);
    if (shape.length === 1) {
      const start = this.placeOf(name, 0) + from;
      for (let i = 0; i < values.length; i++) values[i] = 1 + 0.1 * this.pool[(start + i) % POOL]!;
      return roundToBfloat16(values);
    }
    const deviation = width ** -0.5;
    for (let row = from; row < to; row++) {
      let at = this.placeOf(name, row);
      for (let column = 0; column < width;) {
        const count = Math.min(width - column, POOL - at);
        values.set(this.pool.subarray(at, at + count), (row - from) * width + column);
        column += count;
        at = 0;
      }
    }
    for (let i = 0; i < values.length; i++) values[i]! *= deviation;
    return roundToBfloat16(values);
  }

  /** As a published checkpoint would count them. */
  valueBytes(): number {
    return VALUE_BYTES.BF16;
  }

  bytes(name: string): number {
    return this.shape(name).reduce((a, b) => a * b, this.valueBytes());
  }

  async readRaw(name: string, from: number, to: number): Promise<RawRows> {
    const values = await this.readRows(name, from, to);
    const bytes = new Uint8Array(values.buffer as ArrayBuffer);
    return { origin: `tensor ${name}`, dtype: 'F32', bytes, firstRow: from, rows: to - from, width: values.length / (to - from) };
  }

  async close(): Promise<void> {}

  private readonly bases = new Map<string, number>();

  private placeOf(name: string, row: number): number {
    let base = this.bases.get(name);
    if (base === undefined) this.bases.set(name, (base = createHash('sha256').update(`${this.seed}/${name}`).digest().readUInt32LE()));
    // Knuth's multiplicative hash spreads neighbouring rows over the pool.
    return Math.imul(base + row, 2_654_435_761) >>> 12;
  }
}

/** Box and Muller's transform of a small seeded generator (mulberry32). */
function normalPool(seed: number): Float32Array {
  // Looked up once, since there are a million values.
  const { PI, cos, imul, log, sin, sqrt } = Math;
  let state = seed >>> 0;
  const uniform = (): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = imul(state ^ (state >>> 15), 1 | state);
    t = (t + imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  const pool = new Float32Array(POOL);
  for (let i = 0; i < POOL; i += 2) {
    const radius = sqrt(-2 * log(1 - uniform()));
    const angle = 2 * PI * uniform();
    pool[i] = radius * cos(angle);
    pool[i + 1] = radius * sin(angle);
  }
  return pool;
}
