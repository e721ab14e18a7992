import { mkdir, open, readdir, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { SigningKey } from '@matfleet/trust';

/** The signing keys that this control plane holds: `<key id>.pem`, readable by their owner alone. Which role a key signs, the root metadata says. */
export class KeyDirectory {
  constructor(private readonly directory: string) {}

  async all(): Promise<SigningKey[]> {
    const names = await readdir(this.directory).catch(() => []);
    return Promise.all(
      names
        .filter((name) => /^[0-9a-f]{64}\.pem$/.test(name))
        .map(async (name) => SigningKey.fromPem(await readFile(join(this.directory, name), 'utf8'))),
    );
  }

  /** Durable before it resolves: metadata that names a key which is lost can never be renewed. */
  async make(): Promise<SigningKey> {
    const key = SigningKey.generate();
    await mkdir(this.directory, { recursive: true, mode: 0o700 });
    const path = join(this.directory, `${key.id}.pem`);
    const file = await open(`${path}.tmp`, 'w', 0o600);
    try {
      await file.writeFile(key.toPem());
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(`${path}.tmp`, path);
    const directory = await open(this.directory, 'r');
    await directory.sync().finally(() => directory.close());
    return key;
  }

  async remove(key: SigningKey): Promise<void> {
    await rm(join(this.directory, `${key.id}.pem`), { force: true });
  }
}
