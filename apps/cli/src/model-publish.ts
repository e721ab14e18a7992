import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
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
        await api.send('PUT', `/api/v1/chunks/${id}`, await readChunk(dir, id), z.unknown());
        bar?.increment(bytesOf.get(id) ?? 0);
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

const UPLOADS = 4;

/** A chunk whose bytes are still what its name says: a damaged package is found here, not by a device. */
async function readChunk(dir: string, id: string): Promise<Uint8Array> {
  const path = join(dir, 'chunks', id);
  const bytes = await readFile(path).catch((cause: unknown) => {
    throw new Failure('not-found', `${path} cannot be read: the package is incomplete`, { cause });
  });
  const actual = createHash('sha256').update(bytes).digest('hex');
  if (actual !== id) throw new Failure('bad-chunk', `${path} is damaged: its SHA-256 is ${actual}`);
  return bytes;
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
