import { join } from 'node:path';
import {
  heldOutCommands,
  pickCommands,
  seededRandom,
  sleep,
  waitFor,
  type Device,
  type Fleet,
  type Inference,
  type Rollout,
  type RolloutTarget,
} from '@matfleet/harness';
import { checkHistoryFiles, HistoryFile, type HistoryReport } from '@matfleet/history';
import { sendGarbage, type Garbage } from './garbage.js';
import { killAtRandom, type Services } from './kills.js';
import { recordOperator } from './record.js';
import { startSimulator } from './simulator.js';
import { standStill, type Standstill } from './standstill.js';
import { runTrials, type Trials } from './trials.js';

export interface FleetRunOptions {
  readonly devices: number;
  readonly seed: number;
  /** How long faults happen, seconds. */
  readonly seconds: number;
  readonly inferences: number;
  /** Of processes; absent: two to four, by the seed. */
  readonly kills?: number | undefined;
  /** What of them is ours to kill. */
  readonly services: Services;
  readonly redisAwaySeconds: number;
  /** Connections of nonsense after the faults; 0: none. */
  readonly garbage: number;
  /** After the faults no control plane for so long; 0: not. */
  readonly stopSeconds: number;
  /** After that what `Trials` names; undefined: not. */
  readonly trialLeaseMs: number | undefined;
  readonly versions: readonly string[];
  readonly onProgress: (what: string) => void;
}

export interface FleetRunResult extends HistoryReport {
  readonly seed: number;
  readonly replicas: number;
  readonly kills: readonly string[];
  readonly inferences: number;
  /** Of them; the others ended with an error that says why. */
  readonly answered: number;
  readonly rollouts: number;
  readonly garbage?: Garbage;
  readonly standstill?: Standstill;
  readonly trials?: Trials;
  readonly seconds: number;
}

/** From the last fault until everything must have settled. */
const SETTLE_MS = 240_000;
/** Of an inference: longer than any fault, so that one that fails failed for another reason. */
const DEADLINE_MS = 400_000;
/** Calls of the operator at the same time. */
const CLIENTS = 8;
/** Different prompts. */
const PROMPTS = 50;

/**
 * Virtual devices and real agents under scripted network faults, while the control plane and the agents are killed at random moments, a rollout
 * runs and inferences are queued. What the devices saw and what the operator was told is then checked as one history.
 */
export async function runFleet(fleet: Fleet, options: FleetRunOptions): Promise<FleetRunResult> {
  const { seed, devices, versions, onProgress } = options;
  const startedAt = performance.now();
  const random = seededRandom(seed);
  const files = { devices: join(fleet.dir, `devices-${seed}.jsonl`), operator: join(fleet.dir, `operator-${seed}.jsonl`) };
  const operator = new HistoryFile(files.operator);

  const simulator = await startSimulator(fleet, options, files.devices);
  let kills: string[];
  let inferences: Inference[];
  let rollout: Rollout;
  let targets: RolloutTarget[];
  let still: Standstill | undefined;
  let garbage: Garbage | undefined;
  let trials: Trials | undefined;
  try {
    onProgress(`${devices} virtual devices and ${fleet.agents.length} agents; faults for ${options.seconds} s`);
    const [killed, ids, created] = await Promise.all([
      killAtRandom(fleet, options.services, { ...options, kills: options.kills ?? 2 + Math.floor(random() * 3) }, random),
      submit(fleet, options),
      retried('start the rollout', () => fleet.api.startRollout(versions[seed % versions.length]!)),
    ]);
    [kills, rollout] = [killed, created];
    targets = await retried('read its targets', () => fleet.api.rolloutTargets(rollout.id));
    for (const { deviceId } of targets) operator.add({ kind: 'command-submitted', command: `${rollout.id}/${deviceId}` });
    for (const id of ids) operator.add({ kind: 'command-submitted', command: id });

    onProgress('waiting for everything to settle');
    inferences = await ended(fleet, ids);
    rollout = await over(`rollout ${rollout.id}`, () => fleet.api.rollout(rollout.id));
    targets = await retried('read its targets', () => fleet.api.rolloutTargets(rollout.id));
    await settled(fleet);
    if (options.garbage > 0) {
      onProgress(`${options.garbage} connections that speak nonsense`);
      garbage = await sendGarbage(fleet, options.garbage);
    }
    if (options.stopSeconds > 0) {
      onProgress(`no control plane for ${options.stopSeconds} s`);
      still = await standStill(fleet, options.stopSeconds);
    }
    if (options.trialLeaseMs !== undefined) {
      trials = await runTrials(fleet, options.trialLeaseMs, onProgress);
      await settled(fleet);
    }
    await recordOperator(fleet, operator, { ...rollout, targets }, inferences);
  } finally {
    await simulator.kill('SIGINT').catch(() => simulator.kill());
    operator.close();
  }
  if (simulator.child.exitCode !== 0) throw new Error(`the simulator ended with ${simulator.child.exitCode}:\n${simulator.logTail()}`);
  const report = await checkHistoryFiles([files.devices, files.operator]);
  return {
    ...{ seed, replicas: fleet.replicas.length, ...report, kills },
    inferences: inferences.length,
    answered: inferences.filter(({ state }) => state === 'succeeded').length,
    rollouts: 1,
    ...(garbage && { garbage }),
    ...(still && { standstill: still }),
    ...(trials && { trials }),
    seconds: Math.round((performance.now() - startedAt) / 1_000),
  };
}

/** Inferences, evenly over the time of the faults, a few calls at a time; returns their ids. */
async function submit(fleet: Fleet, { seed, seconds, inferences }: FleetRunOptions): Promise<string[]> {
  const ids: string[] = [];
  const prompts = pickCommands(await heldOutCommands(), Math.min(inferences, PROMPTS), seed);
  const startedAtMs = performance.now();
  let next = 0;
  const client = async (): Promise<void> => {
    while (next < inferences) {
      const index = next++;
      await sleep(Math.max(0, startedAtMs + (seconds * 1_000 * index) / inferences - performance.now()));
      const prompt = prompts[index % prompts.length]!.text;
      const { id } = await retried('queue an inference', () => fleet.api.createInference({ prompt, deadlineMs: DEADLINE_MS }));
      ids.push(id);
    }
  };
  await Promise.all(Array.from({ length: CLIENTS }, client));
  return ids;
}

async function ended(fleet: Fleet, ids: readonly string[]): Promise<Inference[]> {
  const inferences: Inference[] = [];
  let next = 0;
  const client = async (): Promise<void> => {
    while (next < ids.length) {
      const id = ids[next++]!;
      inferences.push(await over(`inference ${id}`, () => fleet.api.inference(id)));
    }
  };
  await Promise.all(Array.from({ length: CLIENTS }, client));
  return inferences;
}

/** States of inferences and rollouts that end them. */
const ENDED = new Set(['succeeded', 'failed', 'aborted', 'rolled-back']);

const over = <T extends { state: string }>(what: string, ask: () => Promise<T>): Promise<T> => {
  let last: T | undefined;
  return waitFor(
    `${what} to end`,
    async () => {
      last = await ask();
      return ENDED.has(last.state) ? last : undefined;
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

/** The control plane may be dead at this moment; whoever calls it tries again, as any client would. */
const retried = <T>(what: string, call: () => Promise<T>): Promise<T> => waitFor(what, call, { timeoutMs: 60_000, everyMs: 200 });
