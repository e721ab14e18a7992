import { execFile } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';

const BIN = new URL('../bin/matfleet.mjs', import.meta.url).pathname;
const sha256 = (bytes: Uint8Array | string) => createHash('sha256').update(bytes).digest('hex');

/** A control plane that speaks HTTP and remembers what it was sent. */
const published = { chunks: new Map<string, Buffer>(), manifest: undefined as Buffer | undefined, published: false };
let answers: Record<string, (body: Buffer) => { status?: number; body: unknown }> = {};
let requests: string[] = [];
/** Requests to answer with 503 before the next one succeeds. */
let outages = 0;
let server: Server;
let dir: string;
let chunkIds: string[];

const run = (...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> =>
  new Promise((resolve) => {
    execFile(process.execPath, [BIN, ...args], { timeout: 50_000 }, (error, stdout, stderr) =>
      resolve({ code: error ? Number(error.code) : 0, stdout, stderr }),
    );
  });

const matfleet = (...args: string[]) =>
  run(...args, '--server', `http://127.0.0.1:${(server.address() as AddressInfo).port}`, '--api-key-file', join(dir, 'key'));

function api(method: string, path: string, body: Buffer): { status?: number; body: unknown } {
  const answer = answers[`${method} ${path}`];
  if (answer) return answer(body);
  if (method === 'POST' && path === '/api/v1/models') {
    published.manifest = body;
    return {
      body: { id: sha256(body), name: 'tiny', missingChunks: chunkIds.filter((id) => !published.chunks.has(id)), published: published.published },
    };
  }
  const chunk = /^\/api\/v1\/chunks\/(.*)$/.exec(path)?.[1];
  if (method === 'PUT' && chunk) {
    published.chunks.set(chunk, body);
    return { body: {} };
  }
  if (method === 'POST' && path.endsWith('/publish')) {
    published.published = true;
    return { body: {} };
  }
  return { status: 404, body: { code: 'not-found', message: `no ${path}` } };
}

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'matfleet-cli-'));
  await writeFile(join(dir, 'key'), 'secret-key\n');
  const chunks = [randomBytes(50_000), randomBytes(3), randomBytes(1000)];
  chunkIds = chunks.map(sha256);
  await mkdir(join(dir, 'package', 'chunks'), { recursive: true });
  for (const [i, bytes] of chunks.entries()) await writeFile(join(dir, 'package', 'chunks', chunkIds[i]!), bytes);
  await writeFile(join(dir, 'package', 'manifest.json'), JSON.stringify(manifest(chunks)));
  server = createServer((request, response) => {
    const parts: Buffer[] = [];
    request.on('data', (part: Buffer) => parts.push(part));
    request.on('end', () => {
      requests.push(`${request.method} ${request.url}`);
      const { status = 200, body } =
        outages > 0
          ? (outages--, { status: 503, body: { code: 'unavailable', message: 'starting' } })
          : request.headers.authorization === 'Bearer secret-key'
            ? api(request.method!, request.url!, Buffer.concat(parts))
            : { status: 401, body: { code: 'unauthenticated', message: 'unknown key' } };
      response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
    });
  });
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
});
afterAll(async () => {
  server.closeAllConnections();
  await new Promise((done) => server.close(done));
  await rm(dir, { recursive: true });
});
beforeEach(() => {
  requests = [];
  answers = {};
  outages = 0;
});

describe('matfleet model publish', () => {
  it('uploads the missing chunks, publishes, and the second time uploads nothing', async () => {
    published.chunks.set(chunkIds[1]!, Buffer.from('already there'));
    const first = await matfleet('model', 'publish', join(dir, 'package'), '--json');
    expect(JSON.parse(first.stdout)).toEqual({
      modelVersionId: sha256(published.manifest!),
      name: 'tiny',
      uploadedChunks: 2,
      uploadedBytes: 51_000,
      alreadyPublished: false,
    });
    expect(first.code).toBe(0);
    expect([...published.chunks].filter(([id]) => id !== chunkIds[1]).every(([id, bytes]) => sha256(bytes) === id)).toBe(true);
    expect(published.published).toBe(true);

    const second = await matfleet('model', 'publish', join(dir, 'package'), '--json');
    expect(JSON.parse(second.stdout)).toMatchObject({ uploadedChunks: 0, alreadyPublished: true });
  });

  it('tries again while the control plane answers 503', async () => {
    outages = 2;
    const { code, stdout } = await matfleet('model', 'publish', join(dir, 'package'), '--json');
    expect([code, JSON.parse(stdout).alreadyPublished]).toEqual([0, true]);
    expect(requests).toEqual(Array(3).fill('POST /api/v1/models'));
  });

  it('refuses to upload a chunk whose bytes changed, naming the file', async () => {
    published.chunks.clear();
    const path = join(dir, 'package', 'chunks', chunkIds[0]!);
    await writeFile(path, 'damaged');
    const { code, stdout } = await matfleet('model', 'publish', join(dir, 'package'), '--json');
    expect([code, JSON.parse(stdout).error.code]).toEqual([1, 'bad-chunk']);
    expect(JSON.parse(stdout).error.message).toContain(`${path} is damaged`);
  });
});

const device = {
  id: 'd-1',
  name: 'kiosk',
  labels: { site: 'berlin', ring: 'canary' },
  presence: 'online',
  desired: { generation: 3, modelVersionId: 'v', modelName: 'nano', sliceId: 's-64', reason: 'fits' },
  observed: { generation: 2, modelVersionId: 'v', sliceId: 's-32' },
  phase: 'fetching',
  latency: { ttftMs: { p50: 12.4, p95: 20 }, interTokenMs: { p50: 2, p95: 3 }, tokensPerSecond: 480.25, samples: 9 },
};

describe('fleet commands', () => {
  it('lists devices with the slice they run and the one they move to; --json passes on everything', async () => {
    answers['GET /api/v1/devices'] = () => ({ body: [device] });
    expect((await matfleet('devices')).stdout.split('\n')[1]).toMatch(
      /^kiosk +d-1 +online +nano +s-32 -> s-64 +fetching +12 ms +480\.3 +ring=canary,site=berlin$/,
    );
    expect(JSON.parse((await matfleet('devices', '--json')).stdout)).toEqual([device]);
  });

  it('passes a filter on, and says so when it matches nothing', async () => {
    answers[`GET /api/v1/devices?filter=${new URLSearchParams({ f: 'labels.site == "rome"' }).toString().slice(2)}`] = () => ({ body: [] });
    expect((await matfleet('devices', '--filter', 'labels.site == "rome"')).stdout).toBe('no device matches the filter\n');
  });

  it('changes labels and shows what they are then', async () => {
    answers['GET /api/v1/devices'] = () => ({ body: [device] });
    let patch = '';
    answers['PATCH /api/v1/devices/d-1/labels'] = (body) => {
      patch = body.toString();
      return { body: { ...device, labels: { site: 'rome' } } };
    };
    expect((await matfleet('label', 'kiosk', 'site=rome', 'ring-')).stdout).toBe('kiosk: site=rome\n');
    expect(JSON.parse(patch)).toEqual({ site: 'rome', ring: null });
    const wrong = await matfleet('label', 'kiosk', 'site', '--json');
    expect([wrong.code, JSON.parse(wrong.stdout).error.code]).toEqual([2, 'usage']);
  });

  it('finds a device by its name and shows every candidate of its assignments', async () => {
    answers['GET /api/v1/devices'] = () => ({ body: [device] });
    const candidate = {
      sliceId: 's-64',
      quality: 0.9,
      totalBytes: 2e6,
      predictedInterTokenMs: 3.25,
      fits: true,
      chosen: true,
      why: 'best that fits',
    };
    answers['GET /api/v1/devices/d-1/assignments'] = () => ({
      body: [
        {
          generation: 3,
          modelVersionId: 'v',
          sliceId: 's-64',
          reason: 'more memory',
          createdAt: '2026-01-01T00:00:00Z',
          explanation: { candidates: [candidate] },
        },
      ],
    });
    const { stdout } = await matfleet('assignments', 'kiosk');
    expect(stdout).toContain('generation 3: s-64');
    expect(stdout).toMatch(/\* +s-64 +90\.0 % +2\.00 +3\.25 +yes +best that fits/);
    const unknown = await matfleet('assignments', 'nobody', '--json');
    expect([unknown.code, JSON.parse(unknown.stdout).error]).toEqual([
      1,
      { code: 'not-found', message: 'there is no device "nobody"; there is kiosk' },
    ]);
  });

  it('streams the growing answer of an inference', async () => {
    const inference = (state: string, answer: string | null) => ({
      id: 'i-1',
      state,
      answer,
      error: null,
      attempts: [{ ordinal: 1, deviceId: 'd-1', deviceName: 'kiosk', sliceId: 's-64', state, reason: 'best quality', error: null, ttftMs: 8 }],
    });
    answers['POST /api/v1/inferences'] = () => ({ status: 202, body: inference('queued', null) });
    let polls = 0;
    answers['GET /api/v1/inferences/i-1'] = () => ({
      body: [inference('running', '{"na'), inference('running', '{"name"'), inference('succeeded', '{"name":"x"}')][Math.min(polls++, 2)],
    });
    const { code, stdout } = await matfleet('infer', '--prompt', 'hi', '--quality-floor', '0.9');
    expect(code).toBe(0);
    expect(stdout).toMatch(/^\{"name":"x"\}\n\n#/);
    expect(stdout).toContain('best quality');
  });

  it('makes a join token, which stands alone on stdout', async () => {
    answers['POST /api/v1/join-tokens'] = () => ({ body: { token: 'mf1.abc.def', expiresAt: '2026-01-01T00:00:00Z', usesLeft: 3 } });
    expect((await matfleet('join-token', '--uses', '3')).stdout).toBe('mf1.abc.def\n');
  });

  it('passes on the code and message of a refusal', async () => {
    answers['POST /api/v1/rollouts'] = () => ({ status: 409, body: { code: 'failed-precondition', message: 'model version v2 is not published' } });
    const { code, stdout } = await matfleet('rollout', 'start', 'v2', '--json');
    expect([code, JSON.parse(stdout).error.code]).toEqual([1, 'failed-precondition']);
    expect(JSON.parse(stdout).error.message).toContain('model version v2 is not published');
  });

  it('says which address does not answer', async () => {
    const closed = createServer();
    await new Promise<void>((done) => closed.listen(0, '127.0.0.1', done));
    const url = `http://127.0.0.1:${(closed.address() as AddressInfo).port}`;
    await new Promise((done) => closed.close(done));
    const { code, stdout } = await run('devices', '--json', '--server', url, '--api-key-file', join(dir, 'key'));
    expect([code, JSON.parse(stdout).error.code]).toEqual([1, 'unreachable']);
    expect(JSON.parse(stdout).error.message).toMatch(
      `GET ${url}/api/v1/devices: no answer from the control plane: fetch failed: connect ECONNREFUSED`,
    );
  });
});

function manifest(chunks: Buffer[]) {
  return {
    format: 'matfleet-package-1',
    name: 'tiny',
    config: {
      vocabSize: 8,
      vocabSizePerLayerInput: 8,
      hiddenSize: 4,
      hiddenSizePerLayerInput: 2,
      intermediateSize: [8],
      numHiddenLayers: 1,
      numAttentionHeads: 1,
      numKeyValueHeads: 1,
      headDim: 4,
      layerTypes: ['full_attention'],
      slidingWindow: 4,
      numKvSharedLayers: 0,
      laurelRank: 2,
      altupNumInputs: 4,
      activationSparsityPattern: [0],
      ropeThetaFull: 1e6,
      ropeThetaSliding: 1e4,
      rmsNormEps: 1e-6,
      finalLogitSoftcapping: 30,
      altupCoefClip: 120,
      maxPositionEmbeddings: 64,
      padTokenId: 0,
      bosTokenId: 2,
      eosTokenIds: [1],
    },
    precision: { kind: 'fp32', block: null },
    chunks: chunks.map((bytes, i) => ({
      id: sha256(bytes),
      bytes: bytes.length,
      part: [{ kind: 'core' }, { kind: 'layer', layer: 0 }, { kind: 'band', layer: 0, from: 0, to: 8 }][i],
      tensors: [],
    })),
    slices: [{ id: 'full', name: 'Full model', ffn: [8], skip: [] }],
    golden: [],
  };
}
