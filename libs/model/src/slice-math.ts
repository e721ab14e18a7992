import { firstSharedLayer, kvSource, type ModelConfig } from './model-config.js';
import type { Slice } from './slice.js';

type Shape = Pick<Slice, 'ffn' | 'skip'>;

/** FFN width per *original* layer; 0 where the slice skips the layer. */
export function sliceWidths(config: Pick<ModelConfig, 'numHiddenLayers'>, slice: Shape): number[] {
  const layers = config.numHiddenLayers;
  const skipped = new Set(slice.skip);
  for (const layer of skipped) if (layer >= layers) throw new Error(`skipped layer ${layer} does not exist: the model has ${layers} layers`);
  const kept = layers - skipped.size;
  if (slice.ffn.length !== kept)
    throw new Error(`${slice.ffn.length} FFN widths for ${kept} kept layers (${layers} layers, ${skipped.size} skipped)`);
  let next = 0;
  return Array.from({ length: layers }, (_, layer) => (skipped.has(layer) ? 0 : slice.ffn[next++]!));
}

/** Layers whose K/V other layers read. No slice may skip them. */
export function kvDonors(config: ModelConfig): number[] {
  const donors = new Set<number>();
  for (let layer = firstSharedLayer(config); layer < config.numHiddenLayers; layer++) donors.add(kvSource(config, layer));
  return [...donors].sort((a, b) => a - b);
}

/**
 * Throws unless `slice` can be cut from the model: every skipped layer may go, every width ends on a band.
 * `bandEdges[l]` are the widths at which layer l can be cut, ascending.
 */
export function validateSlice(config: ModelConfig, slice: Shape, bandEdges: readonly (readonly number[])[]): void {
  const widths = sliceWidths(config, slice);
  for (const donor of kvDonors(config))
    if (widths[donor] === 0) {
      const readers = Array.from({ length: config.numKvSharedLayers }, (_, i) => firstSharedLayer(config) + i).filter(
        (l) => kvSource(config, l) === donor,
      );
      throw new Error(`layer ${donor} cannot be skipped: layers ${readers.join(', ')} read its K/V`);
    }
  widths.forEach((width, layer) => {
    const edges = bandEdges[layer] ?? [];
    if (width > 0 && !edges.includes(width)) throw new Error(`FFN width ${width} of layer ${layer} is not on a band edge: ${edges.join(', ')}`);
  });
}

/** Whether everything that slice `a` computes with is also part of slice `b` of the same model: a device with b's chunks can run a. */
export function nests(a: Shape, b: Shape): boolean {
  const layers = a.ffn.length + a.skip.length;
  if (layers !== b.ffn.length + b.skip.length) throw new Error(`slices of different models: ${layers} and ${b.ffn.length + b.skip.length} layers`);
  const [wa, wb] = [sliceWidths({ numHiddenLayers: layers }, a), sliceWidths({ numHiddenLayers: layers }, b)];
  return wa.every((width, layer) => width <= wb[layer]!);
}

/** The whole model as a slice. */
export const fullSlice = (config: Pick<ModelConfig, 'intermediateSize'>): Slice => ({
  id: 'full',
  name: 'Full model',
  ffn: [...config.intermediateSize],
  skip: [],
});

/** Widths at which each layer is cut, ascending: any width of the table at any layer, so that slices outside the table can be mixed too. */
export function bandEdgesOf(config: ModelConfig, slices: readonly Shape[]): number[][] {
  const edges = new Set<number>();
  for (const slice of slices)
    sliceWidths(config, slice).forEach((width, layer) => {
      const full = config.intermediateSize[layer]!;
      if (width > full) throw new Error(`FFN width ${width} of layer ${layer} exceeds the model's ${full}`);
      if (width > 0) edges.add(width);
    });
  return config.intermediateSize.map((full) => [...new Set([...edges, full])].filter((width) => width <= full).sort((a, b) => a - b));
}

/** Layers grouped by the slices that skip them, so that a slice without some layers does not carry their embedding columns. */
export function planesOf(config: Pick<ModelConfig, 'numHiddenLayers'>, slices: readonly Shape[]): number[][] {
  const planes = new Map<string, number[]>();
  for (let layer = 0; layer < config.numHiddenLayers; layer++) {
    const signature = slices.map((slice) => (slice.skip.includes(layer) ? '1' : '0')).join('');
    planes.set(signature, [...(planes.get(signature) ?? []), layer]);
  }
  return [...planes.values()];
}
