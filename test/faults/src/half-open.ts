import { execFile } from 'node:child_process';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { bin, ControlPlaneProcess, makeRunDir, ManagedProcess, nanoPackage, publish, waitFor, type Device } from '@matfleet/harness';

/** How one way of a network went dead. */
export interface LostWay {
  /** Whose bytes vanish. */
  readonly lost: 'devices' | 'control plane';
  /** From the loss until every device behind that network was called offline, and the most that this may take. */
  readonly offlineAfterSeconds: number;
  readonly mostSeconds: number;
  /** Devices elsewhere that were called offline meanwhile. */
  readonly falseOffline: number;
  /** From the repair until all were online again. */
  readonly backAfterSeconds: number;
}

export interface HalfOpenResult {
  readonly ok: boolean;
  readonly devices: number;
  readonly devicesElsewhere: number;
  readonly heartbeatSeconds: number;
  readonly leaseSeconds: number;
  readonly ways: readonly LostWay[];
}

const HEARTBEAT_MS = 2_000;
const LEASE_MS = 3 * HEARTBEAT_MS;
/** Fewer than the share at which the control plane doubts itself instead of its devices. */
const SHARE = 0.15;
const BACK_MS = 120_000;

/**
 * Devices in a network namespace of their own, as behind a NAT that forgets them: the kernel loses the bytes of one direction and tells nobody.
 * Undefined where this cannot be made: that needs root and iproute2.
 */
export async function runHalfOpen(devices: number, onProgress: (what: string) => void): Promise<HalfOpenResult | undefined> {
  const network = await Network.create().catch((error: unknown) => onProgress(`no network namespace: ${(error as Error).message.trim()}`));
  if (!network) return undefined;
  const run = await makeRunDir('half-open');
  const stops: (() => Promise<unknown>)[] = [];
  try {
    const controlPlane = await ControlPlaneProcess.start({
      dir: join(run.dir, 'control-plane'),
      env: { MATFLEET_DEVICE_HOST: HOST, MATFLEET_HEARTBEAT_MS: String(HEARTBEAT_MS), MATFLEET_LEASE_MS: String(LEASE_MS) },
    });
    stops.push(() => controlPlane.stop());
    const model = await nanoPackage('int8');
    await publish(model.dir, controlPlane.httpUrl, controlPlane.apiKeyFile);
    const devicesElsewhere = Math.ceil(devices / SHARE) - devices;
    const names = async (): Promise<Set<string>> => new Set((await controlPlane.api.devices()).map(({ name }) => name));
    onProgress(`${devicesElsewhere} devices outside, ${devices} in a network of their own`);
    stops.push(await simulate(controlPlane, run.dir, devicesElsewhere, []));
    const elsewhere = await names();
    stops.push(await simulate(controlPlane, run.dir, devices, network.within));
    const watch = async (): Promise<{ behind: Device[]; elsewhere: Device[] }> => {
      const all = await controlPlane.api.devices();
      return { behind: all.filter(({ name }) => !elsewhere.has(name)), elsewhere: all.filter(({ name }) => elsewhere.has(name)) };
    };
    const ways: LostWay[] = [];
    for (const lost of ['devices', 'control plane'] as const) {
      await presence('every device to be online', watch, ({ behind }) => behind.every((device) => device.presence === 'online'), BACK_MS);
      onProgress(`what the ${lost} send${lost === 'devices' ? '' : 's'} is lost`);
      // Its own beats go on until a device has heard nothing for a lease; only then its lease here runs down.
      const mostSeconds = ((lost === 'devices' ? LEASE_MS : 2 * LEASE_MS) + 1_000) / 1_000;
      const falselyOffline = new Set<string>();
      await network.lose(lost);
      const lostAtMs = performance.now();
      await presence(
        'the devices behind the dead network to be offline',
        watch,
        (seen) => {
          for (const { name, presence: shown } of seen.elsewhere) if (shown === 'offline') falselyOffline.add(name);
          return seen.behind.every((device) => device.presence === 'offline');
        },
        4 * LEASE_MS,
      );
      const offlineAfterSeconds = seconds(lostAtMs);
      await network.mend();
      const mendedAtMs = performance.now();
      await presence('the devices to be back', watch, ({ behind }) => behind.every((device) => device.presence === 'online'), BACK_MS);
      ways.push({ lost, offlineAfterSeconds, mostSeconds, falseOffline: falselyOffline.size, backAfterSeconds: seconds(mendedAtMs) });
    }
    const ok = ways.every(({ offlineAfterSeconds, mostSeconds, falseOffline }) => offlineAfterSeconds <= mostSeconds && falseOffline === 0);
    return { ok, devices, devicesElsewhere, heartbeatSeconds: HEARTBEAT_MS / 1_000, leaseSeconds: LEASE_MS / 1_000, ways };
  } finally {
    for (const stop of stops.reverse()) await stop();
    await network.remove();
    await run.remove();
  }
}

async function presence<T>(what: string, watch: () => Promise<T>, done: (seen: T) => boolean, timeoutMs: number): Promise<void> {
  await waitFor(what, async () => done(await watch()), { timeoutMs, everyMs: 50 });
}

/** Answers how to stop it, once all are started. */
async function simulate(controlPlane: ControlPlaneProcess, dir: string, devices: number, within: readonly string[]): Promise<() => Promise<void>> {
  const at = (name: string): string => join(dir, `sim-${within.length > 0 ? 'behind' : 'elsewhere'}-${name}`);
  const { token } = await controlPlane.api.createJoinToken(devices);
  await writeFile(at('token'), token, { mode: 0o600 });
  const args = [
    '--server',
    controlPlane.deviceUrl,
    '--join-token-file',
    at('token'),
    '--devices',
    String(devices),
    '--seed',
    within.length > 0 ? '2' : '1',
  ];
  const simulator = ManagedProcess.start('simulator', bin.simulator, [...args, '--ready-file', at('ready.json'), '--quiet'], {
    logFile: at('simulator.log'),
    within,
  });
  await simulator.ready(at('ready.json'), 120_000);
  return () => simulator.kill('SIGINT').catch(() => simulator.kill());
}

const seconds = (sinceMs: number): number => Number(((performance.now() - sinceMs) / 1_000).toFixed(1));

const NAMESPACE = 'matfleet-half-open';
const [HOST, BEHIND] = ['10.213.77.1', '10.213.77.2'];
const [HOST_END, BEHIND_END] = ['mf-host', 'mf-behind'];
/** Nobody's: frames to it arrive nowhere, and no error comes back. */
const NOWHERE = '02:00:00:00:00:99';

const ip = async (...args: string[]): Promise<void> => void (await promisify(execFile)('ip', args));

/** Two ends of a wire, one of them in a namespace. A direction is lost by sending its frames to an address that nobody has. */
class Network {
  readonly within = ['ip', 'netns', 'exec', NAMESPACE];

  private constructor(private readonly addresses: { readonly host: string; readonly behind: string }) {}

  static async create(): Promise<Network> {
    await Network.clear();
    await ip('netns', 'add', NAMESPACE);
    await ip('link', 'add', HOST_END, 'type', 'veth', 'peer', 'name', BEHIND_END, 'netns', NAMESPACE);
    await ip('address', 'add', `${HOST}/24`, 'dev', HOST_END);
    await ip('link', 'set', HOST_END, 'up');
    await ip('-n', NAMESPACE, 'address', 'add', `${BEHIND}/24`, 'dev', BEHIND_END);
    for (const device of ['lo', BEHIND_END]) await ip('-n', NAMESPACE, 'link', 'set', device, 'up');
    const { stdout } = await promisify(execFile)('ip', ['-n', NAMESPACE, '-j', 'link', 'show', BEHIND_END]);
    const [link] = JSON.parse(stdout) as { address: string }[];
    const host = (await readFile(`/sys/class/net/${HOST_END}/address`, 'utf8')).trim();
    return new Network({ host, behind: link!.address });
  }

  async lose(whose: 'devices' | 'control plane'): Promise<void> {
    if (whose === 'devices') await ip('-n', NAMESPACE, ...neighbour(HOST, NOWHERE, BEHIND_END));
    else await ip(...neighbour(BEHIND, NOWHERE, HOST_END));
  }

  async mend(): Promise<void> {
    await ip('-n', NAMESPACE, ...neighbour(HOST, this.addresses.host, BEHIND_END));
    await ip(...neighbour(BEHIND, this.addresses.behind, HOST_END));
  }

  remove(): Promise<void> {
    return Network.clear();
  }

  private static async clear(): Promise<void> {
    await ip('link', 'del', HOST_END).catch(() => undefined);
    await ip('netns', 'del', NAMESPACE).catch(() => undefined);
  }
}

const neighbour = (address: string, hardware: string, device: string): string[] => [
  ...['neighbour', 'replace', address, 'lladdr', hardware, 'nud', 'permanent', 'dev', device],
];
