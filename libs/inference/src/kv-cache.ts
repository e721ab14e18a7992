import { slidingCapacity, type ModelConfig } from '@matfleet/model';
import { KERNELS, type Provider } from './kernels.js';
import { KvMover } from './kv-mover.js';
import { float32, floatsOf, isKept, type Feeds, type Tensor } from './onnx.js';

export interface CachedLayer {
  readonly layer: number;
  readonly sliding: boolean;
}

/** What computed a position: the shape of a slice, and the layers whose keys and values it wrote. */
export interface ComputedBy {
  readonly shape: string;
  readonly layers: readonly number[];
}

interface Pair extends CachedLayer {
  key: Tensor;
  value: Tensor;
  /** The slice whose session these buffers belong to; of those that lie with an accelerator. */
  of?: ComputedBy | undefined;
}

/**
 * Keys and values of the positions so far, one pair of buffers (1, K, C, d) per layer that owns them, C positions of room. Full-attention
 * layers keep every position, sliding ones the last that a window still reaches: before their room ends, what no window sees any more is moved
 * out. In the host's memory a pass writes its new positions behind the others, in place. An accelerator that keeps them hands over new buffers
 * after each pass, which take the old ones' place.
 */
export class KvCache {
  /** Positions that sliding layers hold now. */
  slidingLength = 0;
  readonly slidingCapacity: number;
  private readonly ids: number[] = [];
  /** Who computed the positions, in runs, each up to but not including `end`. */
  private runs: { readonly by: ComputedBy; readonly end: number }[] = [];
  private readonly pairs: Pair[];
  private readonly onAccelerator: boolean;
  private mover: Promise<KvMover> | undefined;
  private changing: Promise<unknown> = Promise.resolve();

  /** `passTokens` is the most that `advance` is called with. */
  constructor(
    private readonly config: ModelConfig,
    layers: readonly CachedLayer[],
    readonly contextTokens: number,
    passTokens: number,
    private readonly provider: Provider = 'cpu',
  ) {
    this.onAccelerator = KERNELS[provider].keepsKeysAndValues;
    this.slidingCapacity = slidingCapacity(config, contextTokens, passTokens);
    const { numKeyValueHeads: K, headDim: d } = config;
    const buffer = (room: number): Tensor => float32(new Float32Array(K * room * d), [1, K, room, d]);
    // What an accelerator starts from is only read: one of each size.
    const starts = new Map<number, Tensor>();
    const start = (room: number): Tensor => starts.get(room) ?? starts.set(room, buffer(room)).get(room)!;
    this.pairs = layers.map(({ layer, sliding }) => {
      const make = this.onAccelerator ? start : buffer;
      const room = sliding ? this.slidingCapacity : contextTokens;
      return { layer, sliding, key: make(room), value: make(room) };
    });
  }

  /** The token at each position computed so far. */
  get tokenIds(): readonly number[] {
    return this.ids;
  }

  /** Positions computed so far. */
  get length(): number {
    return this.ids.length;
  }

  get bytes(): number {
    return this.pairs.reduce((sum, { key, value }) => sum + 4 * (key.size + value.size), 0);
  }

  /** Forgets every position; the buffers stay. */
  reset(): void {
    this.rollBack(0);
  }

  /** Whether the sliding layers still hold what the position after the first `length` ones sees. */
  reaches(length: number): boolean {
    const held = this.slidingLength - (this.length - length);
    return length === 0 || (length <= this.length && held >= Math.min(length, this.config.slidingWindow - 1));
  }

  /** Forgets all but the first `length` positions. The last pass can always be taken back; what else can, `reaches` tells. */
  rollBack(length: number): void {
    if (!this.reaches(length)) throw new Error(`back from ${this.length} to ${length} positions; sliding layers hold the last ${this.slidingLength}`);
    this.slidingLength = Math.max(0, this.slidingLength - (this.length - length));
    this.ids.length = length;
    const whole = this.runs.filter(({ end }) => end <= length);
    const cut = this.runs[whole.length];
    if (cut && (whole.at(-1)?.end ?? 0) < length) whole.push({ by: cut.by, end: length });
    this.runs = whole;
  }

  /** Positions from the first on whose computation `accepts`. */
  leading(accepts: (by: ComputedBy) => boolean): number {
    const stop = this.runs.findIndex(({ by }) => !accepts(by));
    return stop < 0 ? this.length : (this.runs[stop - 1]?.end ?? 0);
  }

  /** Whether every position of these layers was computed: a slice that owns a layer which an earlier one skipped cannot go on from here. */
  holds(layers: readonly number[]): boolean {
    return this.leading((by) => layers.every((layer) => by.layers.includes(layer))) === this.length;
  }

  /** Makes room for a pass over `count` new positions. */
  async prepare(count: number): Promise<void> {
    if (this.length + count > this.contextTokens) throw new Error(`${this.length} + ${count} positions exceed the context of ${this.contextTokens}`);
    if (this.slidingLength + count <= this.slidingCapacity) return;
    const window = this.config.slidingWindow - 1;
    const spare = this.slidingCapacity - window - count;
    if (spare < 0) throw new Error(`a pass over ${count} positions; the cache was made for ${this.slidingCapacity - window}`);
    // Half of the room that is left goes to the past, so that the next prompt may leave this one's path a little earlier; half saves moves.
    const kept = Math.min(this.slidingLength, window + Math.floor(spare / 2));
    const sliding = this.pairs.filter((pair) => pair.sliding);
    if (this.onAccelerator) await this.change(() => this.copy(sliding, this.slidingLength - kept, kept));
    else for (const { key, value } of sliding) for (const tensor of [key, value]) this.moveToFront(floatsOf(tensor), kept);
    this.slidingLength = kept;
  }

  /** After a pass over these tokens. */
  advance(tokenIds: readonly number[], by: ComputedBy): void {
    this.ids.push(...tokenIds);
    this.slidingLength += tokenIds.length;
    if (this.runs.at(-1)?.by.shape === by.shape) this.runs.pop();
    this.runs.push({ by, end: this.length });
  }

  /** A pass on an accelerator: takes the `past` buffers of these layers, and its `present` ones take their place. */
  pass<T extends Feeds>(by: ComputedBy, run: (past: Feeds) => Promise<T>): Promise<T> {
    return this.change(async () => {
      const outputs = await run(this.feeds(by.layers));
      for (const pair of this.pairs)
        if (by.layers.includes(pair.layer)) replace(pair, outputs[`present.${pair.layer}.key`]!, outputs[`present.${pair.layer}.value`]!, by);
      return outputs;
    });
  }

  /** Before the slice's session closes: ONNX Runtime (1.30.0) crashes over a buffer that outlives the session it came from. */
  leave(by: ComputedBy): Promise<void> {
    return this.change(() => {
      const pairs = this.pairs.filter(({ of }) => of === by);
      return this.copy(pairs, 0, Infinity);
    });
  }

  /** Gives an accelerator its memory back. */
  close(): Promise<void> {
    return this.change(async () => {
      for (const { key, value } of this.pairs) for (const tensor of [key, value]) if (isKept(tensor)) tensor.dispose();
      await (await this.mover)?.close();
    });
  }

  /** One change of what lies with the accelerator after the other. */
  private change<T>(work: () => Promise<T>): Promise<T> {
    const changed = this.changing.then(work);
    this.changing = changed.catch(() => undefined);
    return changed;
  }

  feeds(layers: readonly number[]): Feeds {
    return this.named('past', layers);
  }

  /** The same buffers as outputs: a pass writes into them. `sharing` are layers that read another layer's keys and values, by that layer. */
  fetches(layers: readonly number[], sharing: ReadonlyMap<number, number>): Feeds {
    const owners = new Map(this.pairs.map((pair) => [pair.layer, pair]));
    const shared = [...sharing].flatMap(([layer, donor]) => {
      const { key, value } = owners.get(donor)!;
      return [
        [`present.${layer}.key`, key],
        [`present.${layer}.value`, value],
      ];
    });
    return { ...this.named('present', layers), ...Object.fromEntries(shared) };
  }

  private named(prefix: string, layers: readonly number[]): Feeds {
    return Object.fromEntries(
      this.pairs
        .filter(({ layer }) => layers.includes(layer))
        .flatMap(({ layer, key, value }) => [
          [`${prefix}.${layer}.key`, key],
          [`${prefix}.${layer}.value`, value],
        ]),
    );
  }

  /** Copies `count` positions from `from` on to the front of buffers of the cache's own. A layer that no pass has written holds nothing. */
  private async copy(pairs: readonly Pair[], from: number, count: number): Promise<void> {
    for (const pair of pairs) {
      if (!isKept(pair.key)) continue;
      const mover = await (this.mover ??= KvMover.open(this.provider));
      replace(pair, await mover.toFront(pair.key, from, count), await mover.toFront(pair.value, from, count), undefined);
    }
  }

  private moveToFront(values: Float32Array, kept: number): void {
    const { numKeyValueHeads: K, headDim: d } = this.config;
    const stride = this.slidingCapacity * d;
    for (let head = 0; head < K; head++) {
      const end = head * stride + this.slidingLength * d;
      values.copyWithin(head * stride, end - kept * d, end);
    }
  }
}

function replace(pair: Pair, key: Tensor, value: Tensor, of: ComputedBy | undefined): void {
  const before = [pair.key, pair.value];
  Object.assign(pair, { key, value, of });
  for (const tensor of before) if (isKept(tensor)) tensor.dispose();
}
