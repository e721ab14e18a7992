import { isIP } from 'node:net';
import { resolve } from 'node:path';
import { z } from 'zod';

const milliseconds = (min: number, fallback: number) => z.coerce.number().int().min(min).max(2_147_483_647).default(fallback);
const port = (fallback: number) => z.coerce.number().int().min(0).max(65_535).default(fallback);
const flag = z
  .enum(['0', '1', 'false', 'true'])
  .default('0')
  .transform((text) => text === '1' || text === 'true');
const url = (...protocols: string[]) =>
  z
    .string()
    .refine(
      (text) => URL.canParse(text) && protocols.includes(new URL(text).protocol),
      `a URL that begins with ${protocols.map((p) => `${p}//`).join(' or ')}`,
    );

/** Every variable the control plane reads; `.env.example` says the same for people. */
const Env = z
  .object({
    MATFLEET_DATA_DIR: z.string().default('.data/control-plane'),
    DATABASE_URL: url('postgresql:', 'postgres:').optional(),
    DATABASE_MIGRATION_URL: url('postgresql:', 'postgres:').optional(),
    REDIS_URL: url('redis:', 'rediss:').optional(),
    MATFLEET_HTTP_HOST: z.string().default('127.0.0.1'),
    MATFLEET_HTTP_PORT: port(7080),
    MATFLEET_HTTP_TLS_CERT_FILE: z.string().optional(),
    MATFLEET_HTTP_TLS_KEY_FILE: z.string().optional(),
    MATFLEET_HTTP_BEHIND_PROXY: flag,
    MATFLEET_DEVICE_HOST: z.string().default('127.0.0.1'),
    MATFLEET_DEVICE_PORT: port(7443),
    MATFLEET_DEVICE_PUBLIC_HOST: z.string().optional(),
    MATFLEET_REPLICA_ADDRESS: z
      .string()
      .regex(/^[^\s:/]+:\d+$|^\[[0-9a-fA-F:]+\]:\d+$/, 'host:port')
      .optional(),
    MATFLEET_INSECURE_DEVICE_PORT: flag,
    MATFLEET_DEVICE_CERTIFICATE_SECONDS: z.coerce
      .number()
      .int()
      .min(3)
      .max(365 * 86_400)
      .default(30 * 86_400),
    MATFLEET_HEARTBEAT_MS: milliseconds(100, 5_000),
    MATFLEET_LEASE_MS: milliseconds(300, 15_000),
    MATFLEET_SESSION_AGE_MS: milliseconds(1_000, 45 * 60_000),
    MATFLEET_TARGET_INTER_TOKEN_MS: milliseconds(1, 100),
    MATFLEET_TARGET_TTFT_MS: milliseconds(1, 5_000),
    MATFLEET_UPGRADE_DWELL_MS: milliseconds(100, 10 * 60_000),
    MATFLEET_ROLLOUT_DEADLINE_MS: milliseconds(1_000, 24 * 3_600_000),
    MATFLEET_CHUNK_BYTES_MAX: z.coerce
      .number()
      .int()
      .positive()
      .default(4 * 2 ** 30),
    MATFLEET_S3_BUCKET: z.string().optional(),
    MATFLEET_S3_REGION: z.string().default('us-east-1'),
    MATFLEET_S3_ENDPOINT: url('https:', 'http:').optional(),
    MATFLEET_S3_PREFIX: z
      .string()
      .regex(/^([\w.-]+\/)*$/, 'folders that end with a slash, such as models/')
      .default('chunks/'),
    MATFLEET_S3_PATH_STYLE: flag,
    MATFLEET_READY_FILE: z.string().optional(),
    MATFLEET_LOG_LEVEL: z.enum(['fatal', 'error', 'warn', 'info', 'debug', 'trace']).default('info'),
  })
  .superRefine((env, { addIssue }) => {
    const problem = (name: string, message: string) => addIssue({ code: 'custom', path: [name], message });
    if (env.MATFLEET_LEASE_MS < 3 * env.MATFLEET_HEARTBEAT_MS)
      problem('MATFLEET_LEASE_MS', `${env.MATFLEET_LEASE_MS} ms does not cover three heartbeats of ${env.MATFLEET_HEARTBEAT_MS} ms`);
    if ((env.MATFLEET_HTTP_TLS_CERT_FILE === undefined) !== (env.MATFLEET_HTTP_TLS_KEY_FILE === undefined))
      problem('MATFLEET_HTTP_TLS_CERT_FILE', 'and MATFLEET_HTTP_TLS_KEY_FILE go together: one of them is missing');
    if (!isLoopback(env.MATFLEET_HTTP_HOST) && !env.MATFLEET_HTTP_TLS_CERT_FILE && !env.MATFLEET_HTTP_BEHIND_PROXY)
      problem(
        'MATFLEET_HTTP_HOST',
        `${env.MATFLEET_HTTP_HOST} is beyond loopback, where API keys must not travel in the clear: set MATFLEET_HTTP_TLS_CERT_FILE and MATFLEET_HTTP_TLS_KEY_FILE, or MATFLEET_HTTP_BEHIND_PROXY=1 when a proxy ends TLS`,
      );
    if (env.DATABASE_MIGRATION_URL !== undefined && env.DATABASE_URL === undefined)
      problem('DATABASE_MIGRATION_URL', 'goes with DATABASE_URL, which is missing');
    if (env.MATFLEET_INSECURE_DEVICE_PORT && !isLoopback(env.MATFLEET_DEVICE_HOST))
      problem('MATFLEET_INSECURE_DEVICE_PORT', `is for loopback only, and MATFLEET_DEVICE_HOST is ${env.MATFLEET_DEVICE_HOST}`);
  })
  .transform((env) => ({
    /** Absolute. Holds the CA, the first API key, the chunks and the embedded database. */
    dataDir: resolve(env.MATFLEET_DATA_DIR),
    /** Absent: the embedded PostgreSQL. */
    databaseUrl: env.DATABASE_URL,
    /** Of the database's owner, who migrates it. Absent: `databaseUrl` does. */
    databaseMigrationUrl: env.DATABASE_MIGRATION_URL,
    /** Absent: BullMQ on PostgreSQL. */
    redisUrl: env.REDIS_URL,
    httpHost: env.MATFLEET_HTTP_HOST,
    httpPort: env.MATFLEET_HTTP_PORT,
    httpTls:
      env.MATFLEET_HTTP_TLS_CERT_FILE && env.MATFLEET_HTTP_TLS_KEY_FILE
        ? { certFile: resolve(env.MATFLEET_HTTP_TLS_CERT_FILE), keyFile: resolve(env.MATFLEET_HTTP_TLS_KEY_FILE) }
        : undefined,
    httpBehindProxy: env.MATFLEET_HTTP_BEHIND_PROXY,
    deviceHost: env.MATFLEET_DEVICE_HOST,
    devicePort: env.MATFLEET_DEVICE_PORT,
    /** The name by which devices reach the device port, where it is not `deviceHost`; stands in the server's certificate. */
    devicePublicHost: env.MATFLEET_DEVICE_PUBLIC_HOST,
    /** host:port at which the other replicas reach this one's device port, where that is not its host and port. */
    replicaAddress: env.MATFLEET_REPLICA_ADDRESS,
    insecureDevicePort: env.MATFLEET_INSECURE_DEVICE_PORT,
    /** Life of a device's certificate; renewed at two thirds of it. */
    deviceCertificateSeconds: env.MATFLEET_DEVICE_CERTIFICATE_SECONDS,
    heartbeatMs: env.MATFLEET_HEARTBEAT_MS,
    leaseMs: env.MATFLEET_LEASE_MS,
    /** A device's stream is ended after about so long, ± 20 %; it comes back at once. */
    sessionAgeMs: env.MATFLEET_SESSION_AGE_MS,
    targetInterTokenMs: env.MATFLEET_TARGET_INTER_TOKEN_MS,
    targetTtftMs: env.MATFLEET_TARGET_TTFT_MS,
    /** Shortest stay on a smaller slice before a device that was slow may move up again. */
    upgradeDwellMs: env.MATFLEET_UPGRADE_DWELL_MS,
    /** For a device to come by, and from its document to what that asks for, where the rollout's plan does not say. */
    rolloutDeadlineMs: env.MATFLEET_ROLLOUT_DEADLINE_MS,
    /** Absent: chunks lie in `dataDir`. */
    s3: env.MATFLEET_S3_BUCKET
      ? {
          bucket: env.MATFLEET_S3_BUCKET,
          region: env.MATFLEET_S3_REGION,
          endpoint: env.MATFLEET_S3_ENDPOINT,
          prefix: env.MATFLEET_S3_PREFIX,
          pathStyle: env.MATFLEET_S3_PATH_STYLE,
        }
      : undefined,
    chunkBytesMax: env.MATFLEET_CHUNK_BYTES_MAX,
    readyFile: env.MATFLEET_READY_FILE ? resolve(env.MATFLEET_READY_FILE) : undefined,
    logLevel: env.MATFLEET_LOG_LEVEL,
  }));

export type Config = Readonly<z.infer<typeof Env>>;

/** Injection token of the parsed configuration: `@Inject(CONFIG) private readonly config: Config`. */
export const CONFIG = Symbol('CONFIG');

/** All problems of the environment at once, one a line. */
export class ConfigError extends Error {}

/** Reads the environment once. An empty variable counts as absent. */
export function parseConfig(env: Record<string, string | undefined>): Config {
  const given = Object.fromEntries(Object.entries(env).filter(([, value]) => value !== undefined && value !== ''));
  const result = Env.safeParse(given);
  if (result.success) return result.data;
  const lines = result.error.issues.map((issue) => `  ${issue.path.join('.')}: ${issue.message}`);
  throw new ConfigError(`the configuration has ${lines.length} problem${lines.length === 1 ? '' : 's'}:\n${lines.join('\n')}`);
}

export const isLoopback = (host: string): boolean =>
  host === 'localhost' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.')) || host === '::ffff:127.0.0.1';
