import 'reflect-metadata';
import { randomBytes, randomUUID } from 'node:crypto';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ChannelCredentials, makeGenericClientConstructor, type ServiceDefinition, type ServiceError } from '@grpc/grpc-js';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { ArtifactServiceService, DeviceServiceService, FallbackServiceService, ReplicaServiceService } from '@matfleet/protocol';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import { GraphQLSchemaHost } from '@nestjs/graphql';
import {
  getNamedType,
  type GraphQLArgument,
  type GraphQLInputField,
  type GraphQLInputType,
  type GraphQLObjectType,
  isInputObjectType,
  isListType,
  isNonNullType,
  isObjectType,
} from 'graphql';
import { createClient } from 'graphql-ws';
import WebSocket from 'ws';
import { createDatabase, type TestDatabase } from '../../../../test/support/database.js';
import { createApplication } from '../application.js';
import { parseConfig } from '../config.js';
import { migrate } from '../database/migrate.js';
import { PrismaService } from '../database/prisma.service.js';
import { inTenant } from '../database/scope.js';
import { Endpoints } from '../endpoints.js';
import { NewDeviceRepository } from '../identity/new-device.repository.js';
import { createLogger, PinoNestLogger } from '../telemetry.js';
import { ApiKeyService } from './api-key.service.js';
import { ROLES } from './permissions.js';

/** What everybody may do, as it was measured and looked at. `MATFLEET_TEST_WRITE_ACCESS=1` writes it anew. */
const REPORT = new URL('../../../../docs/access.md', import.meta.url);
const OPEN = ['POST /api/v1/session'];
/** Tells of devices that are gone too, and so of one of another tenant nothing: row-level security keeps it from the rows. */
const EMPTY = ['GET /api/v1/devices/{id}/timeline', 'Query.deviceTimeline', 'Subscription.deviceTimelineGrew'];
const SCOPE = 'labels.site == "a"';

const hash = (): string => randomBytes(32).toString('hex');

/** `-`: refused. `+`: let in. `0`: as if the device were not there. */
type Verdict = '-' | '+' | '0' | '!';

interface Operation {
  readonly name: string;
  /** Names a device. */
  readonly ofDevice: boolean;
  readonly call: (key: string | undefined, deviceId: string, headers?: Record<string, string>) => Promise<Verdict>;
}

describe('who may do what', () => {
  let database: TestDatabase;
  let dataDir: string;
  let app: NestFastifyApplication;
  let url = '';
  let operations: Operation[] = [];
  const keys = new Map<string, string>();
  let count = 0;

  beforeAll(async () => {
    database = await createDatabase();
    await migrate(database.url);
    dataDir = await mkdtemp(join(tmpdir(), 'matfleet-access-'));
    app = await createApplication(
      parseConfig({ MATFLEET_DATA_DIR: dataDir, MATFLEET_DEVICE_PORT: '0' }),
      database.url,
      new PinoNestLogger(createLogger('fatal')),
    );
    await app.get(ApiKeyService, { strict: false }).ensureFirstKey();
    await app.listen(0, '127.0.0.1');
    url = await app.getUrl();
    keys.set('installation', (await readFile(join(dataDir, 'admin-api-key'), 'utf8')).trim());
    const issue = async (body: object, tenant: string) =>
      (await (await send('POST', '/api/v1/api-keys', keys.get('installation'), { body, headers: { 'x-matfleet-tenant': tenant } })).json()) as {
        id: string;
        secret: string;
      };
    for (const id of ['north', 'south']) await send('POST', '/api/v1/tenants', keys.get('installation'), { body: { id } });
    for (const role of ROLES) {
      keys.set(role, (await issue({ name: role, role }, 'north')).secret);
      keys.set(`${role} of some devices`, (await issue({ name: role, role, devices: SCOPE }, 'north')).secret);
    }
    const [revoked, expired] = [await issue({ name: 'revoked', role: 'admin' }, 'north'), await issue({ name: 'expired', role: 'admin' }, 'north')];
    await send('DELETE', `/api/v1/api-keys/${revoked.id}`, keys.get('installation'), { headers: { 'x-matfleet-tenant': 'north' } });
    await app
      .get(PrismaService, { strict: false })
      .system.apiKey.update({ where: { id: expired.id }, data: { expiresAt: new Date(Date.now() - 1) } });
    keys.set('revoked', revoked.secret).set('expired', expired.secret);
    operations = [...(await restOperations()), ...(await graphqlOperations())];
  });
  afterAll(async () => {
    await app?.close();
    await database?.drop();
    await rm(dataDir, { recursive: true, force: true });
  });

  function send(
    method: string,
    path: string,
    key: string | undefined,
    { body, bytes, headers }: { body?: object; bytes?: boolean; headers?: Record<string, string> } = {},
  ) {
    return fetch(`${url}${path}`, {
      method,
      headers: {
        ...(key !== undefined && { authorization: `Bearer ${key}` }),
        ...(bytes ? { 'content-type': 'application/octet-stream' } : body && { 'content-type': 'application/json' }),
        ...headers,
      },
      ...(bytes ? { body: 'x' } : body && { body: JSON.stringify(body) }),
    });
  }

  async function device(tenant: string, site: string): Promise<string> {
    const made = { id: randomUUID(), publicKeyHash: randomBytes(32).toString('hex'), name: `d${++count}`, labels: { site } };
    await inTenant(tenant, () => app.get(NewDeviceRepository, { strict: false }).create(made, null, 'control-plane'));
    return made.id;
  }

  async function restOperations(): Promise<Operation[]> {
    interface Described {
      requestBody?: { content: Record<string, unknown> };
    }
    const { paths } = (await (await fetch(`${url}/api/openapi.json`)).json()) as { paths: Record<string, Record<string, Described>> };
    return Object.entries(paths).flatMap(([path, methods]) =>
      Object.entries(methods).map(([method, { requestBody }]): Operation => {
        const name = `${method.toUpperCase()} ${path}`;
        const ofDevice = path.startsWith('/api/v1/devices/{id}');
        return {
          name,
          ofDevice,
          call: async (key, deviceId, headers) => {
            const target = path.replace(/\{\w+\}/g, ofDevice ? deviceId : 'none');
            const bytes = requestBody?.content['application/octet-stream'] !== undefined;
            const options = {
              ...(requestBody && !bytes && { body: ofDevice && method === 'post' ? { reason: 'x', publicKeyHash: hash() } : {} }),
              bytes,
              ...(headers && { headers }),
            };
            const response = await send(method.toUpperCase(), target, key, options);
            const text = await response.text();
            if (response.status >= 500) throw new Error(`${name}: ${response.status} ${text}`);
            if (response.status === 401 || response.status === 403) return '-';
            return ofDevice && response.status === 404 ? '0' : '+';
          },
        };
      }),
    );
  }

  async function graphqlOperations(): Promise<Operation[]> {
    const ask = async (query: string, key: string | undefined, headers: Record<string, string> = {}) =>
      (await (await send('POST', '/graphql', key, { body: { query }, headers })).json()) as {
        errors?: { extensions?: { code?: string }; message: string }[];
        code?: string;
      };
    const { schema } = app.get(GraphQLSchemaHost, { strict: false });
    /** The shortest value that the type takes; a device's id where one is asked for. */
    const literal = (type: GraphQLInputType, text: string): string => {
      if (isNonNullType(type)) return literal(type.ofType, text);
      if (isListType(type)) return '[]';
      if (isInputObjectType(type)) return `{ ${required(Object.values(type.getFields()), 'none')} }`;
      return { Boolean: 'false', Int: '1', Float: '1' }[type.name] ?? JSON.stringify(text);
    };
    const required = (list: readonly (GraphQLArgument | GraphQLInputField)[], deviceId: string, ofDevice?: string): string =>
      list
        .filter(({ type }) => isNonNullType(type))
        .map(({ name, type }) => `${name}: ${literal(type, name === ofDevice ? deviceId : name === 'publicKeyHash' ? hash() : 'none')}`)
        .join(', ');
    const of = (kind: 'query' | 'mutation' | 'subscription', root: GraphQLObjectType | null | undefined): Operation[] =>
      Object.values(root?.getFields() ?? {}).map(({ name, type, args }): Operation => {
        const argument = args.find((one) => one.name === 'deviceId' || (one.name === 'id' && /device/i.test(name)))?.name;
        const selection = isObjectType(getNamedType(type)) ? '{ __typename }' : '';
        const text = (deviceId: string): string => {
          const given = required(args, deviceId, argument);
          return `${kind} { ${name}${given && `(${given})`} ${selection} }`;
        };
        const verdict = (codes: readonly (string | undefined)[]): Verdict => {
          if (codes.some((code) => code === 'permission-denied' || code === 'unauthenticated')) return '-';
          if (codes.includes('internal')) return '!';
          return argument !== undefined && codes.includes('not-found') ? '0' : '+';
        };
        return {
          name: `${root!.name}.${name}`,
          ofDevice: argument !== undefined,
          call: async (key, deviceId, headers = {}) => {
            if (kind === 'subscription') return verdict(await listen(text(deviceId), key, headers));
            const { errors = [], code } = await ask(text(deviceId), key, headers);
            for (const { message } of errors)
              if (/^(Syntax|Cannot query|Unknown arg|Field ")/.test(message)) throw new Error(`${text(deviceId)}: ${message}`);
            return verdict([code, ...errors.map((error) => error.extensions?.code)]);
          },
        };
      });
    return [...of('query', schema.getQueryType()), ...of('mutation', schema.getMutationType()), ...of('subscription', schema.getSubscriptionType())];
  }

  /** The codes that a subscription is refused with; none when it stands for a moment. */
  async function listen(query: string, key: string | undefined, headers: Record<string, string>): Promise<(string | undefined)[]> {
    const client = createClient({
      url: `${url.replace('http', 'ws')}/graphql`,
      retryAttempts: 0,
      webSocketImpl: class extends WebSocket {
        constructor(address: string, protocols: string | string[]) {
          super(address, protocols, { headers: { ...(key !== undefined && { authorization: `Bearer ${key}` }), ...headers } });
        }
      },
    });
    const codes = await new Promise<(string | undefined)[]>((resolve) => {
      // Longer where a device is looked up first.
      setTimeout(() => resolve([]), query.includes('deviceId') ? 1_500 : 400);
      const heard = (errors: unknown): void =>
        resolve(Array.isArray(errors) ? errors.map((one: { extensions?: { code?: string } }) => one.extensions?.code) : ['unauthenticated']);
      client.subscribe({ query }, { next: ({ errors }) => errors && heard(errors), error: heard, complete: () => {} });
    });
    await client.dispose();
    return codes;
  }

  async function row({ name, ofDevice, call }: Operation): Promise<string[]> {
    const [inside, outside, foreign] = ofDevice ? ['north a', 'north b', 'south a'] : ['', '', ''];
    // What an allowed call does to its device must not meet the next one.
    const at = async (place: string): Promise<string> => (place === '' ? 'none' : device(...(place.split(' ') as [string, string])));
    const by = async (who: string, place: string, headers?: Record<string, string>): Promise<Verdict> =>
      call(keys.get(who), await at(place), headers);
    const all = await Promise.all(
      ['nobody', ...ROLES, 'installation'].map((who) =>
        who === 'installation' ? by(who, inside, { 'x-matfleet-tenant': 'north' }) : by(who, inside),
      ),
    );
    const some = await Promise.all(
      ROLES.map(async (role) => (await by(`${role} of some devices`, inside)) + (ofDevice ? await by(`${role} of some devices`, outside) : '')),
    );
    const dead = await Promise.all(['revoked', 'expired'].map((who) => by(who, inside)));
    const across = [await by('admin', inside, { 'x-matfleet-tenant': 'south' }), ofDevice ? await by('admin', foreign) : ' '];
    return [name, ...all, ...some, ...dead, ...across];
  }

  const HEAD = [
    'operation',
    'nobody',
    ...ROLES,
    'installation',
    ...ROLES.map((role) => `${role} of some`),
    'revoked',
    'expired',
    'into another tenant',
    "another tenant's device",
  ];

  it('is what docs/access.md says, for every operation of REST and GraphQL: by role, tenant and scope', async () => {
    const rows: string[][] = [];
    for (const operation of operations) rows.push(await row(operation));
    expect(rows.length).toBeGreaterThan(70);
    const text = await readFile(REPORT, 'utf8').catch(() => '');
    if (process.env['MATFLEET_TEST_WRITE_ACCESS'] === '1') await writeFile(REPORT, reportOf(rows));
    else expect(Object.fromEntries(rows.map(([name, ...cells]) => [name, cells.join(' ')]))).toEqual(cellsOf(text));
    // Rules that hold whatever the table says.
    for (const [name, nobody, ...cells] of rows) {
      const isOpen = OPEN.includes(name!);
      expect([name, nobody]).toEqual([name, isOpen ? '+' : '-']);
      expect([name, ...cells.slice(-4, -1)]).toEqual([name, ...(isOpen ? ['+', '+', '+'] : ['-', '-', '-'])]);
      expect([name, cells.at(-1)]).toEqual([name, EMPTY.includes(name!) ? '+' : expect.stringMatching(/^[ 0]$/)]);
      expect([name, cells.slice(5, 9).filter((cell) => cell.length === 2 && cell[1] === '+')]).toEqual([name, []]);
      expect([name, cells.join('')]).toEqual([name, expect.not.stringContaining('!')]);
    }
  }, 240_000);

  it('lets nothing but an enrolment through the device port without a certificate', async () => {
    const target = new URL(app.get(Endpoints, { strict: false }).deviceUrl!).host;
    const ca = await readFile(join(dataDir, 'ca', 'certificate.pem'));
    const open: string[] = [];
    let methods = 0;
    for (const service of [
      DeviceServiceService,
      ArtifactServiceService,
      FallbackServiceService,
      ReplicaServiceService,
    ] as unknown as ServiceDefinition[]) {
      const client = new (makeGenericClientConstructor(service, 'service'))(target, ChannelCredentials.createSsl(ca));
      for (const [name, { requestStream, responseStream, path, requestDeserialize }] of Object.entries(service)) {
        methods += 1;
        const empty: unknown = requestDeserialize(Buffer.alloc(0));
        const code = await new Promise<number>((resolve) => {
          const method = (client as unknown as Record<string, (...args: unknown[]) => NodeJS.EventEmitter>)[name]!.bind(client);
          const done = (error: ServiceError | null): void => resolve(error?.code ?? 0);
          if (!requestStream && !responseStream) return void method(empty, done);
          const call = requestStream ? method() : method(empty);
          call
            .on('error', done)
            .on('data', () => {})
            .on('end', () => resolve(0));
        });
        if (code !== 16 && code !== 7) open.push(`${path} ${code}`);
        // An enrolment is judged by its join token: an empty one opens nothing.
        else if (name === 'enroll') expect(code).not.toBe(16);
      }
      client.close();
    }
    expect(methods).toBeGreaterThan(7);
    expect(open.filter((line) => !line.includes('/Enroll'))).toEqual([]);
  });

  it('shows a key for some devices those alone, whatever it asks for, and the key’s own tenant its last use', async () => {
    const ids = [await device('north', 'a'), await device('north', 'b')];
    const some = keys.get('viewer of some devices');
    const listed = async (query: string): Promise<string[]> =>
      ((await (await send('GET', `/api/v1/devices?limit=1000${query}`, some)).json()) as { id: string; labels: { site: string } }[]).map(
        ({ id, labels }) => {
          expect(labels.site).toBe('a');
          return id;
        },
      );
    expect(await listed('')).toContain(ids[0]);
    expect(await listed(`&filter=${encodeURIComponent(`id == "${ids[0]}" || id == "${ids[1]}"`)}`)).toEqual([ids[0]]);
    const { data } = (await (await send('POST', '/graphql', some, { body: { query: '{ devices { id } }' } })).json()) as {
      data: { devices: { id: string }[] };
    };
    expect(data.devices.some(({ id }) => id === ids[1])).toBe(false);
    expect(await (await send('GET', '/api/v1/caller', some)).json()).toMatchObject({ tenantId: 'north', role: 'viewer', devices: SCOPE });

    const shown = (await (await send('GET', '/api/v1/api-keys', keys.get('admin'))).json()) as {
      name: string;
      devices: string | null;
      lastUsedAt: string | null;
    }[];
    expect(JSON.stringify(shown)).not.toContain('ecret');
    expect(Date.now() - Date.parse(shown.find(({ name, devices }) => name === 'viewer' && devices === SCOPE)!.lastUsedAt!)).toBeLessThan(600_000);
  });

  it('lets nobody make a key that can do more than its maker, or one whose filter is none', async () => {
    const make = (who: string, body: object) => send('POST', '/api/v1/api-keys', keys.get(who), { body: { name: 'x', role: 'viewer', ...body } });
    expect((await make('admin', { installation: true })).status).toBe(403);
    expect((await make('admin of some devices', {})).status).toBe(403);
    expect((await make('installation', { installation: true, devices: SCOPE })).status).toBe(400);
    const wrong = await make('admin', { devices: 'sight == "x"' });
    expect([wrong.status, await wrong.json()]).toMatchObject([400, { code: 'invalid-argument', detail: expect.stringContaining('column 1') }]);
  });

  const reportOf = (rows: string[][]): string =>
    [
      '# Who may do what',
      '',
      'Measured by `npm run test:access` over the running application: every operation of the OpenAPI document and of the GraphQL schema, called by everybody. `+` let in, `-` refused,',
      '`0` as if the device were not there. A key "of some" devices has two signs where an operation names a device: for one that it means, and for another one.',
      '',
      `| ${HEAD.join(' | ')} |`,
      `| ${HEAD.map(() => '---').join(' | ')} |`,
      ...rows.map((cells) => `| ${cells.map((cell, i) => (i === 0 ? `\`${cell}\`` : cell)).join(' | ')} |`),
      '',
    ].join('\n');

  const cellsOf = (text: string): Record<string, string> =>
    Object.fromEntries(
      text
        .split('\n')
        .filter((line) => line.startsWith('| `'))
        .map((line) => line.split('|').slice(1, -1))
        .map(([name, ...cells]) => [name!.trim().replaceAll('`', ''), cells.map((cell) => cell.trim() || ' ').join(' ')]),
    );
});
