import { z } from 'zod';
import { connect, withApiOptions, type Api, type ApiOptions } from './api.js';
import { labelPatch, parseWhole } from './arguments.js';
import type { Register } from './command.js';
import { Failure, UsageFailure } from './failure.js';
import { findDevice } from './fleet.js';
import { JoinToken } from './fleet-views.js';
import { table } from './output.js';
import { registerTimelineCommand } from './timeline.js';

const Enrolment = z.looseObject({ id: z.string(), name: z.string(), state: z.string(), publicKeyHash: z.string(), createdAt: z.string() });
type Enrolment = z.infer<typeof Enrolment>;
const Standing = z.looseObject({ name: z.string(), standing: z.string(), reason: z.string().nullable() });
const Named = z.looseObject({ id: z.string(), name: z.string() });
const Key = z.looseObject({ publicKeyHash: z.string(), state: z.string(), createdAt: z.string().nullable(), reusedAt: z.string().nullable() });
const Tombstone = z.looseObject({
  deviceId: z.string(),
  name: z.string(),
  reason: z.string(),
  wipe: z.boolean(),
  wipedAt: z.string().nullable(),
  createdAt: z.string(),
});
const TokenRow = z.looseObject({
  id: z.string(),
  mode: z.string(),
  labels: z.record(z.string(), z.string()),
  usesLeft: z.number(),
  expiresAt: z.string(),
  revokedAt: z.string().nullable(),
});

/** Who may become a device, and who may stay one. */
export const registerIdentityCommands: Register = (program, context) => {
  registerJoinTokens(program, context);
  const device = program.command('device').description('accept devices, refuse them, let them go, and see what happened to them');
  registerEnrolments(device, context);
  registerStanding(device, context);
  registerTimelineCommand(device, context);
};

const registerJoinTokens: Register = (program, { output, signal }) => {
  const joinToken = program.command('join-token').description('make a token with which devices join the fleet');
  withApiOptions(joinToken)
    .option('--uses <n>', 'how many devices may use it')
    .option('--ttl-seconds <s>', 'how long it is good for')
    .option('--mode <mode>', 'auto: everybody with it; request: whom an operator accepts; preauthorised: whose key was announced')
    .option('--label <key=value...>', 'what its devices are labelled with')
    .action(async (options: ApiOptions & { uses?: string; ttlSeconds?: string; mode?: string; label?: string[] }) => {
      const request = {
        ...(options.uses !== undefined && { uses: parseWhole('--uses', options.uses, 1) }),
        ...(options.ttlSeconds !== undefined && { ttlSeconds: parseWhole('--ttl-seconds', options.ttlSeconds, 1) }),
        ...(options.mode !== undefined && { mode: options.mode }),
        ...(options.label && { labels: labelPatch(options.label) }),
      };
      const api = await connect(options, signal);
      const token = await api.post('/api/v1/join-tokens', request, JoinToken);
      output.note(`valid until ${token.expiresAt}, ${token.usesLeft} uses`);
      output.result(token, (document) => document.token);
    });

  withApiOptions(program.command('join-tokens').description('list the join tokens, newest first')).action(async (options: ApiOptions) => {
    const api = await connect(options, signal);
    output.result(await api.get('/api/v1/join-tokens', z.array(TokenRow)), (tokens) =>
      table(tokens, [
        { title: 'id', value: ({ id }) => id },
        { title: 'mode', value: ({ mode }) => mode },
        { title: 'uses left', value: ({ usesLeft }) => `${usesLeft}`, align: 'right' },
        { title: 'until', value: ({ expiresAt, revokedAt }) => (revokedAt ? `revoked ${revokedAt}` : expiresAt) },
        {
          title: 'labels',
          value: ({ labels }) =>
            Object.entries(labels)
              .map(([key, value]) => `${key}=${value}`)
              .join(' '),
        },
      ]),
    );
  });

  withApiOptions(program.command('revoke-join-token').description('let nobody join with this token any more').argument('<id>')).action(
    async (id: string, options: ApiOptions) => {
      const api = await connect(options, signal);
      output.result(await api.delete(`/api/v1/join-tokens/${encodeURIComponent(id)}`, TokenRow), (token) => `join token ${token.id} is revoked`);
    },
  );
};

const registerEnrolments: Register = (device, { output, signal }) => {
  withApiOptions(device.command('waiting').description('list keys that wait for an operator, were announced, or were rejected')).action(
    async (options: ApiOptions) => {
      const api = await connect(options, signal);
      output.result(await api.get('/api/v1/enrolments', z.array(Enrolment)), (enrolments) =>
        enrolments.length === 0
          ? 'nobody waits'
          : table(enrolments, [
              { title: 'name', value: ({ name }) => name || '-' },
              { title: 'id', value: ({ id }) => id },
              { title: 'state', value: ({ state }) => state },
              { title: 'key', value: ({ publicKeyHash }) => publicKeyHash },
              { title: 'since', value: ({ createdAt }) => createdAt },
            ]),
      );
    },
  );

  withApiOptions(device.command('accept').description('make a device of what waits').argument('<enrolment>', 'name, id or key')).action(
    async (which: string, options: ApiOptions) => {
      const api = await connect(options, signal);
      const { id } = await findEnrolment(api, which);
      output.result(
        await api.post(`/api/v1/enrolments/${encodeURIComponent(id)}/accept`, {}, Named),
        ({ name }) => `${name} is a device of this fleet`,
      );
    },
  );

  withApiOptions(device.command('reject').description('turn away what waits').argument('<enrolment>', 'name, id or key')).action(
    async (which: string, options: ApiOptions) => {
      const api = await connect(options, signal);
      const { id } = await findEnrolment(api, which);
      output.result(await api.post(`/api/v1/enrolments/${encodeURIComponent(id)}/reject`, {}, Enrolment), ({ name }) => `${name} is rejected`);
    },
  );

  withApiOptions(
    device
      .command('preauthorise')
      .description('announce a key: its device is accepted as soon as it comes with a join token')
      .argument('<key>', 'SHA-256 of its public key: matfleet-agent --show-key prints it'),
  )
    .option('--name <name>', 'default: the name that the device brings')
    .option('--label <key=value...>', 'what it is labelled with')
    .action(async (publicKeyHash: string, options: ApiOptions & { name?: string; label?: string[] }) => {
      const api = await connect(options, signal);
      const body = {
        publicKeyHash,
        ...(options.name !== undefined && { name: options.name }),
        ...(options.label && { labels: labelPatch(options.label) }),
      };
      output.result(await api.post('/api/v1/enrolments', body, Enrolment), ({ publicKeyHash: key }) => `key ${key} is announced`);
    });
};

const registerStanding: Register = (device, { output, signal }) => {
  const post = async <T>(nameOrId: string, what: string, body: object, schema: z.ZodType<T>, options: ApiOptions): Promise<T> => {
    const api = await connect(options, signal);
    const { id } = await findDevice(api, nameOrId);
    return api.post(`/api/v1/devices/${encodeURIComponent(id)}/${what}`, body, schema);
  };
  const renderStanding = ({ name, standing, reason }: z.infer<typeof Standing>): string => `${name} is ${standing}${reason ? `: ${reason}` : ''}`;

  withApiOptions(device.command('revoke').description('refuse a device and end its session, until it is released').argument('<device>', 'name or id'))
    .requiredOption('--reason <text>', 'the device and the audit log show it')
    .action(async (name: string, options: ApiOptions & { reason: string }) =>
      output.result(await post(name, 'revoke', { reason: options.reason }, Standing, options), renderStanding),
    );

  withApiOptions(
    device.command('release').description('let a device in again that is in quarantine or was revoked').argument('<device>', 'name or id'),
  ).action(async (name: string, options: ApiOptions) => output.result(await post(name, 'release', {}, Standing, options), renderStanding));

  withApiOptions(device.command('decommission').description('take a device out of the fleet for good').argument('<device>', 'name or id'))
    .requiredOption('--reason <text>', 'the device and the audit log show it')
    .option('--wipe', 'the device also removes its models and keys, now or when it next comes by')
    .action(async (name: string, options: ApiOptions & { reason: string; wipe?: boolean }) => {
      const body = { reason: options.reason, wipe: options.wipe ?? false };
      output.result(await post(name, 'decommission', body, Tombstone, options), (gone) => `${gone.name} is no device of this fleet any more`);
    });

  withApiOptions(device.command('gone').description('list decommissioned devices, newest first')).action(async (options: ApiOptions) => {
    const api = await connect(options, signal);
    output.result(await api.get('/api/v1/tombstones', z.array(Tombstone)), (gone) =>
      table(gone, [
        { title: 'name', value: ({ name }) => name },
        { title: 'id', value: ({ deviceId }) => deviceId },
        { title: 'since', value: ({ createdAt }) => createdAt },
        { title: 'wiped', value: ({ wipe, wipedAt }) => wipedAt ?? (wipe ? 'when it comes by' : '-') },
        { title: 'why', value: ({ reason }) => reason },
      ]),
    );
  });

  withApiOptions(device.command('keys').description('list the keys of a device, or offer it another one').argument('<device>', 'name or id'))
    .option('--offer <key>', 'SHA-256 of a public key: it becomes the device’s key when it is first used')
    .action(async (name: string, options: ApiOptions & { offer?: string }) => {
      const api = await connect(options, signal);
      const path = `/api/v1/devices/${encodeURIComponent((await findDevice(api, name)).id)}/keys`;
      const keys =
        options.offer === undefined ? await api.get(path, z.array(Key)) : await api.post(path, { publicKeyHash: options.offer }, z.array(Key));
      output.result(keys, (rows) =>
        table(rows, [
          { title: 'key', value: ({ publicKeyHash }) => publicKeyHash },
          { title: 'state', value: ({ state }) => state },
          { title: 'since', value: ({ createdAt }) => createdAt ?? '-' },
          { title: 'used after it was retired', value: ({ reusedAt }) => reusedAt ?? '-' },
        ]),
      );
    });
};

async function findEnrolment(api: Api, which: string): Promise<Enrolment> {
  const enrolments = await api.get('/api/v1/enrolments', z.array(Enrolment));
  const exact = enrolments.find(({ id, publicKeyHash }) => id === which || publicKeyHash === which);
  if (exact) return exact;
  const named = enrolments.filter(({ name, state }) => name === which && state !== 'preauthorised');
  if (named.length > 1)
    throw new UsageFailure(`${named.length} keys wait as ${JSON.stringify(which)}: name the id or the key (matfleet device waiting)`);
  if (!named[0]) throw new Failure('not-found', `nobody waits as ${JSON.stringify(which)}; matfleet device waiting lists who does`);
  return named[0];
}
