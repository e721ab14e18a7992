import { z } from 'zod';
import { connect, withApiOptions, type ApiOptions } from './api.js';
import { parseWhole } from './arguments.js';
import type { Register } from './command.js';
import { table } from './output.js';

const Key = z.looseObject({
  id: z.string(),
  name: z.string(),
  role: z.string(),
  devices: z.string().nullable(),
  installation: z.boolean(),
  expiresAt: z.string().nullable(),
  revokedAt: z.string().nullable(),
  lastUsedAt: z.string().nullable(),
});
const IssuedKey = Key.extend({ secret: z.string() });
const most = z.number().nullable();
const Tenant = z.looseObject({
  ...{ id: z.string(), name: z.string(), createdAt: z.string() },
  ...{ devicesMax: most, modelBytesMax: most, queuedInferencesMax: most, apiCallsPerMinuteMax: most },
});

const QUOTAS = {
  devices: 'devicesMax',
  modelBytes: 'modelBytesMax',
  queuedInferences: 'queuedInferencesMax',
  apiCallsPerMinute: 'apiCallsPerMinuteMax',
} as const;
const Caller = z.looseObject({ tenantId: z.string(), role: z.string(), installation: z.boolean(), devices: z.string().nullable() });

interface NewKey extends ApiOptions {
  readonly role: string;
  readonly filter?: string;
  readonly ttlSeconds?: string;
  readonly installation?: boolean;
}

/** Who may use the API: keys with their roles, and the organisations that they are of. */
export const registerAccessCommands: Register = (program, context) => {
  registerKeys(program, context);
  registerTenants(program, context);
};

const registerKeys: Register = (program, { output, signal }) => {
  withApiOptions(program.command('whoami').description('tell what this API key may do')).action(async (options: ApiOptions) => {
    const api = await connect(options, signal);
    output.result(await api.get('/api/v1/caller', Caller), ({ tenantId, role, installation, devices }) =>
      [`${role} of tenant ${tenantId}`, ...(installation ? ['of the installation'] : []), ...(devices === null ? [] : [`for ${devices}`])].join(', '),
    );
  });

  const key = program.command('key').description('API keys: make, list and revoke them');
  withApiOptions(key.command('create').description('make a key; its secret is shown once').argument('<name>'))
    .requiredOption('--role <role>', 'viewer, operator, publisher or admin')
    .option('--filter <filter>', 'the devices that it means, in CEL; without: all')
    .option('--ttl-seconds <s>', 'how long it is good for; without: until it is revoked')
    .option('--installation', 'may make tenants and act in each')
    .action(async (name: string, options: NewKey) => {
      const body = {
        name,
        role: options.role,
        ...(options.filter !== undefined && { devices: options.filter }),
        ...(options.ttlSeconds !== undefined && { ttlSeconds: parseWhole('--ttl-seconds', options.ttlSeconds, 1) }),
        ...(options.installation && { installation: true }),
      };
      const issued = await (await connect(options, signal)).post('/api/v1/api-keys', body, IssuedKey);
      output.note(`${issued.role} key ${issued.id}${issued.expiresAt === null ? '' : `, valid until ${issued.expiresAt}`}`);
      output.result(issued, ({ secret }) => secret);
    });
  withApiOptions(key.command('list').description('list the keys, newest first')).action(async (options: ApiOptions) => {
    const api = await connect(options, signal);
    output.result(await api.get('/api/v1/api-keys', z.array(Key)), (keys) =>
      table(keys, [
        { title: 'id', value: ({ id }) => id },
        { title: 'name', value: (row) => row.name },
        { title: 'role', value: ({ role, installation }) => (installation ? `${role}, installation` : role) },
        { title: 'devices', value: ({ devices }) => devices ?? 'all' },
        { title: 'until', value: ({ revokedAt, expiresAt }) => (revokedAt ? `revoked ${revokedAt}` : (expiresAt ?? '-')) },
        { title: 'last used', value: ({ lastUsedAt }) => lastUsedAt ?? 'never' },
      ]),
    );
  });
  withApiOptions(key.command('revoke').description('let nobody in with this key any more').argument('<id>')).action(
    async (id: string, options: ApiOptions) => {
      const api = await connect(options, signal);
      output.result(await api.delete(`/api/v1/api-keys/${encodeURIComponent(id)}`, Key), ({ name }) => `key ${name} is revoked`);
    },
  );
};

const registerTenants: Register = (program, { output, signal }) => {
  const tenant = program.command('tenant').description('the organisations on this installation; --tenant acts in one of them');
  withApiOptions(tenant.command('create').description('make one').argument('<id>', 'a-z, 0-9 and "-"'))
    .option('--name <name>', 'how people call it')
    .action(async (id: string, options: ApiOptions & { name?: string }) => {
      const api = await connect(options, signal);
      const body = { id, ...(options.name !== undefined && { name: options.name }) };
      output.result(await api.post('/api/v1/tenants', body, Tenant), (made) => `tenant ${made.id} is made`);
    });
  withApiOptions(tenant.command('limit').description('limit what one may have at most; "none" takes a limit away').argument('<id>'))
    .option('--devices <n>')
    .option('--model-bytes <n>', 'of all chunks that its manifests name')
    .option('--queued-inferences <n>', 'that wait or run')
    .option('--api-calls-per-minute <n>', 'at each replica')
    .action(async (id: string, options: ApiOptions & Partial<Record<keyof typeof QUOTAS, string>>) => {
      const given = (Object.keys(QUOTAS) as (keyof typeof QUOTAS)[]).filter((name) => options[name] !== undefined);
      const patch = Object.fromEntries(
        given.map((name) => [QUOTAS[name], options[name] === 'none' ? null : parseWhole(`--${name}`, options[name]!, 0)]),
      );
      const api = await connect(options, signal);
      output.result(await api.patch(`/api/v1/tenants/${encodeURIComponent(id)}`, patch, Tenant), (tenant) =>
        Object.entries(QUOTAS)
          .map(([name, field]) => `${name}: ${tenant[field] ?? 'none'}`)
          .join('\n'),
      );
    });
  withApiOptions(tenant.command('list').description('list them')).action(async (options: ApiOptions) => {
    const api = await connect(options, signal);
    output.result(await api.get('/api/v1/tenants', z.array(Tenant)), (tenants) =>
      table(tenants, [
        { title: 'id', value: ({ id }) => id },
        { title: 'name', value: ({ name }) => name },
        { title: 'since', value: ({ createdAt }) => createdAt },
      ]),
    );
  });
};
