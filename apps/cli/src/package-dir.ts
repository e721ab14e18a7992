import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Manifest, versionId } from '@matfleet/model';
import { z } from 'zod';
import { Failure } from './failure.js';

/** A model package on disk: `manifest.json` and `chunks/<sha256>`. */
export interface PackageDir {
  readonly dir: string;
  readonly manifest: Manifest;
  /** The exact bytes, whose SHA-256 is the model version's id. */
  readonly manifestBytes: Uint8Array;
  readonly modelVersionId: string;
}

export async function readPackage(dir: string): Promise<PackageDir> {
  const path = join(dir, 'manifest.json');
  const manifestBytes = await readFile(path).catch(async (cause: NodeJS.ErrnoException) => {
    const checkpoint = await readFile(join(dir, 'config.json')).then(
      () => true,
      () => false,
    );
    if (checkpoint)
      throw new Failure(
        'not-a-package',
        `${dir} is a checkpoint, not a model package: run \`matfleet model import ${dir} --out <dir> --precision int8\` first`,
      );
    if (cause.code === 'ENOENT' || cause.code === 'ENOTDIR') throw new Failure('not-found', `${path} does not exist: ${dir} is not a model package`);
    throw new Failure('failed', `${path} cannot be read`, { cause });
  });
  let json: unknown;
  try {
    json = JSON.parse(manifestBytes.toString());
  } catch (cause) {
    throw new Failure('bad-manifest', `${path} is not JSON`, { cause });
  }
  const parsed = Manifest.safeParse(json);
  if (!parsed.success) throw new Failure('bad-manifest', `${path} is not a manifest of this version of matfleet:\n${z.prettifyError(parsed.error)}`);
  return { dir, manifest: parsed.data, manifestBytes, modelVersionId: versionId(manifestBytes) };
}
