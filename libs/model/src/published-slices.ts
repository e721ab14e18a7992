import type { ModelConfig } from './model-config.js';
import { sliceWidths } from './slice-math.js';
import type { Slice } from './slice.js';

// Google's slicing configurations of Gemma 3n E4B (google/gemma3n-slicing-configs), with its MMLU scores and effective parameters.
// Kept as published: the last row is named E3.79B but counts 3.74 B, and two rows are E2.98B with the same score.
const ROWS: [id: string, name: string, billions: number, mmlu: number, ffn: [width: number, layers: number][], skip?: number[]][] = [
  ['e4b', 'Main model', 3.98, 62.3, [[16384, 35]]],
  ['e2b', 'Config for official E2B Model', 1.91, 50.9, [[8192, 30]], [20, 21, 22, 23, 24]],
  [
    'e1.96b-layer',
    'Config for E1.96B (layer-level)',
    1.96,
    53.4,
    [
      [8192, 4],
      [16384, 1],
      [8192, 25],
    ],
    [20, 21, 22, 23, 24],
  ],
  [
    'e2.54b-layer',
    'Config for E2.54B (layer-level)',
    2.54,
    55.4,
    [
      [8192, 4],
      [16384, 1],
      [8192, 15],
      [16384, 5],
      [8192, 10],
    ],
  ],
  [
    'e2.69b-layer',
    'Config for E2.69B (layer-level)',
    2.69,
    57.7,
    [
      [8192, 4],
      [16384, 1],
      [8192, 4],
      [16384, 1],
      [8192, 4],
      [16384, 1],
      [8192, 4],
      [16384, 6],
      [8192, 10],
    ],
  ],
  [
    'e2.98b-layer',
    'Config for E2.98B (layer-level)',
    2.98,
    59.5,
    [
      [8192, 15],
      [16384, 10],
      [8192, 5],
      [16384, 5],
    ],
  ],
  [
    'e3.18b-layer',
    'Config for E3.18B (layer-level)',
    3.18,
    61.8,
    [
      [8192, 4],
      [16384, 1],
      [8192, 4],
      [16384, 16],
      [8192, 4],
      [16384, 1],
      [8192, 4],
      [16384, 1],
    ],
  ],
  [
    'e3.39b-layer',
    'Config for E3.39B (layer-level)',
    3.39,
    63.0,
    [
      [8192, 4],
      [16384, 1],
      [8192, 4],
      [16384, 21],
      [8192, 4],
      [16384, 1],
    ],
  ],
  [
    'e3.59b-layer',
    'Config for E3.59B (layer-level)',
    3.59,
    63.4,
    [
      [8192, 4],
      [16384, 26],
      [8192, 4],
      [16384, 1],
    ],
  ],
  [
    'e3.79b-layer',
    'Config for E3.79B (layer-level)',
    3.79,
    63.4,
    [
      [8192, 4],
      [16384, 31],
    ],
  ],
  [
    'e2.49b-block',
    'Config for E2.49B (block-level)',
    2.49,
    54.5,
    [
      [8192, 20],
      [16384, 5],
      [8192, 10],
    ],
  ],
  [
    'e2.73b-block',
    'Config for E2.73B (block-level)',
    2.73,
    57.1,
    [
      [8192, 15],
      [16384, 10],
      [8192, 10],
    ],
  ],
  [
    'e2.98b-block',
    'Config for E2.98B (block-level)',
    2.98,
    59.5,
    [
      [8192, 10],
      [16384, 15],
      [8192, 10],
    ],
  ],
  [
    'e3.24b-block',
    'Config for E3.24B (block-level)',
    3.24,
    60.7,
    [
      [8192, 10],
      [16384, 20],
      [8192, 5],
    ],
  ],
  [
    'e3.49b-block',
    'Config for E3.49B (block-level)',
    3.49,
    61.4,
    [
      [8192, 5],
      [16384, 25],
      [8192, 5],
    ],
  ],
  [
    'e3.79b-block',
    'Config for E3.79B (block-level)',
    3.74,
    62.0,
    [
      [8192, 5],
      [16384, 30],
    ],
  ],
];

/** The published table, in its own order; quality is MMLU of the pre-trained model, its sample size unknown. */
export const publishedSlices: readonly Slice[] = ROWS.map(([id, name, , mmlu, ffn, skip]) => ({
  id,
  name,
  ffn: ffn.flatMap(([width, layers]) => Array<number>(layers).fill(width)),
  skip: skip ?? [],
  quality: { value: Math.round(mmlu * 10) / 1000, samples: 0, stderr: 0 },
}));

const CHAIN = ['e2b', 'e1.96b-layer', 'e2.54b-layer', 'e2.69b-layer', 'e3.18b-layer', 'e3.39b-layer', 'e3.59b-layer', 'e4b'];

/** Rows of the table of which each lies within the next: a device may climb it, fetching only what is new, and come down fetching nothing. */
export const publishedChain: readonly Slice[] = CHAIN.map((id) => publishedSlices.find((slice) => slice.id === id)!);

/** Effective parameters in billions as published, by slice id. */
export const publishedBillions: ReadonlyMap<string, number> = new Map(ROWS.map(([id, , billions]) => [id, billions]));

/** Text-model parameters without the embedding tables, by Google's count: K/V of sharing layers included. */
export function effectiveParameters(config: ModelConfig, slice: Pick<Slice, 'ffn' | 'skip'>): number {
  const { hiddenSize: D, hiddenSizePerLayerInput: P, headDim: d, laurelRank: R, altupNumInputs: A } = config;
  const [q, kv] = [config.numAttentionHeads * d, config.numKeyValueHeads * d];
  const attention = 2 * q * D + 2 * kv * D + 2 * d;
  const altup = A ** 3 + A ** 2 + A * D + 2 * D;
  const perLayer = attention + 5 * D + 2 * R * D + D + altup + 2 * P * D + P * D;
  const widths = sliceWidths(config, slice);
  return widths.reduce((sum, width) => sum + (width > 0 ? perLayer + 3 * D * width : 0), 0) + 2 * (A - 1) * D * D + P + D;
}

/** The published slices of a model of Google's shape (E4B, or E2B, which is one row of E4B's table); nothing for other shapes. */
export function publishedSlicesFor(config: ModelConfig): Slice[] {
  const uniform = (width: number) => config.intermediateSize.every((w) => w === width);
  if (config.hiddenSize !== 2048) return [];
  if (config.numHiddenLayers === 35 && config.numKvSharedLayers === 15 && uniform(16384)) return [...publishedSlices];
  if (config.numHiddenLayers === 30 && config.numKvSharedLayers === 10 && uniform(8192)) return [{ ...publishedSlices[1]!, skip: [] }];
  return [];
}
