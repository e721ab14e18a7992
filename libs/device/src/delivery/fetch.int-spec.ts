import { createHash, randomBytes } from 'node:crypto';
import { mkdtemp, readFile, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { credentials, Server, ServerCredentials, type ServerWritableStream } from '@grpc/grpc-js';
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { ArtifactServiceClient, ArtifactServiceService, type FetchChunkRequest, type FetchChunkResponse } from '@matfleet/protocol';
import { fetchChunk } from './fetch.js';

const bytes = randomBytes(300_000);
const chunk = { id: createHash('sha256').update(bytes).digest('hex'), bytes: bytes.length };
const MESSAGE_BYTES = 64 * 1024;

describe('fetching a chunk', () => {
  let dir: string;
  let server: Server;
  let port: number;
  let client: ArtifactServiceClient;
  /** Offsets that were asked for, oldest first. */
  let offsets: number[];
  /** Where the stream breaks, per call; the last one repeats. */
  let breakAt: number[];
  let served: Buffer;

  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), 'fetch-'));
    offsets = [];
    breakAt = [Infinity];
    served = bytes;
    server = new Server();
    server.addService(ArtifactServiceService, {
      getManifest: () => undefined,
      fetchChunk: (call: ServerWritableStream<FetchChunkRequest, FetchChunkResponse>) => {
        const from = Number(call.request.offset);
        offsets.push(from);
        const end = breakAt.length > 1 ? breakAt.shift()! : breakAt[0]!;
        for (let at = from; at < Math.min(end, served.length); at += MESSAGE_BYTES)
          call.write({ data: served.subarray(at, Math.min(at + MESSAGE_BYTES, end)) });
        call.end();
      },
    });
    port = await new Promise<number>((resolve, reject) =>
      server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) => (error ? reject(error) : resolve(bound))),
    );
    client = new ArtifactServiceClient(`127.0.0.1:${port}`, credentials.createInsecure());
  });

  afterEach(async () => {
    client.close();
    server.forceShutdown();
    await rm(dir, { recursive: true, force: true });
  });

  const fetch = (retries: number) => fetchChunk(client, chunk, join(dir, chunk.id), { retries, signal: AbortSignal.timeout(20_000) });

  it('resumes a broken stream from the bytes it holds', async () => {
    breakAt = [100_000, 250_000, Infinity];
    await fetch(0);
    expect(offsets).toEqual([0, 100_000, 250_000]);
    expect((await readFile(join(dir, chunk.id))).equals(bytes)).toBe(true);
    expect(await readdir(dir)).toEqual([chunk.id]);
  });

  it('refuses a flipped byte, names the chunk and keeps nothing', async () => {
    served = Buffer.from(bytes);
    served[123_456]! ^= 1;
    await expect(fetch(0)).rejects.toThrow(`chunk ${chunk.id}: ${chunk.bytes} bytes received have SHA-256`);
    expect(await readdir(dir)).toEqual([]);
  });

  it('rejects, and does not bring its process down, when the server is gone before the call', async () => {
    await fetch(0);
    await rm(join(dir, chunk.id));
    server.forceShutdown();
    // Once the channel knows that nobody listens, a call fails before anything else can happen.
    for (let i = 0; i < 3; i++) await expect(fetch(0)).rejects.toThrow(`chunk ${chunk.id} at byte 0 of ${chunk.bytes}`);
  });
});
