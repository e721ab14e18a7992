import type { ArtifactServiceClient } from '@matfleet/protocol';
import { checkDiskRoom } from './disk-room.js';
import { fetchChunk, RetryBudget, type FetchOptions } from './fetch.js';

export interface Delivery extends Omit<FetchOptions, 'budget'> {
  /** What is to come, for messages: "slice e2b". */
  readonly what: string;
  readonly directory: string;
  readonly pathOf: (chunkId: string) => string;
  /** Chunks at a time. */
  readonly parallel?: number;
  /** Failed attempts of all chunks together. */
  readonly retryBudget?: number;
}

const PARALLEL = 4;

/**
 * Fetches chunks, several at a time; resolves when all are here and verified. Checks for room first. Rejects with the first failure after every
 * other download has come to rest: no file is open any more, and what was fetched stays for the next delivery, of whatever slice.
 */
export async function deliver(
  client: ArtifactServiceClient,
  wanted: readonly { readonly id: string; readonly bytes: number }[],
  { what, directory, pathOf, parallel = PARALLEL, retryBudget = 16 + wanted.length, ...options }: Delivery,
): Promise<void> {
  // Two parts with the same bytes are one chunk.
  const chunks = [...new Map(wanted.map((chunk) => [chunk.id, chunk])).values()];
  await checkDiskRoom(
    directory,
    chunks.reduce((sum, { bytes }) => sum + bytes, 0),
    what,
  );
  const failed = new AbortController();
  const signal = AbortSignal.any([options.signal, failed.signal]);
  const budget = new RetryBudget(retryBudget);
  let next = 0;
  const worker = async (): Promise<void> => {
    while (next < chunks.length && !signal.aborted) {
      const chunk = chunks[next++]!;
      await fetchChunk(client, chunk, pathOf(chunk.id), { ...options, budget, signal });
    }
    options.signal.throwIfAborted();
  };
  const running = Array.from({ length: Math.min(parallel, chunks.length) }, () =>
    worker().catch((error: unknown) => {
      failed.abort(error);
      throw error;
    }),
  );
  await Promise.allSettled(running);
  options.signal.throwIfAborted();
  if (failed.signal.aborted) throw failed.signal.reason;
}
