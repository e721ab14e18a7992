import 'reflect-metadata';
import { randomUUID } from 'node:crypto';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Metadata, type ServiceError } from '@grpc/grpc-js';
import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { deviceKey, enrol, EnrolmentPending, type Identity, publicKeyHashOf, renewIdentity, deviceCredentials } from '@matfleet/device';
import { type AuditRecord, verifyAudit } from '@matfleet/history';
import { ArtifactServiceClient, DeviceServiceClient } from '@matfleet/protocol';
import { FakeDevice } from '@matfleet/protocol/testing';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import pg from 'pg';
import { createDatabase, type TestDatabase } from '../../../../test/support/database.js';
import { ApiKeyService } from '../access/api-key.service.js';
import { createApplication } from '../application.js';
import { parseConfig } from '../config.js';
import { migrate } from '../database/migrate.js';
import { Endpoints } from '../endpoints.js';
import { createLogger, PinoNestLogger } from '../telemetry.js';

interface DeviceJson {
  id: string;
  name: string;
  labels: Record<string, string>;
  standing: string;
  standingReason: string | null;
}

describe('identity', () => {
  let database: TestDatabase;
  let dataDir: string;
  let app: NestFastifyApplication;
  let [url, apiKey, joinUrl] = ['', '', ''];
  const devices: FakeDevice[] = [];
  const replicas: NestFastifyApplication[] = [];

  beforeAll(async () => {
    database = await createDatabase();
    await migrate(database.url);
    dataDir = await mkdtemp(join(tmpdir(), 'matfleet-identity-'));
    app = await replica();
    await app.get(ApiKeyService, { strict: false }).ensureFirstKey();
    url = await app.getUrl();
    apiKey = (await readFile(join(dataDir, 'admin-api-key'), 'utf8')).trim();
    joinUrl = app.get(Endpoints, { strict: false }).deviceUrl!;
  });
  afterEach(async () => {
    for (const device of devices.splice(0)) device.close();
    for (const { id } of await call<DeviceJson[]>('GET', '/devices')) await call('DELETE', `/devices/${id}`);
  });
  afterAll(async () => {
    for (const each of replicas) await each.close();
    await database?.drop();
    await rm(dataDir, { recursive: true, force: true });
  });

  /** Another process of the control plane, as far as anybody can see: they share the database and the CA alone. */
  async function replica(): Promise<NestFastifyApplication> {
    const config = parseConfig({ MATFLEET_DATA_DIR: dataDir, MATFLEET_DEVICE_PORT: '0', MATFLEET_DEVICE_CERTIFICATE_SECONDS: '3600' });
    const made = await createApplication(config, database.url, new PinoNestLogger(createLogger('fatal')));
    await made.listen(0, '127.0.0.1');
    replicas.push(made);
    return made;
  }

  async function call<T = Record<string, never>>(method: string, path: string, body?: unknown): Promise<T> {
    const response = await fetch(path === '/graphql' ? `${url}${path}` : `${url}/api/v1${path}`, {
      method,
      headers: { authorization: `Bearer ${apiKey}`, ...(body !== undefined && { 'content-type': 'application/json' }) },
      ...(body !== undefined && { body: JSON.stringify(body) }),
    });
    const text = await response.text();
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`);
    return (text ? JSON.parse(text) : {}) as T;
  }
  const graphql = async (query: string): Promise<Record<string, unknown>> => {
    const { data, errors } = await call<{ data: Record<string, unknown>; errors?: unknown }>('POST', '/graphql', { query });
    if (errors) throw new Error(JSON.stringify(errors));
    return data;
  };
  const token = (terms: object = {}) => call<{ id: string; token: string }>('POST', '/join-tokens', terms);
  const directory = (): Promise<string> => mkdtemp(join(dataDir, 'device-'));
  const enrolled = async (name: string, joinToken?: string, at?: string): Promise<{ identity: Identity; directory: string }> => {
    const own = at ?? (await directory());
    return { identity: await enrol({ joinUrl, token: joinToken ?? (await token()).token, deviceName: name, directory: own }), directory: own };
  };
  const deviceOf = (id: string) => call<DeviceJson>('GET', `/devices/${id}`);
  const audit = (after = 0) => call<AuditRecord[]>('GET', `/audit?limit=1000&after=${after}`);

  /** The session of a process of this device; its end tells why. */
  function session(identity: Identity, bootId: string = randomUUID(), at = joinUrl): FakeDevice {
    const certificate = { keyPem: identity.keyPem, certificatePem: identity.certificatePem };
    const device = new FakeDevice({ target: new URL(at).host, caPem: identity.caPem, certificate });
    devices.push(device);
    device.open({ bootId, capabilities: { architecture: 'x64', platform: 'linux', cores: 2 } });
    return device;
  }
  async function ended(device: FakeDevice, timeoutMs = 5_000): Promise<string> {
    for (const end = Date.now() + timeoutMs; device.ended === undefined; await sleep(10))
      if (Date.now() > end) throw new Error(`the session is still open after ${timeoutMs} ms`);
    return device.ended;
  }
  /** What a call of this device is told beside the message. */
  function standingOf(identity: Identity): Promise<string> {
    const client = new DeviceServiceClient(new URL(joinUrl).host, deviceCredentials(identity));
    return new Promise<string>((resolve) =>
      client.sync({ epoch: 0n, messages: [] }, new Metadata(), { deadline: Date.now() + 5_000 }, (error: ServiceError | null) =>
        resolve(error ? `${error.code} ${String(error.metadata.get('matfleet-standing')[0] ?? '')}`.trim() : 'served'),
      ),
    ).finally(() => client.close());
  }

  describe('join tokens', () => {
    it('give their devices labels, are listed without their secrets, and admit nobody once revoked', async () => {
      const { id, token: secret } = await token({ uses: 5, labels: { site: 'berlin' } });
      const { identity } = await enrolled('kiosk', secret);
      expect((await deviceOf(identity.deviceId)).labels).toEqual({ site: 'berlin' });
      const listed = (await call<{ id: string }[]>('GET', '/join-tokens')).find((each) => each.id === id);
      expect(listed).toMatchObject({ mode: 'auto', usesLeft: 4, revokedAt: null });
      expect(JSON.stringify(listed)).not.toContain(secret.split('.')[1]);
      expect(await call('DELETE', `/join-tokens/${id}`)).toMatchObject({ id, revokedAt: expect.any(String) });
      await expect(enrolled('other', secret)).rejects.toThrow('unknown or has expired, or was revoked');
      await session(identity).next('welcome');
    });

    it('admit as many as they have uses for of a fleet that comes at once, each with a name of its own and a record in the chain', async () => {
      const { id, token: secret } = await token({ uses: 30 });
      const { sequence } = await call<{ sequence: number }>('GET', '/audit/head');
      const outcomes = await Promise.allSettled(Array.from({ length: 40 }, () => enrolled('box', secret)));
      const made = outcomes.flatMap((outcome) => (outcome.status === 'fulfilled' ? [outcome.value.identity.deviceName] : []));
      expect(made.sort()).toEqual(['box', ...Array.from({ length: 29 }, (_, i) => `box-${i + 2}`)].sort());
      expect((await call<{ id: string; usesLeft: number }[]>('GET', '/join-tokens')).find((each) => each.id === id)?.usesLeft).toBe(0);
      expect((await audit(sequence)).map(({ action }) => action)).toEqual(made.map(() => 'device.enrolled'));
      expect(verifyAudit(await audit())).toMatchObject({ ok: true });
    });

    it('let an operator decide: the device waits, is accepted after the token has ended, and keeps its id', async () => {
      const { id, token: secret } = await token({ uses: 2, mode: 'request', labels: { ring: 'canary' } });
      const at = await directory();
      await expect(enrolled('kiosk', secret, at)).rejects.toThrow(EnrolmentPending);
      await expect(enrolled('kiosk', secret, at)).rejects.toThrow('kiosk waits for an operator: matfleet device accept kiosk');
      const { enrolments } = (await graphql('{ enrolments { id name state labels { key value } } }')) as { enrolments: { id: string }[] };
      expect(enrolments).toMatchObject([{ name: 'kiosk', state: 'pending', labels: [{ key: 'ring', value: 'canary' }] }]);
      await call('DELETE', `/join-tokens/${id}`);
      const accepted = await call<{ id: string }>('POST', `/enrolments/${enrolments[0]!.id}/accept`);
      const { identity } = await enrolled('kiosk', secret, at);
      expect(identity.deviceId).toBe(accepted.id);
      expect(await deviceOf(accepted.id)).toMatchObject({ name: 'kiosk', labels: { ring: 'canary' }, standing: 'accepted' });
    });

    it('let an operator reject, and change their mind', async () => {
      const { token: secret } = await token({ mode: 'request' });
      const at = await directory();
      await expect(enrolled('kiosk', secret, at)).rejects.toThrow('waits for an operator');
      const [waiting] = (await call<{ id: string; state: string }[]>('GET', '/enrolments')).filter(({ state }) => state === 'pending');
      await graphql(`mutation { rejectEnrolment(id: "${waiting!.id}") { state } }`);
      await expect(enrolled('kiosk', secret, at)).rejects.toThrow('an operator has rejected this device');
      await graphql(`mutation { acceptEnrolment(id: "${waiting!.id}") { id name } }`);
      expect((await enrolled('kiosk', secret, at)).identity.deviceId).toBe(waiting!.id);
    });

    it('for announced keys alone admit those and cost a stranger no use', async () => {
      const { token: secret } = await token({ uses: 1, mode: 'preauthorised' });
      await expect(enrolled('stranger', secret)).rejects.toThrow('for announced keys only');
      const at = await directory();
      const publicKeyHash = publicKeyHashOf(await deviceKey(at));
      await call('POST', '/enrolments', { publicKeyHash, name: 'till-7', labels: { site: 'rome' } });
      await expect(call('POST', '/enrolments', { publicKeyHash })).rejects.toThrow('preauthorised already');
      const { identity } = await enrolled('whatever', secret, at);
      expect(await deviceOf(identity.deviceId)).toMatchObject({ name: 'till-7', labels: { site: 'rome' } });
    });
  });

  describe('keys', () => {
    it('change at a renewal: both count until the new one is first used, then the old one is refused', async () => {
      const { identity, directory: at } = await enrolled('kiosk');
      const client = new DeviceServiceClient(new URL(joinUrl).host, deviceCredentials(identity));
      const renewed = await renewIdentity(client, { directory: at, identity }).finally(() => client.close());
      expect(renewed.renewInMs).toBe(2_400_000);
      expect(renewed.identity.keyPem).not.toBe(identity.keyPem);
      const states = async () => (await call<{ state: string }[]>('GET', `/devices/${identity.deviceId}/keys`)).map(({ state }) => state);
      await session(identity).next('welcome');
      expect(await states()).toEqual(['accepted', 'offered']);
      await session(renewed.identity).next('welcome');
      expect(await states()).toEqual(['accepted', 'retired']);
      expect(await ended(session(identity))).toContain('was replaced');
      expect(await standingOf(identity)).toBe('16 key-retired');
      await expect(enrol({ joinUrl, token: (await token()).token, deviceName: 'kiosk', directory: await copyOf(identity) })).rejects.toThrow(
        'retired',
      );
    });

    it('tell the device when to renew by the clock of the control plane', async () => {
      const { identity } = await enrolled('kiosk');
      const { renewInMs } = await session(identity).next('welcome');
      expect(Number(renewInMs)).toBeGreaterThan(2_400_000 - 60_000);
      expect(Number(renewInMs)).toBeLessThanOrEqual(2_400_000);
    });

    it('that an operator offers make new hardware the same device', async () => {
      const { identity } = await enrolled('kiosk');
      const at = await directory();
      const publicKeyHash = publicKeyHashOf(await deviceKey(at));
      await call('POST', `/devices/${identity.deviceId}/keys`, { publicKeyHash });
      const again = await enrolled('kiosk', (await token()).token, at);
      expect(again.identity).toMatchObject({ deviceId: identity.deviceId, deviceName: 'kiosk' });
      await session(again.identity).next('welcome');
      expect(await ended(session(identity))).toContain('was replaced');
    });
  });

  /** A disk with this key and nothing else. */
  async function copyOf({ keyPem }: Identity): Promise<string> {
    const at = await directory();
    await writeFile(join(at, 'device.key'), keyPem, { mode: 0o600 });
    return at;
  }

  describe('revocation', () => {
    const download = (identity: Identity): Promise<string> => {
      const client = new ArtifactServiceClient(new URL(joinUrl).host, deviceCredentials(identity));
      return new Promise<string>((resolve) =>
        client.getManifest({ modelVersionId: 'x' }, (error) => resolve(error ? error.details : 'served')),
      ).finally(() => client.close());
    };

    it('ends the live session with the reason, refuses new ones and downloads, until the device is released', async () => {
      const { identity } = await enrolled('kiosk');
      const live = session(identity);
      await live.next('welcome');
      const startedAt = performance.now();
      await call('POST', `/devices/${identity.deviceId}/revoke`, { reason: 'stolen in Rome' });
      expect(await ended(live)).toBe('16 UNAUTHENTICATED: device kiosk was revoked: stolen in Rome');
      expect(performance.now() - startedAt).toBeLessThan(1_000);
      expect(await ended(session(identity))).toContain('stolen in Rome');
      expect(await standingOf(identity)).toBe('16 revoked');
      expect(await download(identity)).toContain('was revoked');
      expect(await deviceOf(identity.deviceId)).toMatchObject({ standing: 'revoked', standingReason: 'stolen in Rome' });
      await expect(enrol({ joinUrl, token: (await token()).token, deviceName: 'x', directory: await copyOf(identity) })).rejects.toThrow('revoked');
      await graphql(`mutation { releaseDevice(id: "${identity.deviceId}") { standing } }`);
      await session(identity).next('welcome');
      expect(await download(identity)).toContain('model version');
    });

    it('reaches a session that another replica holds, through the database alone', async () => {
      const other = await replica();
      const { identity } = await enrolled('kiosk');
      const live = session(identity, randomUUID(), other.get(Endpoints, { strict: false }).deviceUrl);
      await live.next('welcome');
      await graphql(`mutation { revokeDevice(id: "${identity.deviceId}", reason: "lost") { standing } }`);
      expect(await ended(live)).toContain('was revoked: lost');
    });
  });

  describe('a cloned disk', () => {
    it('is put into quarantine once two processes keep taking the session from each other, and stays there until an operator releases it', async () => {
      const { identity } = await enrolled('kiosk');
      const boots = [randomUUID(), randomUUID()];
      let why = '';
      for (let turn = 0; turn < 10 && why === ''; turn++) {
        const device = session(identity, boots[turn % 2]);
        why = await Promise.race([device.next('welcome').then(() => ''), ended(device)]);
      }
      expect(why).toContain('is in quarantine until an operator releases it: two machines use this identity');
      expect(await standingOf(identity)).toBe('16 quarantined');
      expect(await deviceOf(identity.deviceId)).toMatchObject({ standing: 'quarantined' });
      expect((await audit()).at(-1)).toMatchObject({ action: 'device.quarantined', actor: 'control-plane', before: { standing: 'accepted' } });
      await call('POST', `/devices/${identity.deviceId}/release`);
      await session(identity, boots[0]).next('welcome');
      await session(identity, boots[1]).next('welcome');
      expect((await deviceOf(identity.deviceId)).standing).toBe('accepted');
    });

    it('is not what a device is that restarts four times and reconnects in between', async () => {
      const { identity } = await enrolled('kiosk');
      for (let restart = 0; restart < 4; restart++) {
        const boot = randomUUID();
        for (let connection = 0; connection < 2; connection++) await session(identity, boot).next('welcome');
      }
      expect((await deviceOf(identity.deviceId)).standing).toBe('accepted');
    });
  });

  describe('a decommissioned device', () => {
    it('is told to wipe, says that it has, leaves a tombstone with its name, and never comes back', async () => {
      const { identity } = await enrolled('kiosk');
      const live = session(identity);
      await live.next('welcome');
      await call('POST', `/devices/${identity.deviceId}/decommission`, { reason: 'sold', wipe: true });
      expect(await ended(live)).toContain('device kiosk was decommissioned');
      expect(await standingOf(identity)).toBe('16 wipe');
      const client = new DeviceServiceClient(new URL(joinUrl).host, deviceCredentials(identity));
      const confirm = () => new Promise<string>((resolve) => client.confirmWipe({}, (error) => resolve(error?.details ?? 'ok')));
      expect([await confirm(), await confirm()]).toEqual(['ok', 'ok']);
      client.close();
      const [tombstone] = await call<object[]>('GET', '/tombstones');
      expect(tombstone).toMatchObject({ deviceId: identity.deviceId, name: 'kiosk', reason: 'sold', wipe: true, wipedAt: expect.any(String) });
      await expect(deviceOf(identity.deviceId)).rejects.toThrow('404');
      await expect(enrol({ joinUrl, token: (await token()).token, deviceName: 'kiosk', directory: await copyOf(identity) })).rejects.toThrow(
        'retired',
      );
      const about = await call<AuditRecord[]>('GET', `/audit?subject=device:${identity.deviceId}`);
      expect(about.map(({ action }) => action)).toEqual(['device.wiped', 'device.decommissioned', 'device.enrolled']);
    });

    it('that was not told to wipe cannot say that it did', async () => {
      const { identity } = await enrolled('kiosk');
      const client = new DeviceServiceClient(new URL(joinUrl).host, deviceCredentials(identity));
      const confirm = () => new Promise<string>((resolve) => client.confirmWipe({}, (error) => resolve(error?.details ?? 'ok')));
      expect(await confirm()).toContain('was not told to wipe');
      await call('DELETE', `/devices/${identity.deviceId}`);
      expect(await confirm()).toContain('was not told to wipe');
      expect(await standingOf(identity)).toBe('16 decommissioned');
      client.close();
    });
  });

  describe('the audit log', () => {
    it('is one whole chain however many change things at once, and holds no secret', async () => {
      const before = (await call<{ sequence: number }>('GET', '/audit/head')).sequence;
      const made = await Promise.all(Array.from({ length: 12 }, () => token()));
      const records = await audit();
      expect(verifyAudit(records)).toMatchObject({ ok: true, records: before + 12 });
      expect((await graphql('{ auditHead { sequence hash } }'))['auditHead']).toEqual({ sequence: before + 12, hash: records.at(-1)!.hash });
      expect(records.at(-1)).toMatchObject({ actor: expect.stringMatching(/^key:/), action: 'join-token.created' });
      const text = JSON.stringify(records);
      for (const secret of [apiKey, ...made.map((each) => each.token.split('.')[1]!)]) expect(text).not.toContain(secret);
    });

    it('writes no record of a change that did not happen, and no change happens without one', async () => {
      const { sequence } = await call<{ sequence: number }>('GET', '/audit/head');
      await expect(call('POST', '/devices/nobody/revoke', { reason: 'x' })).rejects.toThrow('404');
      await expect(enrolled('stranger', (await token({ mode: 'preauthorised' })).token)).rejects.toThrow('announced');
      expect((await audit(sequence)).map(({ action }) => action)).toEqual(['join-token.created']);
    });

    it('cannot be changed in the database, not even by its owner', async () => {
      const client = new pg.Client({ connectionString: database.url });
      client.on('error', () => {});
      await client.connect();
      for (const sql of ['UPDATE audit_records SET actor = $$me$$', 'DELETE FROM audit_records', 'TRUNCATE audit_records'])
        await expect(client.query(sql)).rejects.toThrow('audit_records is append-only');
      await client.end();
    });
  });
});
