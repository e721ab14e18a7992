import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';

/** Addresses of chunks that need no API key, for so long: signed with a key that all replicas read from one file. */
export class ChunkUrlSigner {
  private constructor(private readonly key: Buffer) {}

  /** Makes the key where there is none. */
  static async open(path: string): Promise<ChunkUrlSigner> {
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, randomBytes(32), { mode: 0o600, flag: 'wx' }).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'EEXIST') throw error;
    });
    return new ChunkUrlSigner(await readFile(path));
  }

  sign(chunkId: string, expiresAt: Date): string {
    const expires = Math.floor(expiresAt.getTime() / 1_000);
    return `/api/v1/signed-chunks/${chunkId}?expires=${expires}&signature=${this.signature(chunkId, expires)}`;
  }

  verify(chunkId: string, expires: number, signature: string, now: Date): boolean {
    if (!Number.isSafeInteger(expires) || expires * 1_000 <= now.getTime()) return false;
    const [given, right] = [Buffer.from(signature), Buffer.from(this.signature(chunkId, expires))];
    return given.length === right.length && timingSafeEqual(given, right);
  }

  private signature(chunkId: string, expires: number): string {
    return createHmac('sha256', this.key).update(`${chunkId} ${expires}`).digest('base64url');
  }
}
