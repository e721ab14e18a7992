// Small graphs of random weights, to time one way of computing something.
import { randomFillSync } from 'node:crypto';
import { GraphBuilder } from '../../libs/inference/dist/graph-builder.js';
import { createSession } from '../../libs/inference/dist/onnx.js';

/** A graph builder that makes up its own quantised matrices (N rows of K columns, values of about unit variance over a sum). */
export class RandomGraph extends GraphBuilder {
  bytes = 0;
  matrices = 0;

  codes(N, K, bits) {
    const values = randomFillSync(new Uint8Array((N * K * bits) / 8));
    this.bytes += values.length;
    return values;
  }

  scales(N, K, block, bits) {
    const count = N * Math.ceil(K / block);
    this.bytes += 4 * count;
    return new Float32Array(count).fill(1 / (2 ** (bits - 2) * Math.sqrt(K)));
  }

  /** x (…, K) -> (…, N). `level` is MatMulNBits' accuracy level: 4 rounds activations to int8, 1 does not. */
  product(x, N, K, { block = 128, bits = 4, level = 4 } = {}) {
    const name = `w${this.matrices++}`;
    const weight = this.bytesConstant(name, [N, Math.ceil(K / block), (block * bits) / 8], this.codes(N, K, bits));
    const scales = this.floats(`${name}.scales`, [N * Math.ceil(K / block)], this.scales(N, K, block, bits));
    return this.contrib('MatMulNBits', [x, weight, scales], { K, N, bits, block_size: block, accuracy_level: level });
  }

  /** Rows `indices` of a quantised matrix, as float32. */
  rowsOf(indices, N, K, block = 128) {
    const name = `w${this.matrices++}`;
    const weight = this.bytesConstant(name, [N, K / 2], this.codes(N, K, 4));
    const scales = this.floats(`${name}.scales`, [N, K / block], this.scales(N, K, block, 4));
    return this.contrib('GatherBlockQuantized', [weight, indices, scales], { bits: 4, block_size: block, gather_axis: 0, quantize_axis: 1 });
  }

  normed(x, width) {
    const ones = this.floats(`ones/${width}`, [width], new Float32Array(width).fill(1));
    return this.op('SimplifiedLayerNormalization', [x, ones], { axis: -1, epsilon: { float: 1e-6 }, stash_type: 1 });
  }
}

/** A session over what `build` writes, ready to be timed, or why ONNX Runtime cannot run it. */
export async function openWay(name, threads, feeds, build) {
  const g = new RandomGraph();
  build(g);
  const { bytes } = g;
  try {
    const session = await createSession(g.toBytes(), { threads });
    await session.run(feeds);
    return { name, bytes, ms: [], once: () => session.run(feeds), close: () => session.close() };
  } catch (error) {
    return { name, bytes, ms: [], failed: error.message.split('\n')[0].slice(0, 120) };
  }
}

/** Times all of them in turn, so that a neighbour's noise meets every one; then closes them. */
export async function timeInTurn(ways, repeats) {
  for (let repeat = 0; repeat < repeats; repeat++)
    for (const way of ways) {
      if (way.failed) continue;
      const started = performance.now();
      await way.once();
      way.ms.push(performance.now() - started);
    }
  for (const way of ways) await way.close?.();
}
