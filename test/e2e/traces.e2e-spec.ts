import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { AgentProcess, ControlPlaneProcess, makeRunDir, nanoPackage, publish, waitFor, type NanoPackage } from '@matfleet/harness';
import { createDatabase } from '../support/database.js';
import { describeWithRedis, startRedis } from '../support/needs.js';
import { startOtlpReceiver, type OtlpReceiver, type ReceivedSpan } from '../support/otlp-receiver.js';

/** A span of whoever asks, which exports elsewhere. */
const CALLER = '00f067aa0ba902b7';
const PROMPT = 'Freezer room to -22 please';

/** Of two replicas on one database and a real agent whose session the first one holds, all of which export to one receiver. */
describeWithRedis('a trace of two replicas and a device', () => {
  const stops: (() => Promise<unknown>)[] = [];
  let receiver: OtlpReceiver;
  let near: ControlPlaneProcess;
  let far: ControlPlaneProcess;
  let agent: AgentProcess;
  let model: NanoPackage;

  beforeAll(async () => {
    const run = await makeRunDir('traces');
    stops.push(() => run.remove());
    receiver = await startOtlpReceiver();
    const [database, redis] = await Promise.all([createDatabase(), startRedis()]);
    stops.push(
      () => receiver.stop(),
      () => redis.stop(),
      () => database.drop(),
    );
    const tracing = { OTEL_EXPORTER_OTLP_ENDPOINT: receiver.url, OTEL_BSP_SCHEDULE_DELAY: '100' };
    const start = async (name: string): Promise<ControlPlaneProcess> => {
      const replica = await ControlPlaneProcess.start({
        ...{ dir: join(run.dir, name), dataDir: join(run.dir, 'data'), databaseUrl: database.url, redisUrl: redis.url },
        env: { ...tracing, MATFLEET_HEARTBEAT_MS: '500', MATFLEET_LEASE_MS: '3000' },
      });
      stops.push(() => replica.stop());
      return replica;
    };
    near = await start('near');
    far = await start('far');
    model = await nanoPackage('int8');
    const { token } = await far.api.createJoinToken(1);
    agent = await AgentProcess.start({
      ...{ name: 'kiosk', modelMemory: '4MiB', token, deviceUrl: near.deviceUrl, dir: join(run.dir, 'agent'), env: tracing },
    });
    stops.push(() => agent.stop());
    await waitFor('the device to be online', async () => (await far.api.devices()).find(({ presence }) => presence === 'online'));
  }, 120_000);

  afterAll(async () => {
    for (const stop of stops.reverse()) await stop();
  });

  /** The trace that holds a span which `is` tells, once `isWhole`. */
  const trace = (is: (span: ReceivedSpan) => boolean, isWhole: (spans: ReceivedSpan[]) => boolean): Promise<ReceivedSpan[]> =>
    waitFor(
      'the whole trace',
      async () => {
        const traceId = receiver.spans.find(is)?.traceId;
        const spans = receiver.spans.filter((span) => span.traceId === traceId);
        return traceId && isWhole(spans) ? spans : undefined;
      },
      { lastSeen: () => receiver.spans.map(({ traceId, name, service }) => `${traceId.slice(0, 6)} ${service}: ${name}`) },
    );

  /** Names from the operator's call down to `span`. */
  const pathTo = (spans: readonly ReceivedSpan[], span: ReceivedSpan): string[] => {
    const parent = spans.find(({ spanId }) => spanId === span.parentId);
    if (!parent && span.parentId !== '' && span.parentId !== CALLER) throw new Error(`the parent of ${span.name} is in no span of its trace`);
    return [...(parent ? pathTo(spans, parent) : []), span.name];
  };

  it('leads from a REST call at one replica, by the other one, through the steps of the device, to its acknowledgement', async () => {
    await publish(model.dir, far.httpUrl, far.apiKeyFile);
    const spans = await trace(
      ({ name }) => name === 'acknowledge desired',
      (whole) => whole.some(({ name }) => name === 'POST /api/v1/models/:id/publish'),
    );
    const acknowledged = spans.find(({ name }) => name === 'acknowledge desired')!;
    expect(pathTo(spans, acknowledged)).toEqual(['POST /api/v1/models/:id/publish', 'assign', 'send desired', 'activate', 'acknowledge desired']);
    const [device] = await far.api.devices();
    expect(acknowledged.attributes).toMatchObject({ 'matfleet.device.id': device!.id, 'matfleet.generation': 1, 'matfleet.phase': 'active' });
    const of = (name: string): ReceivedSpan => spans.find((span) => span.name === name)!;
    expect(of('activate')).toMatchObject({ service: 'matfleet-agent', instance: 'kiosk' });
    expect(of('fetch').service).toBe('matfleet-agent');
    expect(of('send desired').instance).not.toBe(of('assign').instance);
  }, 60_000);

  it('leads from an inference through the queue and over the replica that holds the device to its answer, below the span that the caller names', async () => {
    // Which replica's worker takes the job is the queue's choice; the far one goes over the near one.
    for (let turn = 1, hopped = false; !hopped; turn++) {
      expect(turn).toBeLessThan(15);
      const traceId = randomBytes(16).toString('hex');
      const headers = { authorization: `Bearer ${far.apiKey}`, 'content-type': 'application/json', traceparent: `00-${traceId}-${CALLER}-01` };
      const body = JSON.stringify({ prompt: PROMPT, deadlineMs: 20_000 });
      const response = await fetch(`${far.httpUrl}/api/v1/inferences`, { method: 'POST', headers, body });
      expect(response.status).toBe(202);
      const spans = await trace(
        (span) => span.traceId === traceId,
        (whole) => ['POST /api/v1/inferences', 'run run-inference', 'answer'].every((name) => whole.some((span) => span.name === name)),
      );
      hopped = spans.some(({ name }) => name === 'replica RunAttempt');
      const generate = spans.find(({ name }) => name === 'generate')!;
      expect(pathTo(spans, generate)).toEqual([
        ...['POST /api/v1/inferences', 'enqueue run-inference', 'run run-inference', 'attempt'],
        ...(hopped ? ['replica RunAttempt', 'replica RunAttempt'] : []),
        ...['send inference', 'run inference', 'answer', 'generate'],
      ]);
      expect(generate.service).toBe('matfleet-agent');
    }
  }, 90_000);

  it('holds neither prompt, answer nor secret', () => {
    const sent = Buffer.concat(receiver.bodies).toString('latin1');
    expect(sent).toContain('matfleet.device.id');
    for (const secret of [PROMPT, 'Freezer', far.apiKey, agent.options.token]) expect(sent).not.toContain(secret);
  });
});

describe('without OpenTelemetry’s variables', () => {
  it('nothing of it is loaded, and a message carries no trace', async () => {
    const { traced, traceParent, startTracing } = await import('@matfleet/tracing');
    expect(await startTracing({ service: 'spec', onProblem: () => {} })).toBeUndefined();
    expect(await traced('span', { entry: true }, () => traceParent())).toBeUndefined();
  });
});
