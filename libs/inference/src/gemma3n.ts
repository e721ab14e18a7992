import { firstSharedLayer, kvSource, type ModelConfig, type Slice } from '@matfleet/model';
import { evenSplit } from './even-split.js';
import { bandName } from './import-chunks.js';
import type { GraphBuilder, Value } from './graph-builder.js';
import { KERNELS, type Kernels } from './kernels.js';
import type { CachedLayer } from './kv-cache.js';
import { UNREADABLE } from './onnx.js';
import { timesTransposed, type Weights } from './weights.js';

// The forward pass of Gemma 3n's text decoder, written as an ONNX graph for one slice.
// Reference: transformers modeling_gemma3n; a skipped layer passes the state on unchanged.
//
// Legend: S new positions · W wanted positions of them · T cached positions and S · n kept layers · A AltUp streams · D hidden
//         P per-layer embedding · F FFN width · H query heads · K key/value heads · d head width · R LAuReL rank · V vocabulary
//
// What makes it Gemma 3n rather than a plain decoder: the state is A parallel streams (AltUp) of which only the first runs through a
// layer; a low-rank side path beside attention (LAuReL); an embedding per layer and token (PLE); upper layers read lower layers' K/V;
// the first FFNs keep only their largest gates. Layers from the first sharing one on write nothing that other positions read, so they
// run on the wanted positions alone.

export interface SliceShape {
  readonly config: ModelConfig;
  readonly slice: Pick<Slice, 'ffn' | 'skip'>;
  /** FFN width per original layer, 0 where skipped. */
  readonly widths: readonly number[];
  /** Per layer, the widths at which its bands end. */
  readonly bandEdges: readonly (readonly number[])[];
}

export const keptLayers = ({ widths }: SliceShape): number[] => widths.flatMap((width, layer) => (width > 0 ? [layer] : []));

/** Kept layers that own K/V. */
export const cachedLayers = ({ config, slice }: Pick<SliceShape, 'config' | 'slice'>): CachedLayer[] =>
  Array.from({ length: firstSharedLayer(config) }, (_, layer) => layer)
    .filter((layer) => !slice.skip.includes(layer))
    .map((layer) => ({ layer, sliding: config.layerTypes[layer] === 'sliding_attention' }));

/** Kept layers that read another layer's K/V, and that layer. */
export const sharingLayers = (shape: SliceShape): Map<number, number> =>
  new Map(
    keptLayers(shape)
      .filter((layer) => layer >= firstSharedLayer(shape.config))
      .map((layer) => [layer, kvSource(shape.config, layer)]),
  );

export interface ForwardOptions {
  /** Add an output that counts the positions each sharing layer computes. */
  readonly trace?: boolean;
  /** What the graph runs on; by default the CPU's. */
  readonly kernels?: Kernels;
}

/** Writes the graph. */
export function buildForward(
  g: GraphBuilder,
  shape: SliceShape,
  weights: Weights,
  { trace = false, kernels = KERNELS.cpu }: ForwardOptions = {},
): void {
  const { config } = shape;
  const { hiddenSize: D, hiddenSizePerLayerInput: P, altupNumInputs: A, headDim: d, numKeyValueHeads: K } = config;
  const layers = keptLayers(shape);
  const firstShared = firstSharedLayer(config);

  if (!kernels.keepsKeysAndValues) g.emptySequence(UNREADABLE); // every other output is written where the caller says
  const embeds = g.input('embeds', 'float32', [1, 'S', D]); // scaled by sqrt(D)
  const pleRows = g.input('ple_rows', 'float32', [1, 'S', layers.length, P]); // scaled by sqrt(P)
  const positions = g.input('positions', 'int64', ['S']);
  const wanted = g.input('wanted', 'int64', ['W']); // the last W positions

  const norm = (x: Value, name: string): Value => rmsNorm(g, x, name, weights.values(name), config.rmsNormEps);
  const add = (x: Value, y: Value): Value => g.op('Add', [x, y]);
  const mul = (x: Value, y: Value): Value => g.op('Mul', [x, y]);
  const first = (streams: Value): Value => g.op('Gather', [streams, g.scalarInt(0)], { axis: 2 }); // (1, S, A, D) -> (1, S, D)
  const asStream = (x: Value): Value => g.op('Unsqueeze', [x, g.ints(2)]); // (1, S, D) -> (1, S, 1, D)
  const gelu = (x: Value): Value => g.op('Gelu', [x], { approximate: 'tanh' });
  let mask: Value | undefined;
  // Added to the scores of sliding layers that share: 0 inside the window, so low outside that nothing is left.
  const windowMask = (): Value => (mask ??= g.input('window_mask', 'float32', [1, 1, 'W', 'T']));
  const atWanted = (x: Value, axis: number): Value => g.op('Gather', [x, wanted], { axis });

  // 1. Per-layer embeddings: what the token says and what its place in the stream of embeddings says.
  const context = weights.rows(
    g,
    embeds,
    layers.map((l) => `layers.${l}.per_layer_model_projection.weight`),
  ); // (1, S, n·P)
  const contextRows = g.op('Reshape', [mul(context, g.scalar(D ** -0.5)), g.ints(0, 0, layers.length, P)]);
  const ple = mul(add(norm(contextRows, 'per_layer_projection_norm.weight'), pleRows), g.scalar(Math.SQRT1_2)); // (1, S, n, P)
  const owning = layers.filter((layer) => layer < firstShared).length;
  const [below, above] = g.ops('Split', [ple, g.ints(owning, layers.length - owning)], 2, { axis: 2 }) as [Value, Value];
  const pleOf = [...perLayer(below, owning), ...perLayer(atWanted(above, 1), layers.length - owning)];

  // 2. AltUp: A streams of equal magnitude.
  const streams = [embeds];
  const magnitude = rms(g, embeds);
  for (let i = 0; i < A - 1; i++) streams.push(rescale(g, weights.linear(g, embeds, `altup_projections.${i}.weight`), magnitude));
  let state = g.op('Concat', streams.map(asStream), { axis: 2 }); // (1, S, A, D)
  let active = embeds; // the first of them

  // 3. Rotary tables and lengths, one of each per attention type: T, and T - 1 for every sequence of the batch of one.
  const kind = (name: 'full' | 'sliding', theta: number): AttentionKind => ({
    ...rotaryTables(g, positions, theta, d),
    length: g.input(`keys_${name}`, 'int32', []),
    last: g.input(`last_key_${name}`, 'int32', [1]),
  });
  let kinds = { full: kind('full', config.ropeThetaFull), sliding: kind('sliding', config.ropeThetaSliding) };

  // 4. The layers.
  const present = new Map<number, { key: Value; value: Value }>();
  const seen: Value[] = [];
  let cut = false;
  const cutToWanted = (): void => {
    if (cut) return;
    cut = true;
    state = atWanted(state, 1);
    active = atWanted(active, 1);
    const cutKind = (kind: AttentionKind): AttentionKind => ({ ...kind, cos: atWanted(kind.cos, 1), sin: atWanted(kind.sin, 1) });
    kinds = { full: cutKind(kinds.full), sliding: cutKind(kinds.sliding) };
  };
  layers.forEach((layer, index) => {
    if (layer >= firstShared) cutToWanted();
    ({ state, active } = decoderLayer(layer, pleOf[index]!));
  });
  cutToWanted();

  // 5. Merge the streams, then logits from the tied embedding.
  const target = rms(g, active);
  let sum = active;
  for (let i = 0; i < A - 1; i++) {
    const stream = g.op('Gather', [state, g.scalarInt(i + 1)], { axis: 2 });
    sum = add(sum, rescale(g, weights.linear(g, stream, `altup_unembed_projections.${i}.weight`), target));
  }
  const z = norm(mul(sum, g.scalar(1 / A)), 'norm.weight'); // (1, W, D)
  const cap = config.finalLogitSoftcapping;
  const raw = weights.linear(g, z, 'embed_tokens.weight'); // (1, W, V)
  g.output('logits', mul(g.op('Tanh', [mul(raw, g.scalar(1 / cap))]), g.scalar(cap)), 'float32', [1, 'W', config.vocabSize]);

  // 6. The cache. Bound to the buffers that came in as past, each pass writes its new positions in place; sharing layers write nothing.
  for (const [layer, { key, value }] of present) {
    g.rename(key, `present.${layer}.key`, 'float32', [1, K, `C${layer}`, d]);
    g.rename(value, `present.${layer}.value`, 'float32', [1, K, `C${layer}`, d]);
  }
  if (trace && seen.length > 0) g.output('shared_positions', g.op('Concat', seen, { axis: 0 }), 'int64', [seen.length]);

  /** (1, S, n, P) -> n times (1, S, P) */
  function perLayer(rows: Value, n: number): Value[] {
    return n === 0 ? [] : evenSplit(g, g.op('Reshape', [rows, g.ints(0, 0, n * P)]), n, P, kernels.mostSplitOutputs);
  }

  /** The state (1, S, A, D) after a layer, and its first stream (1, S, D). `row` is the layer's per-layer embedding. */
  function decoderLayer(layer: number, row: Value): { state: Value; active: Value } {
    const of = (name: string): string => `layers.${layer}.${name}`;

    // AltUp, predict: every stream from all of them, mixed by coefficients that the first stream chooses.
    const toPrediction = clipped(of('altup.prediction_coefs.weight'));
    const coefficients = timesTransposed(g, kernels, router(active), of('predict'), [A * A, A], toPrediction);
    const mixing = g.op('Reshape', [add(coefficients, g.floats('altup/identity', [A * A], identity(A))), g.ints(0, 0, A, A)]);
    const predicted = g.op('MatMul', [mixing, state]); // S_i + Σ_j c[i][j] · S_j
    const predictedFirst = first(predicted); // (1, S, D)

    // Attention and LAuReL, both on the normalised input.
    const normed = norm(predictedFirst, of('input_layernorm.weight'));
    const { output, side } = attention(layer, normed);
    const lowRank = weights.linear(g, side, of('laurel.linear_right.weight'));
    const laurel = add(normed, norm(lowRank, of('laurel.post_laurel_norm.weight')));
    const attended = add(predictedFirst, norm(output, of('post_attention_layernorm.weight')));
    // x = (attended + laurel) / √2. Its norm is that of the sum with twice the epsilon.
    const gamma = g.floats(of('pre_feedforward_layernorm.weight'), [D], weights.values(of('pre_feedforward_layernorm.weight')));
    const [inner, , , sum] = g.contribs('SkipSimplifiedLayerNormalization', [attended, laurel, gamma], 4, {
      epsilon: { float: 2 * config.rmsNormEps },
    }) as [Value, Value, Value, Value];
    const x = mul(sum, g.scalar(Math.SQRT1_2));

    const y = feedForward(layer, inner);
    const activated = add(x, norm(y, of('post_feedforward_layernorm.weight')));

    // AltUp, correct: the layer's news reaches every stream, each by its own share.
    const toCorrection = clipped(of('altup.correction_coefs.weight'));
    const shares = add(timesTransposed(g, kernels, router(activated), of('correct'), [A, A], toCorrection), g.scalar(1));
    const news = asStream(g.op('Sub', [activated, predictedFirst]));
    const corrected = add(predicted, mul(g.op('Unsqueeze', [shares, g.ints(3)]), news)); // (1, S, A, D)

    // PLE goes to the inactive streams only; the output scale shapes its gate and nothing else.
    const correctedFirst = first(corrected);
    const scaled = mul(correctedFirst, g.floats(of('altup.correct_output_scale'), [D], weights.values(of('altup.correct_output_scale'))));
    const gated = mul(gelu(weights.linear(g, scaled, of('per_layer_input_gate.weight'))), row);
    const injected = norm(weights.linear(g, gated, of('per_layer_projection.weight')), of('post_per_layer_input_norm.weight'));
    const toOthers = g.floats(
      'altup/inactive',
      [A, 1],
      Float32Array.from({ length: A }, (_, i) => (i === 0 ? 0 : 1)),
    );
    return { state: add(corrected, mul(asStream(injected), toOthers)), active: correctedFirst };

    function router(stream: Value): Value {
      // The router divides its normalised input by D; folded into the norm's weight.
      const scale = weights.values(of('altup.router_norm.weight')).map((w) => w / D);
      const input = rmsNorm(g, stream, of('altup.router_norm.weight'), scale, config.rmsNormEps);
      const name = of('altup.modality_router.weight');
      return g.op('Tanh', [timesTransposed(g, kernels, input, name, [A, D], weights.values(name))]);
    }
    function clipped(name: string): Float32Array {
      return weights.values(name).map((c) => Math.max(-config.altupCoefClip, Math.min(config.altupCoefClip, c)));
    }
  }

  /**
   * (1, S, D) -> attention's output (1, S, D), and LAuReL's way down (1, S, R), which takes the same input and shares its product. Logits are
   * not scaled: the q and k norms do that.
   */
  function attention(layer: number, x: Value): { output: Value; side: Value } {
    const of = (name: string): string => `layers.${layer}.self_attn.${name}`;
    const sliding = config.layerTypes[layer] === 'sliding_attention';
    const { cos, sin, length, last } = kinds[sliding ? 'sliding' : 'full'];
    const H = config.numAttentionHeads;
    const owns = kvSource(config, layer) === layer;
    const heads = owns ? H + 2 * K : H; // queries, keys, values

    const inputs = [...(owns ? ['q', 'k', 'v'] : ['q']).map((name) => of(`${name}_proj.weight`)), `layers.${layer}.laurel.linear_left.weight`];
    const [flat, side] = g.ops('Split', [weights.rows(g, x, inputs), g.ints(heads * d, config.laurelRank)], 2, { axis: -1 }) as [Value, Value];
    // Each head is normalised by itself; values have no weights of their own.
    const ones = new Float32Array(d).fill(1);
    const gammas = [
      ...repeat(weights.values(of('q_norm.weight')), H),
      ...(owns ? [...repeat(weights.values(of('k_norm.weight')), K), ...repeat(ones, K)] : []),
    ];
    const perHead = g.op('Reshape', [flat, g.ints(0, 0, heads, d)]);
    const scale = g.floats(of('head_norms'), [1, 1, heads, d], Float32Array.from(gammas.flatMap((gamma) => [...gamma])));
    const scaled = kernels.normByHead
      ? scaledNorm(g, perHead, scale, config.rmsNormEps)
      : mul(scaledNorm(g, perHead, g.floats(`ones/${d}`, [d], ones), config.rmsNormEps), scale);
    const normed = g.op('Reshape', [scaled, g.ints(0, 0, heads * d)]);
    const rotated = (y: Value, count: number): Value => g.op('RotaryEmbedding', [y, cos, sin], { num_heads: count });

    // Queries are the last positions of the keys. Window and causality follow from that.
    const masked = sliding && !owns && !kernels.windowOfShared;
    const attend = (query: Value, key: Value, value: Value, pastKey: Value, pastValue: Value): [Value, Value, Value] =>
      g.contribs('GroupQueryAttention', [query, key, value, pastKey, pastValue, last, length, ...(masked ? ['', '', '', windowMask()] : [])], 3, {
        num_heads: H,
        kv_num_heads: K,
        scale: { float: 1 },
        local_window_size: sliding && !masked ? config.slidingWindow : -1,
      }) as [Value, Value, Value];

    let attended: Value;
    if (owns) {
      const [turning, fixed] = g.ops('Split', [normed, g.ints((H + K) * d, K * d)], 2, { axis: -1 }) as [Value, Value];
      const [query, newKey] = g.ops('Split', [rotated(turning, H + K), g.ints(H * d, K * d)], 2, { axis: -1 }) as [Value, Value];
      const past = (kind: string): Value => g.input(`past.${layer}.${kind}`, 'float32', [1, K, `C${layer}`, d]);
      const [y, key, value] = attend(query, newKey, fixed, past('key'), past('value'));
      present.set(layer, { key, value });
      attended = y;
    } else {
      const query = rotated(normed, H);
      const donor = present.get(kvSource(config, layer))!;
      if (trace) seen.push(g.op('Shape', [query], { start: 1, end: 2 }));
      const none = g.floats('kv/none', [1, 0, K * d], new Float32Array(0));
      const [y, key, value] = attend(query, none, none, donor.key, donor.value);
      // They hold nothing new, but without them the CPU's kernel reads past its cache (ONNX Runtime 1.30.0).
      if (kernels.presentOfShared) present.set(layer, { key, value });
      attended = y;
    }
    return { output: weights.linear(g, attended, of('o_proj.weight')), side };
  }

  /** (1, S, D) -> (1, S, D): a sum over the slice's bands. */
  function feedForward(layer: number, x: Value): Value {
    const starts = [0, ...shape.bandEdges[layer]!.filter((edge) => edge < shape.widths[layer]!)];
    const bands = (name: string): string[] => starts.map((from) => bandName(`layers.${layer}.mlp.${name}_proj.weight`, from));
    const sparsity = config.activationSparsityPattern[layer]!;
    const F = shape.widths[layer]!;

    // Small bands are joined inside the graph; large ones stay mapped and are summed.
    if (['gate', 'up', 'down'].every((name) => weights.joinable(bands(name)))) {
      const both = weights.rows(g, x, [...bands('gate'), ...bands('up')]);
      const [gate, up] = g.ops('Split', [both, g.ints(F, F)], 2, { axis: -1 }) as [Value, Value];
      return weights.joinedColumns(g, mul(gelu(sparsity > 0 ? topGates(gate, F, sparsity) : gate), up), bands('down'));
    }
    let gates = bands('gate').map((name) => weights.linear(g, x, name));
    if (sparsity > 0) {
      // The cutoff is a property of all active channels together, whatever bands they lie in.
      const all = topGates(gates.length > 1 ? g.op('Concat', gates, { axis: -1 }) : gates[0]!, F, sparsity);
      const widths = starts.map((from, i) => (starts[i + 1] ?? F) - from);
      gates = gates.length > 1 ? g.ops('Split', [all, g.ints(...widths)], gates.length, { axis: -1 }) : [all];
    }
    const acts = bands('up').map((name, i) => mul(gelu(gates[i]!), weights.linear(g, x, name)));
    return weights.columns(g, acts, bands('down'));
  }

  /** max(u − (mean + z·std), 0) over F channels; population deviation, z the normal quantile of the sparsity. */
  function topGates(u: Value, F: number, sparsity: number): Value {
    const ones = g.floats(`ones/${F}`, [F], new Float32Array(F).fill(1));
    const cutoff = g.floats(`cutoff/${F}/${sparsity}`, [F], new Float32Array(F).fill(-normalQuantile(sparsity)));
    // (u − mean) / std − z in one operator, which also tells 1 / std.
    const [standard, , inverse] = g.ops('LayerNormalization', [u, ones, cutoff], 3, {
      axis: -1,
      epsilon: { float: 1e-12 },
      stash_type: 1,
    }) as [Value, Value, Value];
    return g.op('Div', [g.op('Relu', [standard]), inverse]);
  }
}

interface AttentionKind {
  /** (1, S, d / 2) */
  readonly cos: Value;
  readonly sin: Value;
  /** Keys that a query may see at most, int32 scalar. */
  readonly length: Value;
  /** Index of the last of them, int32 (1). */
  readonly last: Value;
}

function rmsNorm(g: GraphBuilder, x: Value, name: string, weight: Float32Array, epsilon: number): Value {
  return scaledNorm(g, x, g.floats(name, [weight.length], weight), epsilon);
}

/** x / rms(x) · scale over the last axis. */
const scaledNorm = (g: GraphBuilder, x: Value, scale: Value, epsilon: number): Value =>
  g.op('SimplifiedLayerNormalization', [x, scale], { axis: -1, epsilon: { float: epsilon }, stash_type: 1 });

const repeat = (values: Float32Array, times: number): Float32Array[] => Array.from({ length: times }, () => values);

/** sqrt(mean(x²)) of each position, (1, S, D) -> (1, S, 1). */
function rms(g: GraphBuilder, x: Value): Value {
  return g.op('Sqrt', [g.op('ReduceMean', [g.op('Mul', [x, x]), g.ints(-1)], { keepdims: 1 })]);
}

/** Gives x the magnitude `target`, with a floor of 1e-5 on x's own mean square. */
function rescale(g: GraphBuilder, x: Value, target: Value): Value {
  const square = g.op('ReduceMean', [g.op('Mul', [x, x]), g.ints(-1)], { keepdims: 1 });
  const own = g.op('Sqrt', [g.op('Max', [square, g.scalar(1e-5)])]);
  return g.op('Mul', [x, g.op('Div', [target, own])]);
}

/** cos and sin of position · theta^(−2j/d), (1, S, d / 2) each. */
function rotaryTables(g: GraphBuilder, positions: Value, theta: number, d: number): { cos: Value; sin: Value } {
  const frequencies = Float32Array.from({ length: d / 2 }, (_, j) => theta ** ((-2 * j) / d));
  const column = g.op('Unsqueeze', [g.op('Cast', [positions], { to: 1 }), g.ints(0, 2)]); // (1, S, 1)
  const angles = g.op('Mul', [column, g.floats(`rope/${theta}`, [d / 2], frequencies)]);
  return { cos: g.op('Cos', [angles]), sin: g.op('Sin', [angles]) };
}

const identity = (size: number): Float32Array => Float32Array.from({ length: size * size }, (_, i) => (i % (size + 1) === 0 ? 1 : 0));

/** Φ⁻¹(p) by bisection on the error function's series; exact to double precision where sparsities lie. */
export function normalQuantile(p: number): number {
  const cdf = (x: number): number => {
    let [term, sum] = [x, x];
    for (let k = 1; Math.abs(term) > 1e-17 * Math.abs(sum) && k < 500; k++) sum += term = (term * x * x) / (2 * k + 1);
    return 0.5 + (sum * Math.exp((-x * x) / 2)) / Math.sqrt(2 * Math.PI);
  };
  let [low, high] = [-8, 8];
  for (let i = 0; i < 100; i++) {
    const middle = (low + high) / 2;
    if (cdf(middle) < p) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
}
