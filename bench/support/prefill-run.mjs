// Prompts in passes of one size, in a process of its own (Linux). Takes one JSON document as its argument, prints one on stdout.
import { writeFile } from 'node:fs/promises';
import { readManifest } from '@matfleet/inference';
import { sliceById } from '@matfleet/model';
import { Decoder } from '../../libs/inference/dist/decoder.js';
import { readPrepared } from '../../libs/inference/dist/prepared.js';
import { memoryOf } from './memory.mjs';

const { dir, sliceId, chunkTokens, prompt, contextTokens, threads } = JSON.parse(process.argv[2]);
const manifest = await readManifest(dir);
const slice = sliceById(manifest, sliceId);
const prepared = await readPrepared(manifest, dir, slice);
const decoder = await Decoder.open(manifest, dir, slice, { threads, ...(prepared && { prepared }) });
const cache = decoder.newCache(contextTokens, Math.max(chunkTokens, 32));
const ids = Array.from({ length: prompt }, (_, i) => 3 + ((i * 7919) % (manifest.config.vocabSizePerLayerInput - 3)));

// Every weight is in memory and every buffer of the cache was touched once before anything is measured.
await decoder.forward(ids.slice(0, 32), cache);
cache.reset();
await writeFile('/proc/self/clear_refs', '5'); // the peak starts anew
const before = await memoryOf();
const passes = [];
const started = performance.now();
for (let at = 0; at < ids.length; at += chunkTokens) {
  const from = performance.now();
  await decoder.forward(ids.slice(at, at + chunkTokens), cache);
  passes.push(performance.now() - from);
}
const ms = performance.now() - started;
const after = await memoryOf();
await decoder.close();
process.stdout.write(JSON.stringify({ ms, longestPassMs: Math.max(...passes), transientBytes: after.peakRssBytes - before.rssBytes }));
