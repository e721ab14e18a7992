import { existsSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { AgentProcess, ControlPlaneProcess, makeRunDir, nanoPackage, publish, waitFor } from '@matfleet/harness';

/** One real agent from its first word to its last. */
describe('a device’s identity', () => {
  let run: Awaited<ReturnType<typeof makeRunDir>>;
  let plane: ControlPlaneProcess;
  let agent: AgentProcess | undefined;
  let apiKey = '';

  beforeAll(async () => {
    run = await makeRunDir('identity');
    const env = { MATFLEET_DEVICE_CERTIFICATE_SECONDS: '15', MATFLEET_HEARTBEAT_MS: '300', MATFLEET_LEASE_MS: '3000' };
    plane = await ControlPlaneProcess.start({ dir: join(run.dir, 'control-plane'), env });
    apiKey = (await readFile(plane.apiKeyFile, 'utf8')).trim();
    await publish((await nanoPackage('int8')).dir, plane.httpUrl, plane.apiKeyFile);
  }, 120_000);
  afterAll(async () => {
    await agent?.stop();
    await plane?.stop();
    await run?.remove();
  }, 60_000);

  async function call<T>(method: string, path: string, body?: object): Promise<T> {
    const response = await fetch(`${plane.httpUrl}/api/v1${path}`, {
      method,
      headers: { authorization: `Bearer ${apiKey}`, ...(body && { 'content-type': 'application/json' }) },
      ...(body && { body: JSON.stringify(body) }),
    });
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`);
    return (await response.json()) as T;
  }

  it('waits for an operator, changes its key in the middle of a session, and removes everything when it is told to go', async () => {
    const { token } = await call<{ token: string }>('POST', '/join-tokens', { mode: 'request', labels: { site: 'berlin' } });
    const dir = join(run.dir, 'kiosk');
    agent = await AgentProcess.start({ name: 'kiosk', modelMemory: '4MiB', token, deviceUrl: plane.deviceUrl, dir });
    const waiting = await waitFor('the device to ask', async () => (await call<{ id: string; name: string }[]>('GET', '/enrolments'))[0]);
    expect(waiting.name).toBe('kiosk');
    await call('POST', `/enrolments/${waiting.id}/accept`);

    interface Device {
      phase: string | null;
      presence: string;
      labels: object;
    }
    const device = () => call<Device>('GET', `/devices/${waiting.id}`);
    await waitFor('a slice to run', async () => ((await device()).phase === 'active' ? true : undefined), { timeoutMs: 60_000 });
    expect((await device()).labels).toEqual({ site: 'berlin' });

    const identityFile = join(dir, 'data', 'identity', 'identity.json');
    const certificate = async () => (JSON.parse(await readFile(identityFile, 'utf8')) as { certificatePem: string }).certificatePem;
    const before = await certificate();
    await waitFor('another certificate', async () => ((await certificate()) === before ? undefined : true), { timeoutMs: 30_000 });
    expect((await device()).presence).toBe('online');
    await agent.restart();
    await waitFor('the new key to be the accepted one', async () => {
      const keys = await call<{ state: string }[]>('GET', `/devices/${waiting.id}/keys`);
      return keys.some(({ state }) => state === 'retired') ? true : undefined;
    });

    await call('POST', `/devices/${waiting.id}/decommission`, { reason: 'sold', wipe: true });
    const gone = await waitFor('the word that everything is removed', async () => {
      const [tombstone] = await call<{ name: string; wipedAt: string | null }[]>('GET', '/tombstones');
      return tombstone?.wipedAt ? tombstone : undefined;
    });
    expect(gone.name).toBe('kiosk');
    await waitFor('the keys to be removed', async () => (existsSync(join(dir, 'data', 'identity')) ? undefined : true));
    expect(await readdir(join(dir, 'data', 'chunks'))).toEqual([]);
    expect(await readdir(join(dir, 'data', 'models'))).toEqual([]);

    await agent.restart();
    await new Promise((resolve) => setTimeout(resolve, 1_500));
    expect(existsSync(join(dir, 'data', 'identity'))).toBe(false);
    expect(await call('GET', '/devices')).toEqual([]);
  }, 180_000);
});
