import { readFile } from 'node:fs/promises';
import { request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { type Readable, Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Command } from 'commander';
import { z } from 'zod';
import { Failure, UsageFailure } from './failure.js';

/** A control plane's REST API. Every call has a deadline; answers are checked against a schema. */
export interface Api {
  get<T>(path: string, schema: z.ZodType<T>): Promise<T>;
  post<T>(path: string, body: unknown, schema: z.ZodType<T>): Promise<T>;
  patch<T>(path: string, body: unknown, schema: z.ZodType<T>): Promise<T>;
  delete<T>(path: string, schema: z.ZodType<T>): Promise<T>;
  /** Sends bytes as they are. Tried again a few times on a broken connection or a 5xx answer, so only for requests that may repeat. */
  send<T>(method: 'POST' | 'PUT', path: string, bytes: Uint8Array, schema: z.ZodType<T>): Promise<T>;
  /** Sends the stream that `open` makes, of so many bytes, tried again like `send`; `onBytes` counts what has left, and takes it back where an attempt fails. */
  sendStream(path: string, bytes: number, open: () => Readable, onBytes: (count: number) => void): Promise<void>;
}

export interface ApiOptions {
  readonly server: string;
  readonly apiKeyFile: string;
  /** Where a key of the installation acts; absent: in its own tenant. */
  readonly tenant?: string;
}

export const withApiOptions = (command: Command): Command =>
  command
    .option('--server <url>', 'the control plane’s HTTP address', process.env.MATFLEET_SERVER ?? 'http://127.0.0.1:7080')
    .option('--api-key-file <file>', 'file with an API key', process.env.MATFLEET_API_KEY_FILE ?? '.data/control-plane/admin-api-key')
    .option('--tenant <id>', 'act in this tenant, with a key of the installation', process.env.MATFLEET_TENANT);

const CALL_TIMEOUT_MS = 30_000;
/** Of one chunk: 64 MiB over a slow uplink. */
const SEND_TIMEOUT_MS = 600_000;
const SEND_ATTEMPTS = 4;

export async function connect({ server, apiKeyFile, tenant }: ApiOptions, signal: AbortSignal): Promise<Api> {
  if (!URL.canParse(server) || !/^https?:/.test(server))
    throw new UsageFailure(`--server: ${JSON.stringify(server)} is not an http or https address`);
  const base = new URL(server);
  const apiKey = await readFile(apiKeyFile, 'utf8').then(
    (text) => text.trim(),
    (cause: unknown) => {
      throw new Failure('no-api-key', `--api-key-file ${apiKeyFile} cannot be read`, { cause });
    },
  );
  const call = async <T>(
    method: string,
    path: string,
    schema: z.ZodType<T>,
    timeoutMs: number,
    body?: { type: string; content: string | Uint8Array },
  ): Promise<T> => {
    const url = new URL(path, base);
    const response = await fetch(url, {
      method,
      headers: {
        authorization: `Bearer ${apiKey}`,
        ...(tenant !== undefined && { 'x-matfleet-tenant': tenant }),
        ...(body && { 'content-type': body.type }),
      },
      ...(body && { body: body.content }),
      signal: AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]),
    }).catch((cause: unknown) => {
      signal.throwIfAborted();
      throw new Failure('unreachable', `${method} ${url.href}: no answer from the control plane`, { cause });
    });
    const text = await response.text();
    if (!response.ok) throw refusal(`${method} ${url.href}`, response.status, text);
    const answer = schema.safeParse(text === '' ? undefined : parseJson(`${method} ${url.href}`, text));
    if (!answer.success)
      throw new Failure(
        'bad-answer',
        `${method} ${url.href}: the answer is not what this version of matfleet expects\n${z.prettifyError(answer.error)}`,
      );
    return answer.data;
  };
  return {
    get: (path, schema) => call('GET', path, schema, CALL_TIMEOUT_MS),
    delete: (path, schema) => call('DELETE', path, schema, CALL_TIMEOUT_MS),
    post: (path, body, schema) => call('POST', path, schema, CALL_TIMEOUT_MS, { type: 'application/json', content: JSON.stringify(body) }),
    patch: (path, body, schema) => call('PATCH', path, schema, CALL_TIMEOUT_MS, { type: 'application/json', content: JSON.stringify(body) }),
    send: (method, path, bytes, schema) =>
      repeated(() => call(method, path, schema, SEND_TIMEOUT_MS, { type: 'application/octet-stream', content: bytes }), signal),
    sendStream: (path, bytes, open, onBytes) => repeated(() => putStream(new URL(path, base), apiKey, bytes, open, onBytes, signal), signal),
  };
}

async function repeated<T>(work: () => Promise<T>, signal: AbortSignal): Promise<T> {
  for (let attempt = 1; ; attempt++)
    try {
      return await work();
    } catch (error) {
      const transient = error instanceof Failure && (error.code === 'unreachable' || error.code === 'server-error');
      if (!transient || attempt === SEND_ATTEMPTS) throw error;
      await sleep(200 * 2 ** attempt, undefined, { signal });
    }
}

/** With its length announced, so that a body that ends early is never taken for whole. `fetch` would not announce it. */
async function putStream(
  url: URL,
  apiKey: string,
  bytes: number,
  open: () => Readable,
  onBytes: (count: number) => void,
  signal: AbortSignal,
): Promise<void> {
  const source = open();
  let sent = 0;
  const counted = new Transform({
    highWaterMark: 1 << 20,
    transform(data: Buffer, _encoding, done) {
      sent += data.length;
      onBytes(data.length);
      done(null, data);
    },
  });
  const until = AbortSignal.any([signal, AbortSignal.timeout(SEND_TIMEOUT_MS)]);
  const request = (url.protocol === 'https:' ? httpsRequest : httpRequest)(url, {
    method: 'PUT',
    headers: { authorization: `Bearer ${apiKey}`, 'content-type': 'application/octet-stream', 'content-length': bytes },
    signal: until,
  });
  const answered = new Promise<{ status: number; text: string }>((resolve, reject) => {
    request.once('error', reject);
    request.once('response', (response) => {
      const parts: Buffer[] = [];
      response.on('data', (part: Buffer) => parts.push(part)).once('error', reject);
      response.once('end', () => resolve({ status: response.statusCode ?? 0, text: Buffer.concat(parts).toString() }));
    });
  });
  // A refusal may come before the body has left; what the source has to say counts more than what the socket says about it.
  let broken: unknown;
  const piped = pipeline(source, counted, request).catch((error: unknown) => {
    broken = source.errored ?? error;
    if (source.errored) request.destroy();
  });
  try {
    const { status, text } = await answered;
    if (status < 200 || status >= 300) throw refusal(`PUT ${url.href}`, status, text);
    await piped;
  } catch (error) {
    onBytes(-sent);
    await piped;
    if (broken instanceof Failure) throw broken;
    signal.throwIfAborted();
    throw error instanceof Failure ? error : new Failure('unreachable', `PUT ${url.href}: no answer from the control plane`, { cause: error });
  } finally {
    source.destroy();
  }
}

const Problem = z.object({ code: z.string(), message: z.string() });

/** The API's own code and message where it gives them. */
function refusal(what: string, status: number, text: string): Failure {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    json = undefined;
  }
  const problem = Problem.safeParse(json);
  if (status >= 500) return new Failure('server-error', `${what}: HTTP ${status}${problem.success ? `, ${problem.data.message}` : ''}`);
  if (problem.success) return new Failure(problem.data.code, `${what}: ${problem.data.message}`);
  return new Failure(status === 401 ? 'unauthenticated' : 'refused', `${what}: HTTP ${status}${text ? `, ${text.slice(0, 200)}` : ''}`);
}

function parseJson(what: string, text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new Failure('bad-answer', `${what}: the answer is not JSON; is this a Matfleet control plane?`, { cause });
  }
}
