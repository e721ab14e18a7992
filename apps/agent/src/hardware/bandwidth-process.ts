// A short-lived process: searches a large buffer for a byte that is not in it, which reads memory as fast as one core can, and prints the best rate.
import { freemem } from 'node:os';
import { performance } from 'node:perf_hooks';

const MIB = 2 ** 20;
const BUDGET_MS = 250;

// Larger than the caches, yet small beside the memory of a small box.
const bytes = Math.max(16 * MIB, Math.min(128 * MIB, Math.floor(freemem() / 8 / MIB) * MIB));
const buffer = Buffer.alloc(bytes, 1);
const until = performance.now() + BUDGET_MS;
let best = 0;
do {
  const from = performance.now();
  if (buffer.indexOf(2) !== -1) throw new Error('the buffer changed under the measurement');
  best = Math.max(best, bytes / ((performance.now() - from) / 1_000));
} while (performance.now() < until);
process.stdout.write(String(Math.round(best)));
