import { fromBinary } from '@bufbuild/protobuf';
import { describe, expect, it } from '@jest/globals';
import { ModelProtoSchema } from 'onnx-buf';
import { evenSplit } from './even-split.js';
import { GraphBuilder } from './graph-builder.js';
import { createSession, float32, floatsOf } from './onnx.js';

const WIDTH = 3;

describe('a split into equal pieces', () => {
  it.each([
    [1, 7],
    [7, 7],
    [8, 7],
    [15, 7],
    [30, 7],
    [60, 7],
    [30, Infinity],
  ])('gives %i pieces in their order, no operator more than %d', async (n, most) => {
    const g = new GraphBuilder();
    const pieces = evenSplit(g, g.input('x', 'float32', [1, 'S', n * WIDTH]), n, WIDTH, most);
    for (const [i, piece] of pieces.entries()) g.output(`y${i}`, piece, 'float32', [1, 'S', WIDTH]);
    const { graph } = fromBinary(ModelProtoSchema, g.toBytes());
    for (const { opType, output } of graph!.node) if (opType === 'Split') expect(output.length).toBeLessThanOrEqual(most);

    const session = await createSession(g.toBytes(), { threads: 1 });
    const x = Float32Array.from({ length: 2 * n * WIDTH }, (_, i) => i);
    const outputs = await session.run({ x: float32(x, [1, 2, n * WIDTH]) });
    await session.close();
    for (let i = 0; i < n; i++) {
      const rows = [0, 1].flatMap((row) => [0, 1, 2].map((at) => (row * n + i) * WIDTH + at));
      expect([...floatsOf(outputs[`y${i}`]!)]).toEqual(rows);
    }
  });
});
