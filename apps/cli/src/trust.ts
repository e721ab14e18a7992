import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import {
  isRole,
  isSignedFor,
  LIFETIMES,
  parseMetadata,
  publicKeyOf,
  roleKeys,
  ROLES,
  rootMetadata,
  serialize,
  SigningKey,
  type MetadataOf,
  type Role,
  type RoleKeys,
} from '@matfleet/trust';
import { z } from 'zod';
import { connect, withApiOptions, type Api, type ApiOptions } from './api.js';
import { parseWhole } from './arguments.js';
import type { Context, Register } from './command.js';
import { Failure, UsageFailure } from './failure.js';
import { table } from './output.js';

type Root = MetadataOf['root'];

const RoleView = z.object({
  role: z.string(),
  version: z.number(),
  expiresAt: z.string(),
  threshold: z.number(),
  keyIds: z.array(z.string()),
  keysHere: z.number(),
});
type RoleView = z.infer<typeof RoleView>;
const PreparedKey = z.object({ keyId: z.string(), public: z.string().regex(/^[0-9a-f]{64}$/) });

/** Encrypts and opens key files; never an argument, which other users of the machine could read. */
const passphrase = (): string | undefined => process.env.MATFLEET_TRUST_PASSPHRASE || undefined;

/** Which keys devices trust: the root keys are made, kept and used where this command runs; the control plane never sees them. */
export const registerTrustCommands: Register = (program, context) => {
  const trust = program.command('trust').description('whose signatures devices trust: the root keys and what they say');
  const { output, signal } = context;

  withApiOptions(trust.command('show').description('show the roles: version, expiry, keys, and which of them the control plane holds')).action(
    async (options: ApiOptions) => {
      const api = await connect(options, signal);
      output.result(await api.get('/api/v1/trust', z.array(RoleView)), rolesTable);
    },
  );

  withApiOptions(trust.command('init').description('make root keys here, and hand the root of trust over to them; run it once'))
    .requiredOption('--keys <dir>', 'new folder for the root keys (MATFLEET_TRUST_PASSPHRASE encrypts them)')
    .option('--count <n>', 'how many keys', '1')
    .option('--threshold <n>', 'how many of them have to sign', '1')
    .action(async (options: ApiOptions & NewKeys) => {
      const api = await connect(options, signal);
      const current = await currentRoot(api);
      const { keys, roleKeys: root } = await makeKeys(options);
      const next = successor(current, { root });
      for (const key of keys) key.sign(next);
      await finish(context, api, next, join(options.keys, 'root.json'));
    });

  withApiOptions(trust.command('rotate').description('replace the keys of a role, and so revoke the old ones'))
    .requiredOption('--role <role>', ROLES.join(', '))
    .option('--key <file...>', 'root keys that sign; none while the control plane holds the root key itself')
    .option('--keys <dir>', 'for --role root: new folder for the new root keys')
    .option('--count <n>', 'for --role root: how many keys', '1')
    .option('--threshold <n>', 'for --role root: how many of them have to sign', '1')
    .option('--out <file>', 'write the next root here, for others to sign, where these keys are not enough', 'root.json')
    .action(async (options: ApiOptions & Partial<NewKeys> & { role: string; key?: string[]; out: string }) => {
      const { role, out } = options;
      if (!isRole(role)) throw new UsageFailure(`--role: ${JSON.stringify(role)} is none of ${ROLES.join(', ')}`);
      const api = await connect(options, signal);
      if (!options.key) {
        output.result(await api.post(`/api/v1/trust/rotate/${role}`, {}, z.array(RoleView)), rolesTable);
        return;
      }
      const signers = await readKeys(options.key);
      const fresh = role === 'root' ? await makeKeys(options) : { keys: [], roleKeys: await preparedKey(api) };
      const next = successor(await currentRoot(api), { [role]: fresh.roleKeys });
      for (const key of [...signers, ...fresh.keys]) key.sign(next);
      await finish(context, api, next, out);
    });

  trust
    .command('sign')
    .description('add signatures to a root that others made; needs no control plane')
    .argument('<file>', 'as rotate or init left it')
    .requiredOption('--key <file...>', 'root keys that sign')
    .action(async (file: string, { key }: { key: string[] }) => {
      const root = await readRoot(file);
      for (const signer of await readKeys(key)) signer.sign(root);
      await writeFile(file, serialize(root));
      output.result(summary(root, file), describe);
    });

  withApiOptions(trust.command('put').description('send a root that is signed by enough keys').argument('<file>')).action(
    async (file: string, options: ApiOptions) => {
      const api = await connect(options, signal);
      output.result(await api.send('PUT', '/api/v1/trust/root', serialize(await readRoot(file)), z.array(RoleView)), rolesTable);
    },
  );
};

interface NewKeys {
  readonly keys: string;
  readonly count: string;
  readonly threshold: string;
}

async function makeKeys({ keys: dir, count, threshold }: Partial<NewKeys>): Promise<{ keys: SigningKey[]; roleKeys: RoleKeys }> {
  if (dir === undefined) throw new UsageFailure('--keys: where to put the new root keys');
  const [many, needed] = [parseWhole('--count', count ?? '1', 1), parseWhole('--threshold', threshold ?? '1', 1)];
  if (needed > many) throw new UsageFailure(`--threshold ${needed} of --count ${many} keys can never be met`);
  await mkdir(dir, { mode: 0o700 }).catch((cause: unknown) => {
    throw new Failure('exists', `--keys ${dir} must be a new folder`, { cause });
  });
  const keys = Array.from({ length: many }, () => SigningKey.generate());
  for (const [i, key] of keys.entries()) await writeFile(join(dir, `root-${i + 1}.pem`), key.toPem(passphrase()), { mode: 0o600, flag: 'wx' });
  return { keys, roleKeys: { keys: keys.map(({ publicKey }) => publicKey), threshold: needed } };
}

const preparedKey = async (api: Api): Promise<RoleKeys> => {
  const made = await api.post('/api/v1/trust/keys', {}, PreparedKey);
  return { keys: [publicKeyOf(made.public)], threshold: 1 };
};

async function readKeys(files: readonly string[]): Promise<SigningKey[]> {
  return Promise.all(
    files.map(async (file) => {
      try {
        return SigningKey.fromPem(await readFile(file, 'utf8'), passphrase());
      } catch (cause) {
        throw new Failure('bad-key', `${file} is no signing key that can be opened (MATFLEET_TRUST_PASSPHRASE opens an encrypted one)`, { cause });
      }
    }),
  );
}

async function readRoot(file: string): Promise<Root> {
  try {
    return parseMetadata('root', await readFile(file));
  } catch (cause) {
    throw new Failure('bad-root', `${file} is no root metadata`, { cause });
  }
}

const currentRoot = async (api: Api): Promise<Root> =>
  parseMetadata('root', Buffer.from(JSON.stringify(await api.get('/api/v1/trust/metadata/root.json', z.unknown()))));

function successor(current: Root, changed: Partial<Record<Role, RoleKeys>>): Root {
  const named = (role: Role): RoleKeys => changed[role] ?? roleKeys(current, role);
  return rootMetadata(current.signed.version + 1, new Date(Date.now() + LIFETIMES.root), {
    root: named('root'),
    targets: named('targets'),
    snapshot: named('snapshot'),
    timestamp: named('timestamp'),
  });
}

/** Sends the root where its own keys suffice; what the root before asks for, the control plane checks. In any case it lies in `file`. */
async function finish({ output }: Context, api: Api, root: Root, file: string): Promise<void> {
  await writeFile(file, serialize(root));
  const made = summary(root, file);
  const sent = made.complete
    ? await api.send('PUT', '/api/v1/trust/root', serialize(root), z.array(RoleView)).catch((error: unknown) => {
        if (error instanceof Failure && error.code === 'failed-precondition') output.note(`not taken yet: ${error.message}`);
        else throw error;
      })
    : undefined;
  output.result({ ...made, accepted: sent !== undefined, ...(sent && { roles: sent }) }, (document) =>
    document.accepted
      ? rolesTable(sent!)
      : `${describe(document)}; have it signed (matfleet trust sign ${file}) and send it (matfleet trust put ${file})`,
  );
}

interface Summary {
  readonly file: string;
  readonly version: number;
  readonly signatures: number;
  readonly threshold: number;
  /** Enough of its own root keys have signed. */
  readonly complete: boolean;
}

const summary = (root: Root, file: string): Summary => ({
  file,
  version: root.signed.version,
  signatures: Object.keys(root.signatures).length,
  threshold: roleKeys(root, 'root').threshold,
  complete: isSignedFor(root, 'root', root),
});

const describe = ({ file, version, signatures, threshold }: Summary): string =>
  `${file}: root version ${version}, signed by ${signatures} key${signatures === 1 ? '' : 's'}; it asks for ${threshold} of its own`;

const rolesTable = (roles: readonly RoleView[]): string =>
  table(roles, [
    { title: 'role', value: ({ role }) => role },
    { title: 'version', value: ({ version }) => `${version}`, align: 'right' },
    { title: 'expires', value: ({ expiresAt }) => expiresAt },
    { title: 'needs', value: ({ threshold, keyIds }) => `${threshold} of ${keyIds.length}` },
    { title: 'keys', value: ({ keyIds }) => keyIds.map((id) => id.slice(0, 12)).join(' ') },
    { title: 'held by', value: ({ keysHere, threshold }) => (keysHere >= threshold ? 'the control plane' : 'you') },
  ]);
