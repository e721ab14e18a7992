import { request as httpRequest } from 'node:http';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { createEngineHost } from '../engine/child-engine-host.js';
import { createSupervisor } from '../engine/supervisor.js';
import { createLatencyRecorder } from '../latency/latency-recorder.js';
import { Answerer } from '../serving/answer.js';
import { createLocalHttp, type HttpOptions, type LocalHttp } from './server.js';

// No slice is active: what is looked at here comes before any answer.
const supervisor = createSupervisor({ host: createEngineHost({ modelMemoryBytes: 0, availableMemoryBytes: () => 2 ** 30 }) });
const answerer = new Answerer({
  ...{ supervisor, latency: createLatencyRecorder(), queueLimit: 1, engineWaitMs: 100, maxAnswerMs: 1_000 },
  device: () => ({ deviceId: 'd-1', deviceName: 'kiosk' }),
});
const create = (over: Partial<HttpOptions> = {}): LocalHttp =>
  createLocalHttp(
    { address: { host: '127.0.0.1', port: 0 }, hosts: [], clientStallMs: 1_000, ...over },
    { supervisor, answering: answerer, toolPrompt: 'describe' },
  );

let http: LocalHttp;
let port: number;

beforeAll(async () => {
  http = create();
  port = Number(new URL(await http.start()).port);
});
afterAll(() => http.stop(100));

interface Reply {
  readonly status: number;
  readonly headers: NodeJS.Dict<string | string[]>;
  readonly body: string;
}

/** fetch sets Host and Origin itself. */
function send(method: string, path: string, headers: Record<string, string> = {}, body = '', to = port): Promise<Reply> {
  return new Promise((resolve, reject) => {
    const sent = httpRequest({ host: '127.0.0.1', port: to, method, path, headers }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (data: string) => (text += data));
      response.on('end', () => resolve({ status: response.statusCode!, headers: response.headers, body: text }));
    });
    sent.on('error', reject);
    sent.end(body);
  });
}

describe('the HTTP API', () => {
  it('does not answer a name that DNS may have been made to point here, nor a page of another site', async () => {
    expect((await send('GET', '/v1/models')).status).toBe(200);
    expect((await send('GET', '/v1/models', { host: 'evil.example' })).status).toBe(421);
    expect((await send('POST', '/api/generate', { origin: 'https://evil.example' }, '{}')).status).toBe(403);
  });

  it('wants its token where it has one, and refuses to stand beyond loopback without one', async () => {
    expect(() => create({ address: { host: '0.0.0.0', port: 0 } })).toThrow(/0\.0\.0\.0 can be reached from other devices: it needs a token/);
    const open = create({ address: { host: '0.0.0.0', port: 0 }, token: 'a-secret-of-this-box' });
    const to = Number(new URL(await open.start()).port);
    expect(JSON.parse((await send('GET', '/v1/models', {}, '', to)).body)).toMatchObject({ error: { type: 'authentication_error' } });
    expect((await send('GET', '/v1/models', { authorization: 'Bearer a-secret-of-this-box' }, '', to)).status).toBe(200);
    await open.stop(100);
  });

  it('says in the words of the API that was called when there is no slice, and when to come back', async () => {
    const chat = await send('POST', '/v1/chat/completions', {}, JSON.stringify({ model: 'any', messages: [{ role: 'user', content: 'hi' }] }));
    expect([chat.status, chat.headers['retry-after']]).toEqual([503, '1']);
    expect(JSON.parse(chat.body)).toMatchObject({ error: { code: 'no_slice', type: 'server_error' } });
    const ollama = await send('POST', '/api/generate', {}, JSON.stringify({ model: 'any', prompt: 'hi' }));
    expect(JSON.parse(ollama.body)).toEqual({ error: 'no slice is active on this device yet', code: 'no_slice' });
  });

  it('names what is wrong with a request: its method, its path, its JSON, its size', async () => {
    expect(await send('GET', '/api/chat')).toMatchObject({ status: 405, body: expect.stringContaining('takes POST') });
    expect(await send('GET', '/v2/models')).toMatchObject({ status: 404 });
    expect(await send('GET', '/v1/models/%zz')).toMatchObject({ status: 404 });
    expect(await send('POST', '/api/chat', {}, '{"model":')).toMatchObject({ status: 400, body: expect.stringContaining('the body is no JSON') });
    expect(await send('POST', '/api/chat', {}, 'x'.repeat(4 * 2 ** 20 + 1))).toMatchObject({ status: 413 });
    expect(await send('POST', '/v1/completions', {}, '[]')).toMatchObject({ status: 400 });
  });

  it('is in nobody’s way: a taken port is named, with the option that changes it', async () => {
    await expect(create({ address: { host: '127.0.0.1', port } }).start()).rejects.toThrow(new RegExp(`127.0.0.1:${port}: .*EADDRINUSE.*--http`));
  });
});
