import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import {
  bin,
  heldOutCommands,
  ManagedProcess,
  pickCommands,
  removeFile,
  seededRandom,
  sleep,
  waitFor,
  type Device,
  type Fleet,
  type Inference,
  type Update,
} from '@matfleet/harness';
import { checkHistoryFiles, HistoryFile, type HistoryReport, type HistorySlot } from '@matfleet/history';

export interface FleetRunOptions {
  readonly devices: number;
  readonly seed: number;
  /** How long faults happen, seconds. */
  readonly seconds: number;
  readonly inferences: number;
  readonly versions: readonly string[];
  readonly onProgress: (what: string) => void;
}

export interface FleetRunResult extends HistoryReport {
  readonly seed: number;
  readonly kills: readonly string[];
  readonly inferences: number;
  readonly updates: number;
  readonly seconds: number;
}

/** From the last fault until everything must have settled. */
const SETTLE_MS = 180_000;

/**
 * Virtual devices and real agents under scripted network faults, while the control plane and the agents are killed at random moments, an update is
 * pushed and inferences are queued. What the devices saw and what the operator was told is then checked as one history.
 */
export async function runFleet(fleet: Fleet, options: FleetRunOptions): Promise<FleetRunResult> {
  const { seed, devices, versions, onProgress } = options;
  const startedAt = performance.now();
  const random = seededRandom(seed);
  const files = { devices: join(fleet.dir, `devices-${seed}.jsonl`), operator: join(fleet.dir, `operator-${seed}.jsonl`) };
  const operator = new HistoryFile(files.operator);

  const simulator = await startSimulator(fleet, options, files.devices);
  let kills: string[];
  const ended: Inference[] = [];
  let update: Update;
  try {
    onProgress(`${devices} virtual devices and ${fleet.agents.length} agents; faults for ${options.seconds} s`);
    const [killed, ids, created] = await Promise.all([
      killAtRandom(fleet, options, random),
      submit(fleet, options),
      retried('create the update', () => fleet.api.createUpdate(versions[seed % versions.length]!)),
    ]);
    [kills, update] = [killed, created];
    for (const { deviceId } of update.targets) operator.add({ kind: 'command-submitted', command: `${update.id}/${deviceId}` });
    for (const id of ids) operator.add({ kind: 'command-submitted', command: id });

    onProgress('waiting for everything to settle');
    for (const id of ids) ended.push(await over(`inference ${id}`, () => fleet.api.inference(id)));
    update = await over(`update ${update.id}`, () => fleet.api.update(update.id));
    await settled(fleet);
    await recordOperator(fleet, operator, update, ended);
  } finally {
    await simulator.kill('SIGINT').catch(() => simulator.kill());
    operator.close();
  }
  if (simulator.child.exitCode !== 0) throw new Error(`the simulator ended with ${simulator.child.exitCode}:\n${simulator.logTail()}`);
  const report = await checkHistoryFiles([files.devices, files.operator]);
  return { seed, ...report, kills, inferences: ended.length, updates: 1, seconds: Math.round((performance.now() - startedAt) / 1_000) };
}

async function startSimulator(fleet: Fleet, { devices, seed, seconds }: FleetRunOptions, history: string): Promise<ManagedProcess> {
  const { token } = await fleet.api.createJoinToken(devices);
  const at = (name: string): string => join(fleet.dir, `${name}-${seed}`);
  await writeFile(at('token'), token, { mode: 0o600 });
  await writeFile(at('script.json'), JSON.stringify(faultScript(seed, seconds)));
  await removeFile(at('ready.json'));
  const process = ManagedProcess.start(
    'simulator',
    bin.simulator,
    [
      ...['--server', fleet.controlPlane.deviceUrl, '--join-token-file', at('token'), '--devices', String(devices), '--seed', String(seed)],
      // The grants of nano's boxes, so that different devices get different slices.
      ...['--model-memory', '1594000,1678000,4194304', '--script', at('script.json'), '--history', history, '--ready-file', at('ready.json')],
    ],
    { logFile: at('simulator.log') },
  );
  await process.ready(at('ready.json'), 60_000 + devices * 100);
  return process;
}

/** A tenth of the devices on each broken network, every fault once or more within `seconds`, at moments that the seed decides. */
export function faultScript(seed: number, seconds: number): unknown {
  const random = seededRandom(seed + 7);
  const when = (lasts: number): { at: number; for: number } => ({
    at: Number((random() * Math.max(0, seconds - lasts)).toFixed(2)),
    for: lasts,
  });
  return {
    groups: { cut: 0.15, stuck: 0.15, nat: 0.15, far: 0.15, noisy: 0.2 },
    faults: [
      { kind: 'drop', group: 'cut', ...when(2) },
      { kind: 'drop', group: 'cut', ...when(1) },
      { kind: 'freeze', group: 'stuck', ...when(4) },
      { kind: 'half-open', group: 'nat', ...when(0) },
      { kind: 'delay', group: 'far', at: 0, for: seconds, ms: 150, jitterMs: 150 },
      { kind: 'duplicate', group: 'noisy', at: 0, for: seconds, chance: 0.3 },
      { kind: 'reorder', group: 'noisy', at: 0, for: seconds, chance: 0.2 },
      { kind: 'skew', at: 0, for: seconds / 2, ms: random() < 0.5 ? -600_000 : 600_000 },
      { kind: 'restart', group: 'cut', ...when(0) },
    ],
  };
}

async function killAtRandom(fleet: Fleet, { seconds }: FleetRunOptions, random: () => number): Promise<string[]> {
  const kills: string[] = [];
  const count = 2 + Math.floor(random() * 3);
  for (let i = 0; i < count; i++) {
    await sleep((random() * seconds * 1_000) / count);
    // The control plane at least once: that is the fault that every device feels.
    if (i === 0 || random() < 0.4) {
      await fleet.controlPlane.process.kill();
      kills.push('control plane');
      await sleep(random() * 1_000);
      await fleet.controlPlane.restart();
    } else {
      const agent = fleet.agents[Math.floor(random() * fleet.agents.length)]!;
      await agent.process.kill();
      kills.push(`agent ${agent.name}`);
      await agent.restart();
    }
  }
  return kills;
}

async function submit(fleet: Fleet, { seed, seconds, inferences }: FleetRunOptions): Promise<string[]> {
  const ids: string[] = [];
  for (const command of pickCommands(await heldOutCommands(), inferences, seed)) {
    const { id } = await retried('queue an inference', () => fleet.api.createInference({ prompt: command.text, deadlineMs: 120_000 }));
    ids.push(id);
    await sleep((seconds * 1_000) / inferences);
  }
  return ids;
}

const over = <T extends { state: string }>(what: string, ask: () => Promise<T>): Promise<T> => {
  let last: T | undefined;
  return waitFor(
    `${what} to end`,
    async () => {
      last = await ask();
      return last.state === 'succeeded' || last.state === 'failed' ? last : undefined;
    },
    { timeoutMs: SETTLE_MS, everyMs: 500, lastSeen: () => last?.state },
  );
};

/** Waits until every device runs what it should or has given up; says which do not. */
async function settled(fleet: Fleet): Promise<void> {
  let behind: Device[] = [];
  await waitFor(
    'every device to run what it should',
    async () => {
      behind = (await fleet.api.devices()).filter(
        ({ presence, desired, observed, phase }) =>
          presence !== 'online' || (phase !== 'failed' && (!observed || Number(observed.generation) !== Number(desired?.generation))),
      );
      return behind.length === 0;
    },
    {
      timeoutMs: SETTLE_MS,
      everyMs: 500,
      lastSeen: () =>
        `${behind.length} devices, for example ${JSON.stringify(behind.slice(0, 3).map(({ name, presence, phase, desired, observed }) => ({ name, presence, phase, desired, observed })))}`,
    },
  ).catch((error: unknown) => console.error(`… ${(error as Error).message}`)); // The checker counts them.
}

async function recordOperator(fleet: Fleet, operator: HistoryFile, update: Update, inferences: readonly Inference[]): Promise<void> {
  for (const { deviceId, state } of update.targets)
    if (state === 'succeeded' || state === 'failed')
      operator.add({
        kind: 'command-ended',
        command: `${update.id}/${deviceId}`,
        outcome: state,
        effects: state === 'succeeded' ? 1 : 0,
      });
  for (const { id, state, attempts } of inferences)
    operator.add({
      kind: 'command-ended',
      command: id,
      outcome: state === 'succeeded' ? 'succeeded' : 'failed',
      effects: attempts.filter((attempt) => attempt.state === 'succeeded').length,
    });
  for (const device of await fleet.api.devices()) {
    const { desired, observed } = device;
    for (const assignment of (await fleet.api.assignments(device.id)).reverse())
      operator.add({ kind: 'desired-written', device: device.id, ...slotOf(assignment) });
    operator.add({
      kind: 'device-shown',
      device: device.id,
      ...(desired && { desired: slotOf(desired) }),
      ...(observed && { observed: slotOf(observed) }),
    });
    const agent = fleet.agents.find(({ name }) => name === device.name);
    if (!agent) continue;
    const journal = JSON.parse(await readFile(join(agent.options.dir, 'data/journal.json'), 'utf8')) as AgentJournal;
    operator.add({
      kind: 'device-ended',
      device: device.id,
      ...(journal.active && { runs: slotOf(journal.active) }),
      ...(journal.failure?.final && { gaveUp: journal.failure.generation }),
    });
  }
}

interface AgentJournal {
  active?: HistorySlot;
  failure?: { generation: number; final: boolean };
}

const slotOf = (from: { generation: number | string; modelVersionId: string; sliceId: string }): HistorySlot => ({
  generation: Number(from.generation),
  modelVersionId: from.modelVersionId,
  sliceId: from.sliceId,
});

/** The control plane may be dead at this moment; whoever calls it tries again, as any client would. */
const retried = <T>(what: string, call: () => Promise<T>): Promise<T> => waitFor(what, call, { timeoutMs: 60_000, everyMs: 200 });
