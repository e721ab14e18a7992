import 'reflect-metadata';
import { randomBytes } from 'node:crypto';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { type AuditRecord, verifyAudit } from '@matfleet/history';
import { LIFETIMES, parseMetadata, roleKeys, rootMetadata, serialize } from '@matfleet/trust';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import { asTenant } from '../../../../test/support/as-tenant.js';
import { createDatabase, type TestDatabase } from '../../../../test/support/database.js';
import { enrolledDevice } from '../../../../test/support/enrolled-device.js';
import { manifestOnlyPackage } from '../../../../test/support/manifest-only-package.js';
import { ApiKeyService } from '../access/api-key.service.js';
import { createApplication } from '../application.js';
import { parseConfig } from '../config.js';
import { migrate } from '../database/migrate.js';
import { EnrolmentRepository } from '../identity/enrolment.repository.js';
import { createLogger, PinoNestLogger } from '../telemetry.js';
import type { AuditAction } from './audit.js';

/** Why an operation that is no reading writes no record. */
interface Exempt {
  readonly exempt: string;
}
/** An operation, made to change something, and what is written down of it. */
interface Change {
  readonly action: AuditAction;
  /** `before`: something was there and changed, so that the record holds it. */
  readonly before?: true;
  readonly run: () => Promise<unknown>;
}
type Case = Exempt | Change;

const exempt = (why: string): Exempt => ({ exempt: why });
const keyHash = (): string => randomBytes(32).toString('hex');

/** Every operation that the running application offers is here, or this spec fails: one that is new needs a case. */
describe('the audit log', () => {
  let database: TestDatabase;
  let dataDir: string;
  let app: NestFastifyApplication;
  let [url, apiKey] = ['', ''];
  let seed = 0;

  beforeAll(async () => {
    database = await createDatabase();
    await migrate(database.url);
    dataDir = await mkdtemp(join(tmpdir(), 'matfleet-audited-'));
    const config = parseConfig({ MATFLEET_DATA_DIR: dataDir, MATFLEET_DEVICE_PORT: '0' });
    app = await createApplication(config, database.url, new PinoNestLogger(createLogger('fatal')));
    await app.get(ApiKeyService, { strict: false }).ensureFirstKey();
    await app.listen(0, '127.0.0.1');
    url = await app.getUrl();
    apiKey = (await readFile(join(dataDir, 'admin-api-key'), 'utf8')).trim();
  });
  afterAll(async () => {
    await app?.close();
    await database?.drop();
    await rm(dataDir, { recursive: true, force: true });
  });

  async function call<T>(method: string, path: string, body?: object | Uint8Array, headers: Record<string, string> = {}): Promise<T> {
    const isBytes = body instanceof Uint8Array;
    const response = await fetch(`${url}/api/v1/${path}`, {
      method,
      headers: {
        authorization: `Bearer ${apiKey}`,
        ...(body && { 'content-type': isBytes ? 'application/octet-stream' : 'application/json' }),
        ...headers,
      },
      ...(body && { body: isBytes ? new Uint8Array(body) : JSON.stringify(body) }),
    });
    const text = await response.text();
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`);
    return (text === '' ? undefined : JSON.parse(text)) as T;
  }
  async function graphql<T>(query: string, variables: object = {}): Promise<T> {
    const response = await fetch(`${url}/graphql`, {
      method: 'POST',
      headers: { authorization: `Bearer ${apiKey}`, 'content-type': 'application/json' },
      body: JSON.stringify({ query, variables }),
    });
    const { data, errors } = (await response.json()) as { data: T; errors?: { message: string }[] };
    if (errors) throw new Error(errors.map(({ message }) => message).join('; '));
    return data;
  }

  const device = (): Promise<string> => enrolledDevice(app, `device-${++seed}`);
  const revoked = async (): Promise<string> => {
    const id = await device();
    await call('POST', `devices/${id}/revoke`, { reason: 'for the spec' });
    return id;
  };
  const token = (): Promise<{ id: string; token: string }> => call('POST', 'join-tokens', { mode: 'request' });
  async function waiting(): Promise<string> {
    const { id: tokenId } = await token();
    const row = await asTenant(app.get(EnrolmentRepository, { strict: false })).request(
      { publicKeyHash: keyHash(), name: `waits-${++seed}`, labels: {} },
      tokenId,
    );
    if (typeof row === 'string') throw new Error(row);
    return row.id;
  }
  const register = async () => {
    const model = manifestOnlyPackage(`model-${++seed}`, seed);
    await call('POST', 'models', model.manifest);
    for (const [id, bytes] of model.chunks) await call('PUT', `chunks/${id}`, bytes);
    return model.id;
  };
  const key = async () => (await call<{ id: string }>('POST', 'api-keys', { name: 'audited', role: 'viewer' })).id;
  const published = async () => {
    const id = await register();
    await call('POST', `models/${id}/publish`);
    return id;
  };
  const rollout = async (plan: object = {}): Promise<string> =>
    (await call<{ id: string }>('POST', 'rollouts', { modelVersionId: await published(), deviceIds: [await device()], plan })).id;
  const paused = async (): Promise<string> => {
    const id = await rollout();
    await call('POST', `rollouts/${id}/pause`);
    return id;
  };
  async function nextRoot(): Promise<Uint8Array> {
    const response = await fetch(`${url}/api/v1/trust/metadata/root.json`, { headers: { authorization: `Bearer ${apiKey}` } });
    const root = parseMetadata('root', Buffer.from(await response.arrayBuffer()));
    const named = (role: 'root' | 'targets' | 'snapshot' | 'timestamp') => roleKeys(root, role);
    const roles = { root: named('root'), targets: named('targets'), snapshot: named('snapshot'), timestamp: named('timestamp') };
    return serialize(rootMetadata(root.signed.version + 1, new Date(Date.now() + LIFETIMES.root), roles));
  }

  const rest: Record<string, Case> = {
    'POST /api/v1/join-tokens': { action: 'join-token.created', run: token },
    'DELETE /api/v1/join-tokens/{id}': {
      action: 'join-token.revoked',
      before: true,
      run: async () => call('DELETE', `join-tokens/${(await token()).id}`),
    },
    'POST /api/v1/enrolments': { action: 'enrolment.preauthorised', run: () => call('POST', 'enrolments', { publicKeyHash: keyHash() }) },
    'POST /api/v1/enrolments/{id}/accept': {
      action: 'device.enrolled',
      before: true,
      run: async () => call('POST', `enrolments/${await waiting()}/accept`),
    },
    'POST /api/v1/enrolments/{id}/reject': {
      action: 'enrolment.rejected',
      before: true,
      run: async () => call('POST', `enrolments/${await waiting()}/reject`),
    },
    'POST /api/v1/devices/{id}/revoke': { action: 'device.revoked', before: true, run: revoked },
    'POST /api/v1/devices/{id}/release': {
      action: 'device.released',
      before: true,
      run: async () => call('POST', `devices/${await revoked()}/release`),
    },
    'POST /api/v1/devices/{id}/decommission': {
      ...{ action: 'device.decommissioned', before: true },
      run: async () => call('POST', `devices/${await device()}/decommission`, { reason: 'sold' }),
    },
    'DELETE /api/v1/devices/{id}': { action: 'device.decommissioned', before: true, run: async () => call('DELETE', `devices/${await device()}`) },
    'POST /api/v1/devices/{id}/keys': {
      action: 'device.key-offered',
      run: async () => call('POST', `devices/${await device()}/keys`, { publicKeyHash: keyHash() }),
    },
    'PATCH /api/v1/devices/{id}/labels': {
      ...{ action: 'device.labelled', before: true },
      run: async () => call('PATCH', `devices/${await device()}/labels`, { site: 'berlin' }),
    },
    'POST /api/v1/devices/{id}/evaluate': { action: 'device.evaluated', run: async () => call('POST', `devices/${await device()}/evaluate`) },
    'POST /api/v1/models': { action: 'model.registered', run: () => call('POST', 'models', manifestOnlyPackage(`model-${++seed}`, seed).manifest) },
    'POST /api/v1/models/{id}/publish': { action: 'model.published', before: true, run: published },
    'PUT /api/v1/models/{id}/pin': { action: 'model.pinned', run: async () => call('PUT', `models/${await published()}/pin`) },
    'DELETE /api/v1/models/{id}/pin': {
      action: 'model.unpinned',
      run: async () => {
        const id = await published();
        await call('PUT', `models/${id}/pin`);
        await call('DELETE', `models/${id}/pin`);
      },
    },
    'POST /api/v1/models/gc': {
      action: 'model.retired',
      run: async () => {
        // What other cases left may stay: one version is to go.
        for (const { id } of await call<{ id: string }[]>('GET', 'models')) await call('PUT', `models/${id}/pin`);
        await register();
        await call('POST', 'models/gc', { olderThanSeconds: 0, remove: true });
      },
    },
    'POST /api/v1/chunks/{id}/url': exempt('it gives for a while what its caller may read anyway, and changes nothing'),
    'PUT /api/v1/chunks/{id}': exempt('its bytes are named by a manifest, whose registration is written down, and by their own hash'),
    'POST /api/v1/rollouts': { action: 'rollout.started', run: () => rollout() },
    'POST /api/v1/rollouts/{id}/pause': {
      action: 'rollout.paused',
      before: true,
      run: async () => call('POST', `rollouts/${await rollout()}/pause`),
    },
    'POST /api/v1/rollouts/{id}/resume': {
      action: 'rollout.resumed',
      before: true,
      run: async () => call('POST', `rollouts/${await paused()}/resume`),
    },
    'POST /api/v1/rollouts/{id}/abort': {
      action: 'rollout.aborted',
      before: true,
      run: async () => call('POST', `rollouts/${await paused()}/abort`, {}),
    },
    'POST /api/v1/rollouts/{id}/approve': {
      ...{ action: 'rollout.approved', before: true },
      run: async () => call('POST', `rollouts/${await rollout({ approval: true })}/approve`),
    },
    'POST /api/v1/inferences': exempt('it uses the fleet and changes nothing of it; it stands in its own table'),
    'POST /api/v1/session': { action: 'session.opened', run: () => call('POST', 'session', { apiKey }) },
    'DELETE /api/v1/session': {
      ...{ action: 'session.closed', before: true },
      async run() {
        const response = await fetch(`${url}/api/v1/session`, {
          method: 'POST',
          headers: { 'content-type': 'application/json' },
          body: JSON.stringify({ apiKey }),
        });
        await call('DELETE', 'session', undefined, { cookie: response.headers.getSetCookie()[0]!.split(';')[0]!, origin: url });
      },
    },
    'POST /api/v1/api-keys': { action: 'api-key.created', run: () => call('POST', 'api-keys', { name: 'audited', role: 'viewer' }) },
    'DELETE /api/v1/api-keys/{id}': { action: 'api-key.revoked', before: true, run: async () => call('DELETE', `api-keys/${await key()}`) },
    'POST /api/v1/tenants': { action: 'tenant.created', run: () => call('POST', 'tenants', { id: `tenant-${++seed}` }) },
    'PATCH /api/v1/tenants/{id}': { action: 'tenant.limited', before: true, run: () => call('PATCH', 'tenants/default', { devicesMax: 10_000 }) },
    'POST /api/v1/trust/keys': { action: 'trust.key-made', run: () => call('POST', 'trust/keys') },
    'PUT /api/v1/trust/root': { action: 'trust.root-signed', run: async () => call('PUT', 'trust/root', await nextRoot()) },
    'POST /api/v1/trust/rotate/{role}': { action: 'trust.root-signed', run: () => call('POST', 'trust/rotate/timestamp') },
  };

  const mutation =
    (field: string, types: string, args: string, variables: () => Promise<object>, selection = '{ __typename }') =>
    () =>
      variables().then((values) => graphql(`mutation (${types}) { ${field}(${args}) ${selection} }`, values));
  const byId = (field: string, id: () => Promise<string>) => mutation(field, '$id: ID!', 'id: $id', async () => ({ id: await id() }));

  const mutations: Record<string, Case> = {
    createJoinToken: { action: 'join-token.created', run: () => graphql('mutation { createJoinToken { __typename } }') },
    revokeJoinToken: { action: 'join-token.revoked', before: true, run: byId('revokeJoinToken', async () => (await token()).id) },
    preauthoriseKey: {
      action: 'enrolment.preauthorised',
      run: mutation('preauthoriseKey', '$hash: String!', 'publicKeyHash: $hash', async () => ({ hash: keyHash() })),
    },
    acceptEnrolment: { action: 'device.enrolled', before: true, run: byId('acceptEnrolment', waiting) },
    rejectEnrolment: { action: 'enrolment.rejected', before: true, run: byId('rejectEnrolment', waiting) },
    revokeDevice: {
      ...{ action: 'device.revoked', before: true },
      run: mutation('revokeDevice', '$id: ID!', 'id: $id, reason: "stolen"', async () => ({ id: await device() })),
    },
    releaseDevice: { action: 'device.released', before: true, run: byId('releaseDevice', revoked) },
    decommissionDevice: {
      ...{ action: 'device.decommissioned', before: true },
      run: mutation('decommissionDevice', '$id: ID!', 'id: $id, reason: "sold"', async () => ({ id: await device() })),
    },
    offerDeviceKey: {
      action: 'device.key-offered',
      run: mutation('offerDeviceKey', '$id: ID!, $hash: String!', 'deviceId: $id, publicKeyHash: $hash', async () => ({
        id: await device(),
        hash: keyHash(),
      })),
    },
    setDeviceLabels: {
      ...{ action: 'device.labelled', before: true },
      run: mutation('setDeviceLabels', '$id: ID!', 'id: $id, labels: [{ key: "site", value: "rome" }]', async () => ({ id: await device() })),
    },
    evaluateDevice: { action: 'device.evaluated', run: byId('evaluateDevice', device) },
    pauseRollout: { action: 'rollout.paused', before: true, run: byId('pauseRollout', rollout) },
    resumeRollout: { action: 'rollout.resumed', before: true, run: byId('resumeRollout', paused) },
    abortRollout: { action: 'rollout.aborted', before: true, run: byId('abortRollout', paused) },
    approveRollout: { action: 'rollout.approved', before: true, run: byId('approveRollout', () => rollout({ approval: true })) },
    startRollout: {
      action: 'rollout.started',
      run: mutation('startRollout', '$id: ID!, $devices: [ID!]', 'modelVersionId: $id, deviceIds: $devices', async () => ({
        id: await published(),
        devices: [await device()],
      })),
    },
    createApiKey: { action: 'api-key.created', run: () => graphql('mutation { createApiKey(input: { name: "audited", role: "viewer" }) { id } }') },
    revokeApiKey: { action: 'api-key.revoked', before: true, run: byId('revokeApiKey', key) },
    createTenant: { action: 'tenant.created', run: mutation('createTenant', '$id: ID!', 'id: $id', async () => ({ id: `tenant-${++seed}` })) },
    setTenantQuotas: {
      ...{ action: 'tenant.limited', before: true },
      run: () => graphql('mutation { setTenantQuotas(id: "default", quotas: { devicesMax: null }) { id } }'),
    },
    createInference: exempt('it uses the fleet and changes nothing of it; it stands in its own table'),
  };

  const records = (after: number): Promise<AuditRecord[]> => call('GET', `audit?limit=1000&after=${after}`);
  const headSequence = async (): Promise<number> => (await call<{ sequence: number }>('GET', 'audit/head')).sequence;

  async function leavesARecord({ action, before, run }: Change): Promise<void> {
    const from = await headSequence();
    await run();
    const written = (await records(from)).filter((record) => record.action === action);
    expect(written.map(({ actor }) => actor.split(':')[0])).toEqual(['key']);
    const [record] = written;
    if (before) expect(record!.before).not.toBeNull();
    expect(record!.before === null && record!.after === null).toBe(action === 'device.evaluated');
  }

  it('has a case for every REST operation that is no reading', async () => {
    const { paths } = (await (await fetch(`${url}/api/openapi.json`)).json()) as { paths: Record<string, Record<string, unknown>> };
    const offered = Object.entries(paths).flatMap(([path, methods]) =>
      Object.keys(methods).flatMap((method) => (method === 'get' || method === 'head' ? [] : [`${method.toUpperCase()} ${path}`])),
    );
    expect(offered.length).toBeGreaterThan(20);
    expect(Object.keys(rest).sort()).toEqual(offered.sort());
  });

  it('has a case for every mutation', async () => {
    const { __schema: schema } = await graphql<{ __schema: { mutationType: { fields: { name: string }[] } } }>(
      '{ __schema { mutationType { fields { name } } } }',
    );
    expect(Object.keys(mutations).sort()).toEqual(schema.mutationType.fields.map(({ name }) => name).sort());
  });

  const changesOf = (cases: Record<string, Case>) => Object.entries(cases).filter((entry): entry is [string, Change] => 'run' in entry[1]);

  it.each(changesOf(rest))('holds who did it, and what was before and after: %s', (_name, change) => leavesARecord(change));

  it.each(changesOf(mutations))('holds who did it, and what was before and after: %s', (_name, change) => leavesARecord(change));

  it('is one chain from its first record to its last, whatever was written by whom', async () => {
    const all: AuditRecord[] = [];
    for (let after = 0; ; after = all.length) {
      const page = await records(after);
      all.push(...page);
      if (page.length === 0) break;
    }
    expect(verifyAudit(all)).toMatchObject({ ok: true, records: await headSequence() });
  });
});
