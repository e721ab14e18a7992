import { join } from 'node:path';
import { describe, expect, it } from '@jest/globals';
import { Decoder } from './decoder.js';
import { GraphBuilder } from './graph-builder.js';
import { importCheckpoint } from './import.js';
import { createSession, float32, floatsOf, UNREADABLE, type Session } from './onnx.js';
import { makeFolder, tinyCheckpoint } from './testing-fixture.js';

describe('a session that writes into bound tensors', () => {
  async function doubling(unreadable = true): Promise<Session> {
    const g = new GraphBuilder();
    if (unreadable) g.emptySequence(UNREADABLE);
    const x = g.input('x', 'float32', [3]);
    g.output('y', g.op('Add', [x, x]), 'float32', [3]);
    return createSession(g.toBytes(), { threads: 1 });
  }
  const input = { x: float32(Float32Array.of(1, 2, 3), [3]) };

  it('leaves the results there', async () => {
    const session = await doubling();
    const y = float32(new Float32Array(3), [3]);
    await session.runInto(input, { y });
    expect([...floatsOf(y)]).toEqual([2, 4, 6]);
    await session.close();
  });

  it('names an output that is bound to nothing', async () => {
    const [session, readable] = [await doubling(), await doubling(false)];
    await expect(session.runInto(input, {})).rejects.toThrow('output y is bound to no tensor');
    await expect(readable.runInto(input, { y: float32(new Float32Array(3), [3]) })).rejects.toThrow('output y is bound to no tensor');
    await Promise.all([session.close(), readable.close()]);
  });

  it('fails where the pass fails', async () => {
    const session = await doubling();
    await expect(session.runInto({ x: float32(new Float32Array(4), [4]) }, { y: float32(new Float32Array(3), [3]) })).rejects.toThrow('x');
    await expect(session.runInto(input, { y: float32(new Float32Array(2), [2]) })).rejects.toThrow();
    await session.close();
  });
});

describe('a pass over one token', () => {
  it('makes no copy of the cache', async () => {
    const { dir, remove } = await makeFolder();
    try {
      const out = join(dir, 'package');
      const manifest = await importCheckpoint({ source: tinyCheckpoint, out, precision: 'fp32', golden: false });
      const decoder = await Decoder.open(manifest, out, manifest.slices[0]!);
      const cache = decoder.newCache(20_000, 8);
      await decoder.forward([2, 5], cache);
      const before = process.memoryUsage().arrayBuffers;
      await decoder.forward([6], cache);
      expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(cache.bytes / 20);
      await decoder.close();
    } finally {
      await remove();
    }
  });
});
