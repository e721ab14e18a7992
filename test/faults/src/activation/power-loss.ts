import { createHash } from 'node:crypto';
import { cp, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { seededRandom, waitFor } from '@matfleet/harness';
import { ActivationRig, type Target } from './rig.js';
import { SimulatedDisk, type Loss } from './simulated-disk.js';
import { checkStore } from './store-check.js';
import type { DiskOperation } from './tap.js';

/** Prefixes of unflushed changes that are tried at each cut, beside losing everything and losing content alone. */
const SOME = 3;

export interface PowerLossReport {
  readonly activations: number;
  readonly operations: number;
  readonly flushes: number;
  /** Power cuts: after every operation, with each way to lose what was not flushed. */
  readonly cuts: number;
  /** States of the disk that differ. */
  readonly states: number;
  /** Of these, the ones on which a real agent was started and asked. */
  readonly booted: number;
  readonly withoutRunnableSlice: number;
  readonly wrongBytes: number;
  readonly wrongAnswers: number;
  readonly problems: readonly string[];
}

export interface PowerLossOptions {
  readonly activations: number;
  /** Real agents started on states, at most. */
  readonly boots: number;
  readonly seed: number;
  readonly few: boolean;
  readonly onProgress: (what: string) => void;
}

/**
 * Writes down everything that a real agent does to its disk in some activations; then cuts the power after every single operation, on a disk that keeps
 * no more than was flushed, and looks at what the next start would find.
 */
export async function runPowerLoss(dir: string, { activations, boots, seed, few, onProgress }: PowerLossOptions): Promise<PowerLossReport> {
  const random = seededRandom(seed);
  const rig = await ActivationRig.start(dir, few);
  const problems: string[] = [];
  let [cuts, booted, withoutRunnableSlice, wrongBytes, wrongAnswers] = [0, 0, 0, 0, 0];
  try {
    const recordFile = join(dir, 'operations.jsonl');
    // One slice runs before the record begins: without any there is nothing to lose.
    const { targets } = rig;
    // A version and its smallest slice first, then every other one of both, in turns.
    const target = (i: number): Target => targets[((i % 2) * targets.length) / 2 + (Math.floor(i / 2) % (targets.length / 2))]!;
    await rig.boot();
    await rig.online();
    await activated(rig, target(0));
    await rig.kill();
    const disk = new SimulatedDisk();
    for (const [path, content] of await filesOf(rig.data)) disk.place(path, content);
    await rig.boot({ armAt: 0, killAt: 0, recordFile });
    await rig.online();
    for (let i = 1; i <= activations; i++) await activated(rig, target(i));
    await rig.kill();
    rig.silence();
    const operations = (await readFile(recordFile, 'utf8'))
      .split('\n')
      .filter(Boolean)
      .map((line) => JSON.parse(line) as DiskOperation);
    const identity = join(dir, 'identity');
    await cp(join(rig.data, 'identity'), identity, { recursive: true });
    onProgress(`${operations.length} operations in ${activations} activations`);

    const states = new Map<string, { readonly where: string; readonly files: Map<string, Buffer> }>();
    const losses: Loss[] = [{ kind: 'all' }, { kind: 'content' }, ...Array.from({ length: SOME }, (): Loss => ({ kind: 'some', random }))];
    for (const [done, operation] of operations.entries()) {
      disk.apply(operation);
      for (const loss of losses) {
        cuts += 1;
        const files = disk.after(loss);
        const where = `after operation ${done + 1} (${operation.op} ${operation.path}), ${loss.kind} lost`;
        states.set(fingerprint(files), { where, files });
      }
    }
    onProgress(`${cuts} power cuts leave ${states.size} different disks`);
    const toBoot = new Set([...states.keys()].sort(() => random() - 0.5).slice(0, boots));
    for (const [key, { where, files }] of states) {
      await lay(rig.data, files);
      const { wrong, active } = checkStore(rig.data);
      if (wrong.length > 0) {
        if (active) wrongBytes += 1;
        else withoutRunnableSlice += 1;
        problems.push(`${where}: ${wrong[0]}`);
      }
      if (!toBoot.has(key)) continue;
      booted += 1;
      await cp(identity, join(rig.data, 'identity'), { recursive: true });
      const problem = await answersRight(rig);
      if (problem === 'wrong') wrongAnswers += 1;
      else if (problem) withoutRunnableSlice += 1;
      if (problem) problems.push(`${where}: ${problem}`);
      await rig.kill();
      rig.forgetReports();
      if (booted % 20 === 0) onProgress(`${booted} of ${toBoot.size} agents started on what was left`);
    }
    const flushes = operations.filter(({ op }) => op === 'fsync').length;
    return {
      ...{ activations, operations: operations.length, flushes, cuts, states: states.size, booted },
      ...{ withoutRunnableSlice, wrongBytes, wrongAnswers, problems },
    };
  } finally {
    await rig.stop();
  }
}

async function activated(rig: ActivationRig, target: Target): Promise<void> {
  const generation = rig.want(target);
  const how = await waitFor('the activation', () => rig.ended(generation), { timeoutMs: 60_000, everyMs: 10 });
  if (how !== 'active') throw new Error(`slice ${target.sliceId} did not become active: ${how}; the log ends: ${rig.logTail()}`);
  await rig.learn();
}

async function answersRight(rig: ActivationRig): Promise<string | undefined> {
  try {
    await rig.boot();
    return (await rig.wrongAnswer()) && 'wrong';
  } catch (error) {
    return `no slice serves: ${(error as Error).message}`;
  }
}

async function filesOf(dir: string): Promise<[path: string, content: Buffer][]> {
  const names = await readdir(dir, { recursive: true, withFileTypes: true });
  const files = names.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name).slice(dir.length + 1));
  return Promise.all(
    files.filter((path) => !path.startsWith('identity')).map(async (path) => [path, await readFile(join(dir, path))] as [string, Buffer]),
  );
}

async function lay(dir: string, files: ReadonlyMap<string, Buffer>): Promise<void> {
  await rm(dir, { recursive: true, force: true });
  await mkdir(dir, { recursive: true });
  for (const [path, content] of files) {
    await mkdir(dirname(join(dir, path)), { recursive: true });
    await writeFile(join(dir, path), content);
  }
}

function fingerprint(files: ReadonlyMap<string, Buffer>): string {
  const hash = createHash('sha256');
  for (const [path, content] of [...files].sort(([a], [b]) => (a < b ? -1 : 1))) hash.update(path).update('\0').update(hashOf(content)).update('\0');
  return hash.digest('hex');
}

/** Contents are shared between thousands of states. */
const known = new WeakMap<Buffer, string>();
function hashOf(content: Buffer): string {
  let hash = known.get(content);
  if (hash === undefined) known.set(content, (hash = createHash('sha256').update(content).digest('hex')));
  return hash;
}
