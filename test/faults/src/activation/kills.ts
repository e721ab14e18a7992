import { readFile } from 'node:fs/promises';
import { seededRandom, waitFor } from '@matfleet/harness';
import { ActivationRig } from './rig.js';

const END_MS = 180_000;

export interface KillReport {
  readonly activations: number;
  /** Deaths before an operation of the agent's own, by the step of the trial and the operation. */
  readonly killedAt: Readonly<Record<string, number>>;
  /** Deaths at a moment that no operation named, from outside. */
  readonly killedBetween: number;
  /** Activations that were through before the moment came. */
  readonly completed: number;
  readonly withoutRunnableSlice: number;
  readonly wrongAnswers: number;
  readonly wrongBytes: number;
  /** The last, undisturbed one became active. */
  readonly convergedAtTheEnd: boolean;
  readonly problems: readonly string[];
  readonly seconds: number;
}

export interface KillOptions {
  readonly activations: number;
  readonly seed: number;
  /** Few slices, to be quick. */
  readonly few: boolean;
  /** No further activation begins after so many. */
  readonly minutes: number;
  readonly onProgress: (what: string) => void;
}

/**
 * One device, one activation after the other to a slice that it does not run; the agent dies by SIGKILL in each: every second time before its k-th
 * operation on the disk, k going through all of them in turn, and else from outside at a random moment. After each death the agent starts on what is
 * left, and must serve the exact answers of a slice whose every byte is right.
 */
export async function runKills(dir: string, { activations, seed, few, minutes, onProgress }: KillOptions): Promise<KillReport> {
  const rig = await ActivationRig.start(dir, few);
  const random = seededRandom(seed);
  const started = performance.now();
  const counts = { killedBetween: 0, completed: 0, withoutRunnableSlice: 0, wrongAnswers: 0, wrongBytes: 0 };
  const problems: string[] = [];
  let [done, convergedAtTheEnd] = [0, false];
  try {
    const activationMs = await learn(rig, onProgress);
    let point = 1;
    for (let i = 0; i < activations && performance.now() - started < minutes * 60_000; i++) {
      done += 1;
      const atPoint = i % 2 === 0;
      await rig.boot({ armAt: rig.generation + 1, killAt: atPoint ? point : 0 });
      const problem = await serves(rig, counts);
      if (problem) {
        problems.push(`activation ${i + 1}: ${problem}; the log ends: ${rig.logTail()}`);
        onProgress(problems.at(-1)!);
      }
      await rig.online();
      const { others } = rig;
      const generation = rig.want(others[Math.floor(random() * others.length)]!);
      if (atPoint) {
        // Past the last operation there is nothing to be killed at: from the first again.
        if ((await end(rig, generation)) === 'dead') point += 1;
        else [point, counts.completed] = [1, counts.completed + 1];
      } else {
        const until = performance.now() + random() * activationMs * 1.2;
        await waitFor('the moment', () => performance.now() >= until || rig.ended(generation), { everyMs: 1 });
        if (rig.ended(generation)) counts.completed += 1;
        else counts.killedBetween += 1;
      }
      await rig.kill();
      rig.silence();
      rig.forgetReports();
      if ((i + 1) % 50 === 0) onProgress(`${i + 1} of ${activations} activations, ${problems.length} problems`);
    }
    await rig.boot();
    await serves(rig, counts);
    await rig.online();
    convergedAtTheEnd = (await end(rig, rig.want(rig.others[0]!))) === 'active';
  } finally {
    await rig.stop();
  }
  const lines = (await readFile(rig.pointFile, 'utf8').catch(() => '')).split('\n').filter(Boolean);
  const killedAt: Record<string, number> = {};
  for (const line of lines) killedAt[line] = (killedAt[line] ?? 0) + 1;
  return { activations: done, ...counts, killedAt, convergedAtTheEnd, problems, seconds: Math.round((performance.now() - started) / 1000) };
}

const end = (rig: ActivationRig, generation: number): Promise<'dead' | 'active' | 'failed'> =>
  waitFor('the activation to end', () => rig.ended(generation), { timeoutMs: END_MS, everyMs: 5 });

/** Every slice once, undisturbed: what it says, and how long an activation takes at the most. */
async function learn(rig: ActivationRig, onProgress: (what: string) => void): Promise<number> {
  await rig.boot();
  await rig.online();
  let longestMs = 0;
  for (const target of rig.targets) {
    const from = performance.now();
    const how = await end(rig, rig.want(target));
    if (how !== 'active') throw new Error(`slice ${target.sliceId} did not become active, undisturbed: ${how}; the log ends: ${rig.logTail()}`);
    longestMs = Math.max(longestMs, performance.now() - from);
    await rig.learn();
  }
  await rig.kill();
  rig.silence();
  onProgress(`${rig.targets.length} slices known, an activation takes up to ${Math.round(longestMs)} ms`);
  return longestMs;
}

/** What is wrong with the device as it is now; counted. */
async function serves(
  rig: ActivationRig,
  counts: { withoutRunnableSlice: number; wrongAnswers: number; wrongBytes: number },
): Promise<string | undefined> {
  const wrong = rig.check();
  if (wrong.length > 0) counts.wrongBytes += 1;
  try {
    const answer = await rig.wrongAnswer();
    if (answer) counts.wrongAnswers += 1;
    return answer ?? wrong[0];
  } catch (error) {
    counts.withoutRunnableSlice += 1;
    return `no slice serves: ${(error as Error).message}`;
  }
}
