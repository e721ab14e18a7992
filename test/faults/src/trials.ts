import { cp, rm } from 'node:fs/promises';
import { AgentProcess, sleep, waitFor, type Device, type Fleet } from '@matfleet/harness';
import { sendOversized, type Oversized } from './oversized.js';

/** What the fleet does about devices that are not what they seem. Each begins and ends with every agent online. */
export interface Trials {
  /** The disk of an agent is copied, and both run. */
  readonly clone: { readonly quarantinedAfterSeconds: number; readonly audited: boolean };
  /** A device is revoked while its session is open, each agent in turn. */
  readonly revoked: { readonly devices: number; readonly slowestEndMs: number; readonly cameBackRefused: boolean };
  /** An agent is stopped (SIGSTOP): its connection stays, and nothing comes. Until every replica calls it offline. */
  readonly silent: { readonly leaseSeconds: number; readonly offlineAfterSeconds: number };
  readonly oversized: Oversized;
}

type Standing = Device & { readonly standing: string; readonly standingReason: string | null };

const QUARANTINE_MS = 120_000;
const BACK_MS = 60_000;
/** Longer than an agent that dials again at once needs. */
const STAYS_OUT_MS = 5_000;

export async function runTrials(fleet: Fleet, leaseMs: number, onProgress: (what: string) => void): Promise<Trials> {
  onProgress('a cloned device');
  const clone = await tryClone(fleet);
  onProgress('revoked devices');
  const revoked = await tryRevoked(fleet);
  onProgress('a device that falls silent');
  const silent = await trySilent(fleet, leaseMs);
  onProgress('oversized messages');
  return { clone, revoked, silent, oversized: await sendOversized(fleet) };
}

/** Whether the fleet did what it must. */
export const trialsPassed = ({ clone, revoked, silent, oversized }: Trials): boolean =>
  clone.audited && revoked.cameBackRefused && silent.offlineAfterSeconds <= silent.leaseSeconds + 1 && oversized.refused === oversized.messages;

async function tryClone(fleet: Fleet): Promise<Trials['clone']> {
  const agent = fleet.agents[0]!;
  const dir = `${agent.options.dir}-copy`;
  await cp(agent.options.dir, dir, { recursive: true, filter: (path) => !/\.sock$|ready\.json$/.test(path) });
  const startedAtMs = performance.now();
  const copy = await AgentProcess.start({ ...agent.options, dir });
  let device: Standing;
  try {
    device = await waitFor(
      'the cloned device to be put into quarantine',
      async () => {
        const seen = await standingOf(fleet, agent.name);
        return seen.standing === 'quarantined' && seen;
      },
      { timeoutMs: QUARANTINE_MS, everyMs: 100 },
    );
  } finally {
    await copy.stop();
  }
  const quarantinedAfterSeconds = seconds(startedAtMs);
  const records = await fleet.api.request<{ action: string; subject: string }[]>('GET', '/api/v1/audit?limit=100');
  const audited = records.some(({ action, subject }) => action === 'device.quarantined' && subject === `device:${device.id}`);
  await rm(dir, { recursive: true, force: true });
  await comeBack(fleet, agent, device.id);
  return { quarantinedAfterSeconds, audited };
}

async function tryRevoked(fleet: Fleet): Promise<Trials['revoked']> {
  let slowestEndMs = 0;
  let cameBackRefused = true;
  for (const agent of fleet.agents) {
    const { id } = await standingOf(fleet, agent.name);
    const startedAtMs = performance.now();
    await fleet.api.request('POST', `/api/v1/devices/${id}/revoke`, { reason: 'a trial' });
    for (const { api } of fleet.replicas)
      await waitFor(`the session of ${agent.name} to end`, async () => (await api.device(agent.name)).presence !== 'online', { everyMs: 10 });
    slowestEndMs = Math.max(slowestEndMs, performance.now() - startedAtMs);
    await agent.restart();
    await sleep(STAYS_OUT_MS);
    cameBackRefused &&= (await standingOf(fleet, agent.name)).presence !== 'online';
    await comeBack(fleet, agent, id);
  }
  return { devices: fleet.agents.length, slowestEndMs: Math.round(slowestEndMs), cameBackRefused };
}

async function trySilent(fleet: Fleet, leaseMs: number): Promise<Trials['silent']> {
  const agent = fleet.agents.at(-1)!;
  process.kill(agent.process.pid, 'SIGSTOP');
  try {
    const startedAtMs = performance.now();
    await waitFor(
      `every replica to call ${agent.name} offline`,
      async () => (await Promise.all(fleet.replicas.map(({ api }) => api.device(agent.name)))).every(({ presence }) => presence === 'offline'),
      { timeoutMs: 3 * leaseMs, everyMs: 20 },
    );
    return { leaseSeconds: leaseMs / 1_000, offlineAfterSeconds: seconds(startedAtMs) };
  } finally {
    process.kill(agent.process.pid, 'SIGCONT');
    await online(fleet, agent.name);
  }
}

/** A refused agent waits long before it asks again: its restart is the operator who stands beside it. */
async function comeBack(fleet: Fleet, agent: AgentProcess, deviceId: string): Promise<void> {
  await fleet.api.request('POST', `/api/v1/devices/${deviceId}/release`);
  await agent.restart();
  await online(fleet, agent.name);
}

const online = (fleet: Fleet, name: string): Promise<boolean> =>
  waitFor(`${name} to be online again`, async () => (await fleet.api.device(name)).presence === 'online', { timeoutMs: BACK_MS });

const standingOf = (fleet: Fleet, name: string): Promise<Standing> => fleet.api.device(name) as Promise<Standing>;

const seconds = (sinceMs: number): number => Number(((performance.now() - sinceMs) / 1_000).toFixed(1));
