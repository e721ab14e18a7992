import { createHash, type Hash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, open, rename, rm, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { Metadata, status, type ServiceError } from '@grpc/grpc-js';
import type { ArtifactServiceClient, GetManifestResponse } from '@matfleet/protocol';
import { syncDirectory } from './state-file.js';

export interface FetchOptions {
  /** Without a byte for this long an attempt ends. */
  readonly stallMs?: number;
  /** Attempts in a row that bring no byte. */
  readonly retries?: number;
  readonly onBytes?: (bytes: number) => void;
  readonly signal: AbortSignal;
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

/**
 * Brings one chunk to `path`, resuming `<path>.part`. The file appears under its name only after its size and SHA-256 were right; bytes with another
 * hash are deleted. Rejects when `retries` attempts in a row brought nothing.
 */
export async function fetchChunk(
  client: ArtifactServiceClient,
  chunk: { readonly id: string; readonly bytes: number },
  path: string,
  options: FetchOptions,
): Promise<void> {
  const { retries = 4, signal } = options;
  const part = `${path}.part`;
  await mkdir(dirname(path), { recursive: true });
  let barren = 0;
  for (;;) {
    const held = await partialHash(part, chunk.bytes);
    if (held.size === chunk.bytes) {
      const found = held.hash.digest('hex');
      if (found !== chunk.id) {
        await rm(part, { force: true });
        throw new Error(`chunk ${chunk.id}: ${chunk.bytes} bytes received have SHA-256 ${found}`);
      }
      await rename(part, path);
      syncDirectory(dirname(path));
      return;
    }
    try {
      await append(client, chunk.id, part, held.size, chunk.bytes, options);
      barren = 0;
    } catch (cause) {
      signal.throwIfAborted();
      const grown = (await sizeOf(part)) > held.size;
      barren = grown ? 0 : barren + 1;
      if (barren > retries || permanent(cause))
        throw new Error(`chunk ${chunk.id} at byte ${held.size} of ${chunk.bytes}: ${(cause as Error).message}`, { cause });
      await new Promise((resolve) => setTimeout(resolve, 200 * 2 ** barren));
    }
  }
}

async function append(
  client: ArtifactServiceClient,
  chunkId: string,
  part: string,
  offset: number,
  bytes: number,
  options: FetchOptions,
): Promise<void> {
  const { stallMs = 20_000, onBytes, signal } = options;
  const file = await open(part, 'a', 0o644);
  const call = client.fetchChunk({ chunkId, offset: BigInt(offset), length: 0n });
  // The iterator reports errors only while it is read; one that comes before or after must not end the process.
  call.on('error', () => undefined);
  let stalled = false;
  const stall = (): void => {
    stalled = true;
    call.cancel();
  };
  let timer = setTimeout(stall, stallMs);
  const abort = (): void => call.cancel();
  if (signal.aborted) abort();
  else signal.addEventListener('abort', abort, { once: true });
  let at = offset;
  try {
    for await (const { data } of call as AsyncIterable<{ data: Uint8Array }>) {
      clearTimeout(timer);
      timer = setTimeout(stall, stallMs);
      at += data.length;
      if (at > bytes) throw new Error(`the server sent more than its ${bytes} bytes`);
      await file.write(data);
      onBytes?.(data.length);
    }
    if (at < bytes) throw new Error(`the stream ended at byte ${at}`);
  } catch (error) {
    throw stalled ? new Error(`no byte came for ${stallMs} ms`) : error;
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', abort);
    await file.sync();
    await file.close();
  }
}

const permanent = (error: unknown): boolean =>
  [status.NOT_FOUND, status.PERMISSION_DENIED, status.UNAUTHENTICATED].includes((error as ServiceError).code);

const sizeOf = async (path: string): Promise<number> => (await stat(path).catch(() => undefined))?.size ?? 0;

async function partialHash(part: string, bytes: number): Promise<{ size: number; hash: Hash }> {
  const size = await sizeOf(part);
  if (size > bytes) {
    await rm(part, { force: true });
    return { size: 0, hash: createHash('sha256') };
  }
  const hash = createHash('sha256');
  if (size === bytes) for await (const data of createReadStream(part)) hash.update(data as Buffer);
  return { size, hash };
}
