// A short-lived process: packs a slice's weights for this processor. It takes seconds and memory, and it may die; the
// agent goes on without. Its task is one JSON document on stdin, its result one on stdout, its error plain text on stderr.
import { readFileSync } from 'node:fs';
import { text } from 'node:stream/consumers';
import { prepare, sweepPrepared } from '@matfleet/inference';
import { Manifest, sliceById } from '@matfleet/model';
import type { PrepareTask } from './prepare-slice.js';

const { storeDir, slices, threads, compareLogits = false } = JSON.parse(await text(process.stdin)) as PrepareTask;
try {
  const read = slices.map(({ manifestPath, sliceId }) => {
    const manifest = Manifest.parse(JSON.parse(readFileSync(manifestPath, 'utf8')));
    return { manifest, sliceId, slice: sliceById(manifest, sliceId) };
  });
  await sweepPrepared(storeDir, read);
  const [{ manifest, sliceId }] = read as [(typeof read)[number]];
  process.stdout.write(JSON.stringify(await prepare({ manifest, storeDir, sliceId, compareLogits, ...(threads !== undefined && { threads }) })));
} catch (error) {
  process.stderr.write(error instanceof Error ? error.message : String(error));
  process.exitCode = 1;
}
