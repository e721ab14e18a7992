// Ways of computing the same, at E2B's sizes.
import { float32 } from '../../libs/inference/dist/onnx.js';
import { openWay, timeInTurn } from './random-graph.mjs';

const [D, F, V] = [2048, 8192, 262_400];
/** Layers of each graph: their weights exceed the caches. */
const LAYERS = 10;
const ACTIVE = Math.round(0.05 * F);
const CANDIDATES = 256;
const RANK = 256;

/** Groups of ways with their times. */
export async function timeWays(threads, repeats) {
  const groups = [];
  for (const [title, feeds, ways] of [...products(), gateAndUp(), sparse(), head()]) {
    console.error(title);
    const opened = [];
    for (const [name, build] of ways) opened.push(await openWay(name, threads, feeds, build));
    await timeInTurn(opened, repeats);
    groups.push({ title, ways: opened.map(({ name, bytes, ms, failed }) => ({ name, bytes, ms, failed })) });
  }
  return groups;
}

const vector = (width) =>
  float32(
    Float32Array.from({ length: width }, (_, i) => Math.sin(i * 1.7)),
    [1, 1, width],
  );
const layers = (g, x, layer) => {
  for (let i = 0; i < LAYERS; i++) x = layer(g.normed(x, D), i);
  g.output('y', x, 'float32', [1, 1, D]);
};

/** Block size, bits and accuracy level of a product. */
function products() {
  const way = (options) => (g) => layers(g, g.input('x', 'float32', [1, 1, D]), (x) => g.product(g.product(x, F, D, options), D, F, options));
  return [
    [
      `${LAYERS} × up and down`,
      { x: vector(D) },
      [
        ['int4, block 128, int8 activations', way({})],
        ['block 32', way({ block: 32 })],
        ['block 64', way({ block: 64 })],
        ['block 256', way({ block: 256 })],
        ['block 128, float32 activations', way({ level: 1 })],
        ['8 bits, block 128', way({ bits: 8 })],
        ['2 bits, block 128', way({ bits: 2 })],
      ],
    ],
  ];
}

function gateAndUp() {
  const rest = (g, gate, up) => g.product(g.op('Mul', [g.op('Gelu', [gate], { approximate: 'tanh' }), up]), D, F);
  return [
    `${LAYERS} FFNs, gate and up`,
    { x: vector(D) },
    [
      ['two products', (g) => layers(g, g.input('x', 'float32', [1, 1, D]), (x) => rest(g, g.product(x, F, D), g.product(x, F, D)))],
      [
        'joined to one, its result split',
        (g) =>
          layers(g, g.input('x', 'float32', [1, 1, D]), (x) => {
            const [gate, up] = g.ops('Split', [g.product(x, 2 * F, D), g.ints(F, F)], 2, { axis: -1 });
            return rest(g, gate, up);
          }),
      ],
    ],
  ];
}

/** Up and down where 5 % of the gates are not zero. The gates come from outside: both ways need all of them. */
function sparse() {
  const gates = new Float32Array(F);
  for (let i = 0; i < ACTIVE; i++) gates[Math.floor((i * F) / ACTIVE)] = 1;
  const inputs = (g) => [g.input('x', 'float32', [1, 1, D]), g.input('gates', 'float32', [1, 1, F])];
  return [
    `${LAYERS} × up and down, 5 % of ${F} gates open`,
    { x: vector(D), gates: float32(gates, [1, 1, F]) },
    [
      [
        'dense',
        (g) => {
          const [x, open] = inputs(g);
          layers(g, x, (y) => g.product(g.op('Mul', [open, g.product(y, F, D)]), D, F));
        },
      ],
      [
        'open rows alone: NonZero, GatherBlockQuantized, float32 products',
        (g) => {
          const [x, open] = inputs(g);
          const flat = g.op('Reshape', [open, g.ints(-1)]);
          layers(g, x, (y) => {
            const indices = g.op('Reshape', [g.op('NonZero', [flat]), g.ints(-1)]); // (n)
            const up = g.contrib('FusedMatMul', [y, g.rowsOf(indices, F, D)], { transB: 1 }); // (1, 1, n)
            return g.op('MatMul', [g.op('Mul', [g.op('Gather', [flat, indices]), up]), g.rowsOf(indices, F, D)]); // down lies input-major
          });
        },
      ],
    ],
  ];
}

/** Logits of the whole vocabulary, or a coarse scan whose best candidates are scored exactly. */
function head() {
  const rescore = (g, x, coarse) => {
    const [, ids] = g.ops('TopK', [g.op('Reshape', [coarse, g.ints(-1)]), g.ints(CANDIDATES)], 2, { axis: -1 });
    g.output('y', g.contrib('FusedMatMul', [x, g.rowsOf(ids, V, D)], { transB: 1 }), 'float32', [1, 1, CANDIDATES]);
  };
  return [
    `head, ${V} × ${D}`,
    { x: vector(D) },
    [
      ['one product over all', (g) => g.output('y', g.product(g.input('x', 'float32', [1, 1, D]), V, D), 'float32', [1, 1, V])],
      [
        `rank ${RANK} first, ${CANDIDATES} candidates exactly`,
        (g) => {
          const x = g.input('x', 'float32', [1, 1, D]);
          rescore(g, x, g.product(g.product(x, RANK, D), V, RANK));
        },
      ],
      [
        `2 bits first, ${CANDIDATES} candidates exactly`,
        (g) => {
          const x = g.input('x', 'float32', [1, 1, D]);
          rescore(g, x, g.product(x, V, D, { bits: 2 }));
        },
      ],
    ],
  ];
}
