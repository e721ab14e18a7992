import 'reflect-metadata';
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import {
  LIFETIMES,
  NoSuchMetadata,
  parseMetadata,
  roleKeys,
  rootMetadata,
  serialize,
  SigningKey,
  TrustClient,
  type Role,
  type RoleKeys,
  type TrustState,
} from '@matfleet/trust';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import { createDatabase, type TestDatabase } from '../../../../test/support/database.js';
import { ApiKeyService } from '../access/api-key.service.js';
import { createApplication } from '../application.js';
import { parseConfig } from '../config.js';
import { migrate } from '../database/migrate.js';
import { manifestOf, sliceOf } from '../domain/fixtures.js';
import { createLogger, PinoNestLogger } from '../telemetry.js';

const CLI = new URL('../../../cli/bin/matfleet.mjs', import.meta.url).pathname;
const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

describe('the signed metadata of a control plane', () => {
  let database: TestDatabase;
  let dataDir: string;
  let app: NestFastifyApplication;
  let [url, apiKey] = ['', ''];
  let state: TrustState | undefined;

  beforeAll(async () => {
    database = await createDatabase();
    await migrate(database.url);
    dataDir = await mkdtemp(join(tmpdir(), 'matfleet-trust-'));
    const config = parseConfig({ MATFLEET_DATA_DIR: dataDir, MATFLEET_HTTP_PORT: '0', MATFLEET_DEVICE_PORT: '0' });
    app = await createApplication(config, database.url, new PinoNestLogger(createLogger('fatal')));
    await app.get(ApiKeyService, { strict: false }).ensureFirstKey();
    await app.listen(0, '127.0.0.1');
    url = await app.getUrl();
    apiKey = (await readFile(join(dataDir, 'admin-api-key'), 'utf8')).trim();
    device.begin(await bytesOf('root.json'));
  });
  afterAll(async () => {
    await app?.close();
    await database?.drop();
    await rm(dataDir, { recursive: true, force: true });
  });

  const request = (method: string, path: string, body?: Uint8Array): Promise<Response> =>
    fetch(`${url}/api/v1/${path}`, {
      method,
      headers: { authorization: `Bearer ${apiKey}`, ...(body && { 'content-type': 'application/octet-stream' }) },
      ...(body && { body: new Uint8Array(body) }),
    });
  const bytesOf = async (name: string): Promise<Buffer> => Buffer.from(await (await request('GET', `trust/metadata/${name}`)).arrayBuffer());

  /** The same client that runs on devices, over the control plane's HTTP. */
  const device = new TrustClient({
    store: { load: () => state, save: (next) => void (state = next) },
    fetch: async function* (name) {
      const response = await request('GET', `trust/metadata/${name}`);
      if (response.status === 404) throw new NoSuchMetadata(name);
      yield new Uint8Array(await response.arrayBuffer());
    },
    nowMs: Date.now,
    monotonicMs: () => performance.now(),
  });
  const listed = async (): Promise<string[]> => (await device.refresh()).map(({ path }) => path);
  /** The built command line, as an operator runs it. */
  const cli = (...args: string[]): Promise<{ code: number; document: unknown }> =>
    new Promise((resolve) =>
      execFile(
        process.execPath,
        [CLI, '--json', ...args, ...(args[1] === 'sign' ? [] : ['--server', url, '--api-key-file', join(dataDir, 'admin-api-key')])],
        { timeout: 50_000, env: { ...process.env, MATFLEET_TRUST_PASSPHRASE: 'four words of one operator' } },
        (error, stdout) => resolve({ code: error ? Number(error.code) : 0, document: JSON.parse(stdout) }),
      ),
    );
  const currentRoot = async () => parseMetadata('root', await bytesOf('root.json'));
  const keyFiles = async (): Promise<string[]> => (await readdir(join(dataDir, 'trust'))).map((name) => name.replace('.pem', ''));

  async function register(seed: string): Promise<string> {
    const draft = manifestOf([sliceOf('only', 0, 0.6)], 1_000);
    const contents = draft.chunks.map((chunk) => Buffer.alloc(chunk.bytes, `${seed} ${chunk.id} `));
    const bytes = Buffer.from(JSON.stringify({ ...draft, chunks: draft.chunks.map((chunk, i) => ({ ...chunk, id: sha256(contents[i]!) })) }));
    expect((await request('POST', 'models', bytes)).status).toBe(201);
    for (const content of contents) await request('PUT', `chunks/${sha256(content)}`, content);
    return sha256(bytes);
  }

  async function nextRoot(changed: Partial<Record<Role, RoleKeys>>, signers: readonly SigningKey[]): Promise<Buffer> {
    const root = await currentRoot();
    const named = (role: Role): RoleKeys => changed[role] ?? roleKeys(root, role);
    const next = rootMetadata(root.signed.version + 1, new Date(Date.now() + LIFETIMES.root), {
      root: named('root'),
      targets: named('targets'),
      snapshot: named('snapshot'),
      timestamp: named('timestamp'),
    });
    for (const key of signers) key.sign(next);
    return serialize(next);
  }

  it('lists a version for devices from its publication on, with the size and hash of its manifest', async () => {
    const id = await register('first');
    expect(await listed()).toEqual([]);
    expect((await request('POST', `models/${id}/publish`)).status).toBe(200);
    expect(await device.refresh()).toEqual([{ path: id, sha256: id, bytes: expect.any(Number) }]);
    expect((await request('POST', `models/${id}/publish`)).status).toBe(200);
    expect(await listed()).toEqual([id]);
  });

  it('lists all of several versions that are published at once', async () => {
    const ids = await Promise.all(['a', 'b', 'c'].map(register));
    await Promise.all(ids.map((id) => request('POST', `models/${id}/publish`)));
    expect(await listed()).toEqual(expect.arrayContaining(ids));
  });

  it('serves no file by another name', async () => {
    for (const name of ['targets.json', '1.timestamp.json', '0.root.json', 'x.json', '..%2f..%2fpasswd'])
      expect((await request('GET', `trust/metadata/${name}`)).status).toBe(404);
  });

  it.each(['timestamp', 'snapshot', 'targets', 'root'] as const)('replaces its own %s key; the old one is gone, and devices follow', async (role) => {
    const before = await listed();
    const [old] = roleKeys(await currentRoot(), role).keys;
    expect((await request('POST', `trust/rotate/${role}`)).status).toBe(200);
    expect(await listed()).toEqual(before);
    expect(roleKeys(parseMetadata('root', Buffer.from(state!.root)), role).keys).not.toContainEqual(old);
    expect(await keyFiles()).not.toContain(old!.keyID);
    expect(await keyFiles()).toHaveLength(4);
  });

  it('refuses a root whose online keys it does not hold, and goes on with the one it has', async () => {
    const [version, stranger] = [(await currentRoot()).signed.version, SigningKey.generate()];
    const offline = SigningKey.generate();
    const response = await request(
      'PUT',
      'trust/root',
      await nextRoot({ root: { keys: [offline.publicKey], threshold: 1 }, targets: { keys: [stranger.publicKey], threshold: 1 } }, [offline]),
    );
    expect([response.status, await response.json()]).toEqual([
      409,
      expect.objectContaining({
        code: 'failed-precondition',
        detail: expect.stringContaining('targets metadata needs signatures of 1 keys; 0 of 1'),
      }),
    ]);
    expect((await currentRoot()).signed.version).toBe(version);
  });

  it('hands the root over to keys that it never sees, two of which must sign from then on: by the command line', async () => {
    const [keys, out] = [join(dataDir, 'offline'), join(dataDir, 'next-root.json')];
    const [own] = roleKeys(await currentRoot(), 'root').keys;
    expect(await cli('trust', 'init', '--keys', keys, '--count', '3', '--threshold', '2')).toMatchObject({ code: 0, document: { accepted: true } });
    expect(await keyFiles()).not.toContain(own!.keyID);
    expect((await stat(join(keys, 'root-1.pem'))).mode & 0o777).toBe(0o600);
    expect(await readFile(join(keys, 'root-1.pem'), 'utf8')).toContain('ENCRYPTED');

    expect(await cli('trust', 'rotate', '--role', 'timestamp')).toMatchObject({ code: 1, document: { error: { code: 'failed-precondition' } } });
    const before = await listed();
    const [old] = roleKeys(await currentRoot(), 'timestamp').keys;
    const one = ['--key', join(keys, 'root-1.pem'), '--out', out];
    expect(await cli('trust', 'rotate', '--role', 'timestamp', ...one)).toMatchObject({
      code: 0,
      document: { accepted: false, signatures: 1, threshold: 2 },
    });
    expect(await cli('trust', 'put', out)).toMatchObject({
      code: 1,
      document: { error: { code: 'failed-precondition', message: expect.stringContaining('signed by 1/2 keys') } },
    });
    expect(await cli('trust', 'sign', out, '--key', join(keys, 'root-3.pem'))).toMatchObject({ code: 0, document: { complete: true } });
    expect(await cli('trust', 'put', out)).toMatchObject({ code: 0 });
    expect(await keyFiles()).not.toContain(old!.keyID);
    expect(await listed()).toEqual(before);

    const { document } = await cli('trust', 'show');
    expect((document as { role: string; keysHere: number }[]).map(({ role, keysHere }) => [role, keysHere])).toEqual([
      ['root', 0],
      ['targets', 1],
      ['snapshot', 1],
      ['timestamp', 1],
    ]);
    const audit = (await (await request('GET', 'audit?subject=trust:root')).json()) as { action: string }[];
    expect(audit.length).toBe(7);
  });
});
