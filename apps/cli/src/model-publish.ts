import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { SingleBar } from 'cli-progress';
import { z } from 'zod';
import { connect, withApiOptions, type ApiOptions } from './api.js';
import type { Register } from './command.js';
import { Failure } from './failure.js';
import { formatBytes } from './output.js';
import { readPackage } from './package-dir.js';

const Registered = z.object({ id: z.string(), name: z.string(), missingChunks: z.array(z.string()), published: z.boolean() });

export const registerPublish: Register = (model, { output, signal }) => {
  withApiOptions(
    model
      .command('publish')
      .description('upload a package to a control plane and publish it; only missing chunks travel, so it can be repeated')
      .argument('<dir>', 'a model package'),
  ).action(async (dir: string, options: ApiOptions) => {
    const { manifest, manifestBytes, modelVersionId } = await readPackage(dir);
    const api = await connect(options, signal);
    const registered = await api.send('POST', '/api/v1/models', manifestBytes, Registered);
    if (registered.id !== modelVersionId)
      throw new Failure('bad-answer', `the control plane registered model version ${registered.id}, but the manifest's SHA-256 is ${modelVersionId}`);

    const bytesOf = new Map(manifest.chunks.map((chunk) => [chunk.id, chunk.bytes]));
    const missing = registered.missingChunks;
    const uploadBytes = missing.reduce((sum, id) => sum + (bytesOf.get(id) ?? 0), 0);
    const bar =
      process.stderr.isTTY && missing.length > 0
        ? new SingleBar({
            format: 'upload [{bar}] {percentage} % | {value} of {total} bytes',
            stream: process.stderr,
            hideCursor: true,
            clearOnComplete: true,
          })
        : undefined;
    output.note(`${missing.length} of ${manifest.chunks.length} chunks to upload, ${formatBytes(uploadBytes)}`);
    bar?.start(uploadBytes, 0);
    try {
      await inParallel(UPLOADS, missing, async (id) => {
        const bytes = bytesOf.get(id)!;
        await api.sendStream(
          `/api/v1/chunks/${id}`,
          bytes,
          () => openChunk(dir, id, bytes),
          (count) => bar?.increment(count),
        );
      });
    } finally {
      bar?.stop();
    }
    if (!registered.published) await api.send('POST', `/api/v1/models/${modelVersionId}/publish`, new Uint8Array(), z.unknown());
    output.result(
      { modelVersionId, name: registered.name, uploadedChunks: missing.length, uploadedBytes: uploadBytes, alreadyPublished: registered.published },
      (document) => `${document.name} ${document.modelVersionId} ${document.alreadyPublished ? 'was already published' : 'is published'}`,
    );
  });
};

const UPLOADS = 2;
const READ_BYTES = 512 * 1024;

/**
 * A chunk's bytes as they are read, the last of them only if the whole is still what its name says: a damaged package is found here, not by a device,
 * and what was announced is never complete.
 */
const openChunk = (dir: string, id: string, bytes: number): Readable =>
  Readable.from(read(join(dir, 'chunks', id), id, bytes), { objectMode: false });

async function* read(path: string, id: string, bytes: number): AsyncGenerator<Buffer> {
  const hash = createHash('sha256');
  let found = 0;
  let held: Buffer | undefined;
  try {
    for await (const data of createReadStream(path, { highWaterMark: READ_BYTES }) as AsyncIterable<Buffer>) {
      hash.update(data);
      found += data.length;
      if (held) yield held;
      held = data;
    }
  } catch (cause) {
    throw new Failure('not-found', `${path} cannot be read: the package is incomplete`, { cause });
  }
  if (found !== bytes) throw new Failure('bad-chunk', `${path} is damaged: it has ${found} bytes, its manifest says ${bytes}`);
  const actual = hash.digest('hex');
  if (actual !== id) throw new Failure('bad-chunk', `${path} is damaged: its SHA-256 is ${actual}`);
  if (held) yield held;
}

/** Runs `work` over the items, `width` at a time; the first failure ends it. */
async function inParallel<T>(width: number, items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  let next = 0;
  let failed = false;
  const worker = async (): Promise<void> => {
    while (!failed && next < items.length)
      try {
        await work(items[next++]!);
      } catch (error) {
        failed = true;
        throw error;
      }
  };
  await Promise.all(Array.from({ length: Math.min(width, items.length) }, worker));
}
