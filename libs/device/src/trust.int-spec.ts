import { createHash } from 'node:crypto';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { credentials, Server, ServerCredentials, status, type ServerWritableStream } from '@grpc/grpc-js';
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { ArtifactServiceClient, ArtifactServiceService, type FetchTrustMetadataRequest, type FetchTrustMetadataResponse } from '@matfleet/protocol';
import {
  LIFETIMES,
  metaFile,
  parseMetadata,
  rootMetadata,
  serialize,
  signedAtMs,
  SigningKey,
  snapshotMetadata,
  targetsMetadata,
  timestampMetadata,
  TrustState,
  TrustViolation,
  type Role,
} from '@matfleet/trust';
import { TestRepository } from '@matfleet/trust/testing';
import { DeviceTrust } from './trust.js';

const DAY_MS = 24 * 3_600_000;
const NOW = new Date('2031-03-01T12:00:00Z');
const later = (days: number): Date => new Date(NOW.getTime() + days * DAY_MS);
const id = (text: string): string => createHash('sha256').update(text).digest('hex');
const [V1, V2, EVIL] = [id('v1'), id('v2'), id('evil')];
const PIECE = Buffer.alloc(16 * 1024, ' ');

// Every attack is what a control plane in wrong hands, or somebody on its disk, could serve: over a real socket, to the device's own client.
describe('signed metadata under attack', () => {
  let dir: string;
  let server: Server;
  let client: ArtifactServiceClient;
  let fleet: TestRepository;
  let deviceClock: Date;
  /** Names for which the server never stops sending, and how much of each it got rid of. */
  let endless: Set<string>;
  let sentBytes: number;
  let cut: Set<string>;

  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), 'trust-'));
    deviceClock = NOW;
    endless = new Set();
    cut = new Set();
    sentBytes = 0;
    fleet = new TestRepository(NOW);
    fleet.publish(V1);
    server = new Server();
    server.addService(ArtifactServiceService, {
      fetchTrustMetadata: (call: ServerWritableStream<FetchTrustMetadataRequest, FetchTrustMetadataResponse>) => void serve(call),
    });
    const port = await new Promise<number>((resolve, reject) =>
      server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) => (error ? reject(error) : resolve(bound))),
    );
    client = new ArtifactServiceClient(`127.0.0.1:${port}`, credentials.createInsecure());
  });
  afterEach(async () => {
    client.close();
    server.forceShutdown();
    await rm(dir, { recursive: true, force: true });
  });

  async function serve(call: ServerWritableStream<FetchTrustMetadataRequest, FetchTrustMetadataResponse>): Promise<void> {
    const { name } = call.request;
    const bytes = fleet.files.get(name);
    if (cut.has(name)) return void call.emit('error', { code: status.UNAVAILABLE, details: 'cut' });
    if (!bytes) return void call.emit('error', { code: status.NOT_FOUND, details: `no ${name}` });
    call.write({ data: bytes });
    while (endless.has(name) && !call.cancelled) {
      sentBytes += PIECE.length;
      if (!call.write({ data: PIECE })) await new Promise((resolve) => void call.once('drain', resolve).once('cancelled', resolve));
    }
    call.end();
  }

  /** A device that (re)starts on its disk. */
  const device = (): DeviceTrust => new DeviceTrust({ file: join(dir, 'trust.json'), client: () => client, nowMs: () => deviceClock.getTime() });
  const state = async () => TrustState.parse(JSON.parse(await readFile(join(dir, 'trust.json'), 'utf8')));
  /** The device has taken V1 and what signs it. */
  const trusting = async (): Promise<DeviceTrust> => {
    const one = device();
    await one.targetOf(V1);
    return one;
  };
  /** Refused, with this reason, and nothing of the trusted state moved: not in memory, not on disk. */
  async function refuses(one: DeviceTrust, wanted: string, why: RegExp): Promise<void> {
    const before = await readFile(join(dir, 'trust.json'), 'utf8');
    const error = await one.targetOf(wanted).then(
      () => undefined,
      (thrown: unknown) => thrown,
    );
    expect(error).toBeInstanceOf(TrustViolation);
    expect((error as Error).message).toMatch(why);
    expect(await readFile(join(dir, 'trust.json'), 'utf8')).toBe(before);
    await expect(device().targetOf(wanted)).rejects.toThrow(why);
  }
  const current = <R extends 'targets' | 'snapshot' | 'timestamp'>(role: R) => parseMetadata(role, fleet.newest(role)!);
  const metaOf = (role: 'targets' | 'snapshot') => metaFile(current(role).signed.version, fleet.newest(role)!);
  /** With stolen keys: a timestamp, and with them a snapshot, that fit what is served. */
  const forgeTimestamp = (version: number, keys = fleet.keys.timestamp): Buffer =>
    fleet.forge('timestamp', timestampMetadata(version, later(1), NOW, metaOf('snapshot')), keys);
  const forgeSnapshot = (version: number, keys = fleet.keys.snapshot): Buffer =>
    fleet.forge('snapshot', snapshotMetadata(version, later(7), metaOf('targets')), keys);
  const nextTimestamp = (): number => current('timestamp').signed.version + 1;
  const nextSnapshot = (): number => current('snapshot').signed.version + 1;

  describe('without an attack', () => {
    it('takes a version that the fleet has signed, and the next one', async () => {
      const one = await trusting();
      fleet.publish(V2, 222);
      expect(await one.targetOf(V2)).toEqual({ path: V2, bytes: 222, sha256: V2 });
    });

    it('takes a version with metadata whose every key was rotated meanwhile', async () => {
      const one = await trusting();
      for (const role of ['timestamp', 'root', 'targets', 'snapshot'] as const) fleet.rotate(role);
      fleet.publish(V2);
      expect((await one.targetOf(V2))?.path).toBe(V2);
      expect(parseMetadata('root', Buffer.from((await state()).root)).signed.version).toBe(5);
    });

    it('keeps what it trusted, and does not call it an attack, when the connection is cut in the middle', async () => {
      const one = await trusting();
      const before = await readFile(join(dir, 'trust.json'), 'utf8');
      fleet.publish(V2);
      cut.add(`${current('targets').signed.version}.targets.json`);
      const error = await one.targetOf(V2).catch((thrown: unknown) => thrown);
      expect(error).not.toBeInstanceOf(TrustViolation);
      expect(String(error)).toContain('cut');
      expect(await readFile(join(dir, 'trust.json'), 'utf8')).toBe(before);
      cut.clear();
      expect((await one.targetOf(V2))?.path).toBe(V2);
    });
  });

  describe('arbitrary software', () => {
    it('refuses a version that nobody signed', async () => {
      await expect((await trusting()).targetOf(EVIL)).rejects.toThrow(`model version ${EVIL} is not in the signed metadata`);
    });

    it.each(['targets', 'snapshot', 'timestamp'] as const)('refuses %s metadata signed by a stranger', async (role) => {
      const one = await trusting();
      const stranger = [SigningKey.generate()];
      fleet.forge('targets', targetsMetadata(9, later(90), [{ path: EVIL, bytes: 1, sha256: EVIL }]), role === 'targets' ? stranger : undefined);
      forgeSnapshot(9, role === 'snapshot' ? stranger : undefined);
      forgeTimestamp(9, role === 'timestamp' ? stranger : undefined);
      await refuses(one, EVIL, new RegExp(`${role} was signed by 0/1 keys`));
    });

    it('refuses a root that the old root did not sign', async () => {
      const one = await trusting();
      fleet.keys.root = [SigningKey.generate()];
      fleet.putRoot();
      await refuses(one, V1, /root was signed by 0\/1 keys/);
    });

    it('refuses a first root that its own keys did not sign', async () => {
      const root = fleet.root;
      root.signatures = {};
      fleet.files.set('root.json', serialize(root));
      await expect(device().targetOf(V1)).rejects.toThrow(/root was signed by 0\/1 keys/);
      await expect(readFile(join(dir, 'trust.json'))).rejects.toThrow('ENOENT');
    });

    it('takes only its own root where it was given one', async () => {
      const own = fleet.files.get('1.root.json')!;
      fleet = new TestRepository(NOW);
      fleet.publish(EVIL);
      const one = new DeviceTrust({ file: join(dir, 'trust.json'), client: () => client, root: own, nowMs: () => NOW.getTime() });
      await refuses(one, EVIL, /timestamp was signed by 0\/1 keys/);
    });
  });

  describe('rollback', () => {
    it('of the timestamp: refuses an older one', async () => {
      const old = fleet.newest('timestamp')!;
      fleet.publish(V2);
      const one = await trusting();
      fleet.files.set('timestamp.json', old);
      await refuses(one, V1, /New timestamp version 2 is less than current version 3/);
    });

    it('of the snapshot: refuses an older one under a newer timestamp', async () => {
      const old = { version: current('snapshot').signed.version, bytes: fleet.newest('snapshot')! };
      fleet.publish(V2);
      const one = await trusting();
      fleet.forge('timestamp', timestampMetadata(nextTimestamp(), later(1), NOW, metaFile(old.version, old.bytes)));
      await refuses(one, V1, /New snapshot version 2 is less than current version 3/);
    });

    it('of the targets: refuses older ones under a newer snapshot', async () => {
      const old = { version: current('targets').signed.version, bytes: fleet.newest('targets')! };
      fleet.publish(V2);
      const one = await trusting();
      fleet.forge('snapshot', snapshotMetadata(nextSnapshot(), later(7), metaFile(old.version, old.bytes)));
      forgeTimestamp(nextTimestamp());
      await refuses(one, V1, /New version 2 of targets.json is less than current version 3/);
    });

    it('of the root: refuses an old one under the next number', async () => {
      const old = fleet.files.get('1.root.json')!;
      fleet.rotate('timestamp');
      fleet.sign();
      const one = await trusting();
      fleet.files.set('3.root.json', old);
      await refuses(one, V1, /Expected version 3, got 1/);
    });

    it('refuses a snapshot that forgets the targets', async () => {
      const one = await trusting();
      const snapshot = snapshotMetadata(nextSnapshot(), later(7), metaOf('targets'));
      delete snapshot.signed.meta['targets.json'];
      fleet.forge('snapshot', snapshot);
      forgeTimestamp(nextTimestamp());
      await refuses(one, V1, /Missing file targets.json in new snapshot/);
    });
  });

  describe('freeze', () => {
    it('refuses the last timestamp once it has expired', async () => {
      const one = await trusting();
      deviceClock = later(1.01);
      await refuses(one, V1, /timestamp metadata version \d+ expired at/);
    });

    it('refuses an expired snapshot under a fresh timestamp', async () => {
      const one = await trusting();
      fleet.forge('timestamp', timestampMetadata(nextTimestamp(), later(8.5), later(8), metaOf('snapshot')));
      deviceClock = later(8);
      await refuses(one, V1, /snapshot metadata version \d+ expired at/);
    });

    it('refuses expired targets under a fresh snapshot', async () => {
      const one = await trusting();
      fleet.forge('snapshot', snapshotMetadata(nextSnapshot(), later(99), metaOf('targets')));
      fleet.forge('timestamp', timestampMetadata(nextTimestamp(), later(92), later(91), metaOf('snapshot')));
      deviceClock = later(91);
      await refuses(one, V1, /targets metadata version \d+ expired at/);
    });

    it('refuses an expired root under fresh everything else', async () => {
      const one = await trusting();
      fleet.now = deviceClock = later(366);
      fleet.sign();
      await refuses(one, V1, /root metadata version \d+ expired at/);
      fleet.putRoot();
      expect((await device().targetOf(V1))?.path).toBe(V1);
    });
  });

  describe('fast-forward', () => {
    it.each(['timestamp', 'snapshot'] as const)('of the %s: an enormous version ends with the key that signed it', async (role) => {
      const one = await trusting();
      const honest = new Map(fleet.files);
      const HUGE = 2 ** 40;
      if (role === 'snapshot') forgeSnapshot(HUGE);
      forgeTimestamp(role === 'timestamp' ? HUGE : nextTimestamp());
      await one.targetOf(V1);
      for (const [name, bytes] of honest) fleet.files.set(name, bytes);
      await refuses(one, V1, /is less than current version/);
      fleet.rotate('timestamp');
      if (role === 'snapshot') fleet.rotate('snapshot');
      fleet.publish(V2);
      expect((await one.targetOf(V2))?.path).toBe(V2);
    });
  });

  describe('mix and match', () => {
    it('refuses a snapshot of another release than the timestamp names', async () => {
      const one = await trusting();
      fleet.publish(V2);
      const real = fleet.newest('timestamp')!;
      const { version } = current('snapshot').signed;
      forgeSnapshot(version);
      fleet.files
        .set('timestamp.json', real)
        .set(`${version}.snapshot.json`, serialize(signed(snapshotMetadata(version, later(6), metaOf('targets')), 'snapshot')));
      await refuses(one, V2, /Expected (length|hash)/);
    });

    it('refuses targets of another release than the snapshot names, although their keys signed both', async () => {
      const one = await trusting();
      fleet.publish(V2);
      const { version } = current('targets').signed;
      fleet.files.set(
        `${version}.targets.json`,
        serialize(signed(targetsMetadata(version, later(90), [{ path: EVIL, bytes: 100, sha256: EVIL }]), 'targets')),
      );
      await refuses(one, EVIL, /Expected (length|hash)/);
    });

    it('refuses one role’s metadata in the place of another', async () => {
      const one = await trusting();
      fleet.files.set('timestamp.json', fleet.newest('snapshot')!);
      await refuses(one, V1, /expected 'timestamp', got snapshot/);
    });
  });

  const signed = <M extends Parameters<SigningKey['sign']>[0]>(metadata: M, role: Role): M => {
    for (const key of fleet.keys[role]) key.sign(metadata);
    return metadata;
  };

  describe('endless data and wrong length', () => {
    it.each([
      ['root', '2.root.json'],
      ['timestamp', 'timestamp.json'],
      ['snapshot', undefined],
      ['targets', undefined],
    ] as const)('stops reading %s metadata that never ends', async (role, fixed) => {
      const one = await trusting();
      fleet.publish(V2);
      if (role === 'root') fleet.rotate('targets');
      const name = fixed ?? `${current(role as 'targets' | 'snapshot').signed.version}.${role}.json`;
      endless.add(name);
      await refuses(one, V2, new RegExp(`more than \\d+ bytes were sent for ${name}`));
      // The bound itself, and what the sockets hold.
      expect(sentBytes).toBeLessThan(16 * 2 ** 20);
    });

    it('refuses metadata with blanks after it, which every parser would take', async () => {
      const one = await trusting();
      fleet.publish(V2);
      const name = `${current('targets').signed.version}.targets.json`;
      fleet.files.set(name, Buffer.concat([fleet.files.get(name)!, Buffer.from('  ')]));
      await refuses(one, V2, /more than \d+ bytes were sent|Expected length/);
    });

    it('refuses metadata that was cut off', async () => {
      const one = await trusting();
      fleet.publish(V2);
      const name = `${current('snapshot').signed.version}.snapshot.json`;
      fleet.files.set(name, fleet.files.get(name)!.subarray(0, -20));
      await refuses(one, V2, /Expected length/);
    });
  });

  describe('thresholds and keys', () => {
    const withTwo = (role: Role): void => {
      fleet = new TestRepository(NOW, { root: 1, targets: 1, snapshot: 1, timestamp: 1, [role]: 2 });
      fleet.publish(V1);
    };
    const evilTargets = () => targetsMetadata(9, later(90), [{ path: EVIL, bytes: 1, sha256: EVIL }]);

    it('refuses targets that one of two needed keys signed', async () => {
      withTwo('targets');
      const one = await trusting();
      fleet.forge('targets', evilTargets(), fleet.keys.targets.slice(0, 1));
      forgeSnapshot(9);
      forgeTimestamp(9);
      await refuses(one, EVIL, /targets was signed by 1\/2 keys/);
    });

    it('refuses a root that one of two needed keys signed', async () => {
      withTwo('root');
      const one = await trusting();
      fleet.keys.root = [fleet.keys.root[0]!, SigningKey.generate()];
      fleet.putRoot();
      await refuses(one, V1, /root was signed by 1\/2 keys/);
    });

    it('does not count one key’s signature twice', async () => {
      withTwo('targets');
      const one = await trusting();
      const json = signed(evilTargets(), 'root').toJSON() as { signatures: unknown[]; signed: unknown };
      const mine = evilTargets();
      fleet.keys.targets[0]!.sign(mine);
      const [signature] = (mine.toJSON() as { signatures: unknown[] }).signatures;
      const bytes = Buffer.from(JSON.stringify({ ...json, signatures: [signature, signature] }));
      fleet.files.set('9.targets.json', bytes);
      fleet.forge('snapshot', snapshotMetadata(9, later(7), metaFile(9, bytes)));
      forgeTimestamp(9);
      await refuses(one, EVIL, /multiple signatures found/);
    });

    it('does not count one key under two ids twice', async () => {
      const one = await trusting();
      const [key] = fleet.keys.targets;
      const json = rootMetadata(2, later(300), {
        root: { keys: fleet.keys.root.map(({ publicKey }) => publicKey), threshold: 1 },
        targets: { keys: [key!.publicKey], threshold: 1 },
        snapshot: { keys: fleet.keys.snapshot.map(({ publicKey }) => publicKey), threshold: 1 },
        timestamp: { keys: fleet.keys.timestamp.map(({ publicKey }) => publicKey), threshold: 1 },
      }).signed.toJSON() as { keys: Record<string, unknown>; roles: Record<string, { keyids: string[]; threshold: number }> };
      json.keys['f'.repeat(64)] = json.keys[key!.id];
      json.roles['targets'] = { keyids: [key!.id, 'f'.repeat(64)], threshold: 2 };
      const root = parseMetadata('root', Buffer.from(JSON.stringify({ signed: json, signatures: [] })));
      fleet.keys.root[0]!.sign(root);
      fleet.files.set('2.root.json', serialize(root)).set('root.json', serialize(root));
      const twice = signed(evilTargets(), 'targets').toJSON() as { signatures: { keyid: string }[] };
      twice.signatures.push({ ...twice.signatures[0]!, keyid: 'f'.repeat(64) });
      const bytes = Buffer.from(JSON.stringify(twice));
      fleet.files.set('9.targets.json', bytes);
      fleet.forge('snapshot', snapshotMetadata(9, later(7), metaFile(9, bytes)));
      forgeTimestamp(9);
      await refuses(one, EVIL, /root version 2 names one key under two ids for targets/);
    });

    it('refuses what a revoked key signed', async () => {
      const one = await trusting();
      const revoked = fleet.rotate('targets');
      fleet.sign();
      await one.targetOf(V1);
      fleet.forge('targets', evilTargets(), revoked);
      forgeSnapshot(9);
      forgeTimestamp(9);
      await refuses(one, EVIL, /targets was signed by 0\/1 keys/);
    });

    it('remembers a revocation although the rest of that update was refused, and the new root is hidden again', async () => {
      const one = await trusting();
      const [revoked] = [fleet.rotate('targets')];
      fleet.files.set('timestamp.json', Buffer.from('{}'));
      await expect(one.targetOf(V1)).rejects.toThrow(TrustViolation);
      expect(parseMetadata('root', Buffer.from((await state()).root)).signed.version).toBe(2);
      fleet.files.delete('2.root.json');
      fleet.forge('targets', evilTargets(), revoked);
      forgeSnapshot(9);
      forgeTimestamp(9);
      await refuses(one, EVIL, /targets was signed by 0\/1 keys/);
    });
  });

  describe('the device’s clock', () => {
    it('set back ten years does not bring expired metadata back to life', async () => {
      const one = await trusting();
      fleet.now = deviceClock = later(80);
      fleet.sign();
      await one.targetOf(V1);
      expect((await state()).floorMs).toBe(signedAtMs(current('timestamp')));
      // Stolen online keys make a fresh timestamp over a snapshot of the first day.
      fleet.forge('snapshot', snapshotMetadata(nextSnapshot(), later(7), metaOf('targets')));
      forgeTimestamp(nextTimestamp());
      fleet.forge('timestamp', timestampMetadata(nextTimestamp(), later(81), later(80), metaOf('snapshot')));
      deviceClock = new Date(NOW.getTime() - 3_650 * DAY_MS);
      await refuses(
        one,
        V1,
        /snapshot metadata version \d+ expired at .*; this device's clock says 2021-.*, but it is 2031-05-20T12:00:0.* at least/,
      );
    });

    it('set back does not keep it from what is fresh', async () => {
      const one = await trusting();
      deviceClock = new Date(0);
      fleet.publish(V2);
      expect((await one.targetOf(V2))?.path).toBe(V2);
    });

    it('is not believed to be later than it is because a stolen timestamp key said so, once that key is revoked', async () => {
      const one = await trusting();
      fleet.forge('timestamp', timestampMetadata(nextTimestamp(), later(9_001), later(9_000), metaOf('snapshot')));
      await expect(one.targetOf(V1)).rejects.toThrow(/expired at/);
      fleet.rotate('timestamp');
      fleet.publish(V2);
      expect((await one.targetOf(V2))?.path).toBe(V2);
      expect((await state()).floorMs).toBe(NOW.getTime());
    });
  });

  it('starts anew from the control plane’s root when its own file was damaged', async () => {
    await trusting();
    await writeFile(join(dir, 'trust.json'), '{"root": 3');
    expect((await device().targetOf(V1))?.path).toBe(V1);
    expect(LIFETIMES.timestamp).toBe(DAY_MS);
  });
});
