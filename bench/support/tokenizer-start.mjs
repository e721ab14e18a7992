// One start of the tokenizer in a process of its own, as an engine's first lines do it. Takes the file's path, prints one JSON document.
import { readFile } from 'node:fs/promises';
import { loadTokenizer } from '@matfleet/inference';
import { memoryOf } from './memory.mjs';

const before = await memoryOf();
const started = performance.now();
const tokenizer = loadTokenizer(await readFile(process.argv[2]));
const ms = performance.now() - started;
const { peakRssBytes } = await memoryOf();
globalThis.gc();
const { rssBytes, privateBytes } = await memoryOf();
const bytes = (after, name) => after - before[name];
process.stdout.write(
  JSON.stringify({
    ms,
    keptBytes: bytes(privateBytes, 'privateBytes'),
    peakBytes: bytes(peakRssBytes, 'rssBytes'),
    rssBytes,
    ids: tokenizer.vocabSize,
  }),
);
