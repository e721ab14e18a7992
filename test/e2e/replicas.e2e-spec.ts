import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from '@jest/globals';
import {
  Balancer,
  bin,
  ControlPlaneProcess,
  FleetApi,
  makeRunDir,
  ManagedProcess,
  nanoPackage,
  publish,
  sleep,
  waitFor,
  type Device,
  type Inference,
} from '@matfleet/harness';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { describeWithRedis, startRedis, type RedisServer } from '../support/needs.js';

const DEVICES = 12;

describeWithRedis('two replicas in processes of their own, behind a balancer', () => {
  const stops: (() => Promise<unknown>)[] = [];
  let database: TestDatabase;
  let redis: RedisServer;
  let replicas: [ControlPlaneProcess, ControlPlaneProcess];

  beforeAll(async () => {
    const run = await makeRunDir('replicas');
    stops.push(() => run.remove());
    [database, redis] = await Promise.all([createDatabase(), startRedis()]);
    stops.push(
      () => redis.stop(),
      () => database.drop(),
    );
    const start = async (name: string): Promise<ControlPlaneProcess> => {
      const replica = await ControlPlaneProcess.start({
        ...{ dir: join(run.dir, name), dataDir: join(run.dir, 'data'), databaseUrl: database.url, redisUrl: redis.url },
        env: { MATFLEET_HEARTBEAT_MS: '500', MATFLEET_LEASE_MS: '3000' },
      });
      stops.push(() => replica.stop());
      return replica;
    };
    replicas = [await start('a'), await start('b')];
    const [a] = replicas;
    const model = await nanoPackage('int8');
    await publish(model.dir, a.httpUrl, a.apiKeyFile);
    const balancer = await Balancer.start(replicas.map(({ deviceUrl }) => Number(new URL(deviceUrl).port)));
    stops.push(() => balancer.stop());
    const { token } = await a.api.createJoinToken(DEVICES);
    await writeFile(join(run.dir, 'token'), token, { mode: 0o600 });
    const simulator = ManagedProcess.start(
      'simulator',
      bin.simulator,
      [
        ...['--server', `https://127.0.0.1:${balancer.port}`, '--join-token-file', join(run.dir, 'token'), '--devices', String(DEVICES)],
        ...['--model-memory', '4194304', '--quiet'],
      ],
      { logFile: join(run.dir, 'simulator.log') },
    );
    stops.push(() => simulator.stop());
    await allReady(replicas[1]);
  }, 120_000);

  afterAll(async () => {
    for (const stop of stops.reverse()) await stop();
  }, 60_000);

  async function allReady(replica: ControlPlaneProcess): Promise<void> {
    let seen: Device[] = [];
    await waitFor(
      'every device to be online and to run what it should',
      async () => {
        seen = await replica.api.devices();
        return seen.filter(({ presence, phase }) => presence === 'online' && phase === 'active').length === DEVICES;
      },
      { timeoutMs: 60_000, everyMs: 100, lastSeen: () => seen.map(({ name, presence, phase }) => [name, presence, phase]) },
    );
  }

  /** An operator who asks one replica after the other, and goes to the next when nobody listens there any more. */
  async function operate(until: () => boolean): Promise<{ ids: string[]; dropped: string[] }> {
    const [ids, dropped]: [string[], string[]] = [[], []];
    // A connection a call: on one that is kept, a call may meet the end of the connection half way, whatever the server does.
    const headers = { connection: 'close' };
    const apis = replicas.map(({ httpUrl, apiKey }) => new FleetApi(httpUrl, apiKey, headers));
    const client = async (turn: number): Promise<void> => {
      for (; !until(); turn++) {
        const api = apis[turn % 2]!;
        try {
          ids.push((await api.createInference({ prompt: 'hello', deadlineMs: 60_000 })).id);
          await api.devices();
        } catch (error) {
          const cause = (error as { cause?: { code?: string } }).cause?.code;
          if (cause !== 'ECONNREFUSED') dropped.push(`${String(error)} (${cause ?? 'no code'})`);
        }
        await sleep(20);
      }
    };
    await Promise.all([client(0), client(1), client(2)]);
    return { ids, dropped };
  }

  async function answered(ids: readonly string[], replica: ControlPlaneProcess): Promise<Inference[]> {
    const ended: Inference[] = [];
    for (const id of ids)
      ended.push(
        await waitFor(
          `inference ${id} to end`,
          async () => {
            const inference = await replica.api.inference(id);
            return inference.state === 'succeeded' || inference.state === 'failed' ? inference : undefined;
          },
          { timeoutMs: 60_000 },
        ),
      );
    return ended;
  }

  it('lose no call when one of them is asked to stop: what it took it answers, and its devices go to the other', async () => {
    const [a, b] = replicas;
    let stopped = false;
    const operator = operate(() => stopped);
    await sleep(1_000);
    const { clean } = await a.stop();
    expect(clean).toBe(true);
    await allReady(b);
    stopped = true;
    const { ids, dropped } = await operator;
    // A connection that the kernel had taken and the process had not when it stopped listening is reset, whatever the process does.
    const resets = dropped.filter((call) => call.includes('ECONNRESET'));
    expect(dropped.filter((call) => !resets.includes(call))).toEqual([]);
    expect(resets.length).toBeLessThanOrEqual(1);
    expect(ids.length).toBeGreaterThan(5);
    expect((await answered(ids, b)).filter(({ state }) => state !== 'succeeded')).toEqual([]);
    await a.restart();
  }, 120_000);

  it('answer every inference once when one of them is killed and Redis goes away meanwhile, and call no device gone', async () => {
    const [a, b] = replicas;
    await allReady(b);
    let over = false;
    const operator = operate(() => over);
    const offline = new Set<string>();
    const watch = (async () => {
      while (!over) {
        for (const { name, presence } of await b.api.devices()) if (presence === 'offline') offline.add(name);
        await sleep(100);
      }
    })();
    await a.process.kill();
    await redis.kill();
    await sleep(2_000);
    await a.restart();
    await redis.start();
    await allReady(a);
    over = true;
    const { ids } = await operator;
    await watch;
    const ended = await answered(ids, a);
    expect(ended.filter(({ state }) => state !== 'succeeded')).toEqual([]);
    for (const { attempts } of ended) expect(attempts.filter(({ state }) => state === 'succeeded')).toHaveLength(1);
    expect([...offline]).toEqual([]);
  }, 120_000);
});
