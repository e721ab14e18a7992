// A short-lived process: packs a slice's weights for this processor. It may take seconds and as much memory as the weights, and it may die; the
// agent goes on without. Its argument is one JSON document, its result one JSON document on stdout, its error plain text on stderr.
import { readFileSync } from 'node:fs';
import { prepare, sweepPrepared } from '@matfleet/inference';
import { Manifest, sliceById } from '@matfleet/model';
import type { PrepareTask } from './prepare-slice.js';

const { storeDir, slices, threads } = JSON.parse(process.argv[2]!) as PrepareTask;
try {
  const read = slices.map(({ manifestPath, sliceId }) => {
    const manifest = Manifest.parse(JSON.parse(readFileSync(manifestPath, 'utf8')));
    return { manifest, sliceId, slice: sliceById(manifest, sliceId) };
  });
  await sweepPrepared(storeDir, read);
  const [{ manifest, sliceId }] = read as [(typeof read)[number]];
  process.stdout.write(JSON.stringify(await prepare({ manifest, storeDir, sliceId, ...(threads !== undefined && { threads }) })));
} catch (error) {
  process.stderr.write(error instanceof Error ? error.message : String(error));
  process.exitCode = 1;
}
