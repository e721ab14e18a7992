import { createHash } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { Metadata, status, type ServiceError } from '@grpc/grpc-js';
import type { ArtifactServiceClient, GetManifestResponse } from '@matfleet/protocol';
import { DiskFull } from './disk-room.js';
import { Pace } from './pace.js';
import { DamagedChunk, PartialChunk } from './partial-chunk.js';

export interface FetchOptions {
  /** Without a byte for this long an attempt ends. */
  readonly stallMs?: number;
  /** Attempts in a row that bring no byte. */
  readonly retries?: number;
  /** Shared by the chunks of one delivery: failed attempts of all of them together, also of those that brought bytes. */
  readonly budget?: RetryBudget;
  readonly pace?: Pace;
  readonly onBytes?: (bytes: number) => void;
  readonly signal: AbortSignal;
}

/** Bounds what a bad network may cost: each failed attempt of any chunk takes one. */
export class RetryBudget {
  constructor(private left: number) {}

  /** False when nothing is left. */
  take(): boolean {
    return this.left-- > 0;
  }
}

export function fetchManifest(client: ArtifactServiceClient, modelVersionId: string, timeoutMs = 30_000): Promise<Buffer> {
  return new Promise((resolve, reject) =>
    client.getManifest(
      { modelVersionId },
      new Metadata(),
      { deadline: Date.now() + timeoutMs },
      (error: ServiceError | null, response: GetManifestResponse) => {
        if (error) return reject(new Error(`manifest ${modelVersionId}: ${error.details || error.message}`, { cause: error }));
        const manifest = Buffer.from(response.manifest);
        const found = createHash('sha256').update(manifest).digest('hex');
        if (found !== modelVersionId) return reject(new Error(`manifest ${modelVersionId}: the bytes received have SHA-256 ${found}`));
        return resolve(manifest);
      },
    ),
  );
}

/** Ends a stream because quiet hours began: no failure. */
class QuietHours extends Error {}

/**
 * Brings one chunk to `path`, going on from what an earlier attempt left: the name is the content, so what is there can only be the same chunk or
 * damaged, and the hash over all of it tells. The file appears under its name only after its size and SHA-256 were right. Rejects at once on an
 * answer that will not change and on a full disk, else when `retries` attempts in a row brought nothing or the budget is spent.
 */
export async function fetchChunk(
  client: ArtifactServiceClient,
  chunk: { readonly id: string; readonly bytes: number },
  path: string,
  options: FetchOptions,
): Promise<void> {
  const { retries = 4, budget, pace = new Pace(), signal } = options;
  const partial = await PartialChunk.open(chunk, path);
  try {
    for (let barren = 0; !partial.complete;) {
      await pace.outsideQuietHours(signal);
      const before = partial.heldBytes;
      try {
        await append(client, chunk, partial, pace, options);
        barren = 0;
      } catch (cause) {
        signal.throwIfAborted();
        if (cause instanceof QuietHours) continue;
        barren = partial.heldBytes > before ? 0 : barren + 1;
        const last = barren > retries || terminal(cause) || budget?.take() === false;
        if (last)
          throw cause instanceof DiskFull
            ? cause
            : new Error(`chunk ${chunk.id} at byte ${partial.heldBytes} of ${chunk.bytes}: ${(cause as Error).message}`, { cause });
        await delay(200 * 2 ** barren, undefined, { signal });
      }
    }
    await partial.finish();
  } finally {
    await partial.close();
  }
}

async function append(
  client: ArtifactServiceClient,
  chunk: { readonly id: string; readonly bytes: number },
  partial: PartialChunk,
  pace: Pace,
  { stallMs = 20_000, onBytes, signal }: FetchOptions,
): Promise<void> {
  const call = client.fetchChunk({ chunkId: chunk.id, offset: BigInt(partial.heldBytes), length: 0n });
  // The iterator reports errors only while it is read; one that comes before or after must not end the process.
  call.on('error', () => undefined);
  let stalled = false;
  const stall = (): void => {
    stalled = true;
    call.cancel();
  };
  const abort = (): void => call.cancel();
  if (signal.aborted) abort();
  else signal.addEventListener('abort', abort, { once: true });
  let timer = setTimeout(stall, stallMs);
  try {
    for await (const { data } of call as AsyncIterable<{ data: Uint8Array }>) {
      // Only the network's silence counts, not the time that the disk and the limit take.
      clearTimeout(timer);
      signal.throwIfAborted();
      await partial.append(data);
      onBytes?.(data.length);
      await pace.spend(data.length, signal);
      if (!partial.complete && pace.quietMs() > 0) throw new QuietHours();
      timer = setTimeout(stall, stallMs);
    }
    if (!partial.complete) throw new Error(`the stream ended at byte ${partial.heldBytes}`);
  } catch (error) {
    throw stalled ? new Error(`no byte came for ${stallMs} ms`, { cause: error }) : error;
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', abort);
    call.cancel();
  }
}

/** What another attempt would end the same way. */
const TERMINAL: readonly number[] = [
  status.NOT_FOUND,
  status.PERMISSION_DENIED,
  status.UNAUTHENTICATED,
  status.INVALID_ARGUMENT,
  status.OUT_OF_RANGE,
  status.UNIMPLEMENTED,
];
const terminal = (error: unknown): boolean =>
  error instanceof DiskFull ||
  error instanceof DamagedChunk ||
  TERMINAL.includes((error as ServiceError).code) ||
  typeof (error as NodeJS.ErrnoException).syscall === 'string';
