import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { bin, LocalApp, ManagedProcess, nanoPackage, removeFile, waitFor, type LocalAnswer } from '@matfleet/harness';
import { Phase } from '@matfleet/protocol';
import { FakeControlPlane } from '@matfleet/protocol/testing';
import { checkStore } from './store-check.js';
import { tapEnvironment, type TapSettings } from './tap.js';

const PROMPT = 'What can you do?';
const TOKENS = 8;
/** A machine that does other work too is slow, not broken. */
const READY_MS = 180_000;

export interface Target {
  readonly modelVersionId: string;
  readonly sliceId: string;
}

const keyOf = ({ modelVersionId, sliceId }: Target): string => `${modelVersionId} ${sliceId}`;

/** One device with the real agent, its data kept over every death, and the plane that tells it what to run. */
export class ActivationRig {
  readonly data: string;
  generation = 0;
  /** What each slice of each version says, from activations that nothing disturbed. */
  private readonly reference = new Map<string, string>();
  private agent: ManagedProcess | undefined;
  private app: LocalApp | undefined;
  private deviceId = '';

  private constructor(
    private readonly dir: string,
    /** Every slice of two versions of the same weights. */
    readonly targets: readonly Target[],
    private readonly plane: FakeControlPlane,
  ) {
    this.data = join(dir, 'data');
  }

  /** With every slice of both versions, or with the smallest and the largest of each. */
  static async start(dir: string, few: boolean): Promise<ActivationRig> {
    const versions = [await nanoPackage(), await nanoPackage('int8', 128)];
    const targets = versions.flatMap(({ versionId, slices }) =>
      (few ? [slices[0]!, slices.at(-1)!] : slices).map(({ id }) => ({ modelVersionId: versionId, sliceId: id })),
    );
    const rig = new ActivationRig(dir, targets, await FakeControlPlane.start({ packageDirs: versions.map((version) => version.dir) }));
    await mkdir(rig.data, { recursive: true });
    return rig;
  }

  /** Resolves when its local service is open. */
  async boot(tap?: Omit<TapSettings, 'dir' | 'pointFile'>): Promise<void> {
    const readyFile = join(this.dir, 'ready.json');
    const socket = join(this.dir, 'agent.sock');
    await removeFile(readyFile);
    const args = ['--join', this.plane.url, '--token', this.plane.joinToken, '--name', 'kiosk', '--data', this.data, '--socket', socket];
    this.agent = ManagedProcess.start(
      'agent',
      bin.agent,
      [...args, '--port', '0', '--http', 'off', '--ready-file', readyFile, '--log-level', 'warn'],
      {
        logFile: join(this.dir, 'agent.log'),
        ...(tap && { env: tapEnvironment({ ...tap, dir: this.data, pointFile: join(this.dir, 'points.txt') }) }),
      },
    );
    await this.agent.ready(readyFile, READY_MS);
    this.app = LocalApp.connect(socket);
  }

  /** A newer document. */
  want(target: Target): number {
    this.generation += 1;
    this.plane.setDesired(this.deviceId, { ...target, generation: BigInt(this.generation), modelName: 'nano', contextTokens: 128 });
    return this.generation;
  }

  /** Until the device has a session; the plane sends nothing by itself then. */
  async online(): Promise<void> {
    const enrolled = await waitFor('the device to enrol', () => this.plane.enrolments[0]?.deviceId, { everyMs: 20 });
    this.deviceId = enrolled;
    await waitFor('the session', () => this.plane.connected(enrolled), { everyMs: 20 });
  }

  /** Forgets the document, so that a device that comes back is told nothing. */
  silence(): void {
    if (this.deviceId) this.plane.setDesired(this.deviceId, { generation: 0n });
  }

  /** 'dead', or how the generation ended, or undefined while neither is so. */
  ended(generation: number): 'dead' | 'active' | 'failed' | undefined {
    if (this.agent?.exited) return 'dead';
    for (const report of this.plane.messages(this.deviceId, 'report'))
      if (Number(report.generation) === generation && (report.phase === Phase.PHASE_ACTIVE || report.phase === Phase.PHASE_FAILED))
        return report.phase === Phase.PHASE_ACTIVE ? 'active' : 'failed';
    return undefined;
  }

  /** What it says now is what it says, until it is asked otherwise. */
  async learn(): Promise<void> {
    const answer = await this.ask();
    this.reference.set(keyOf(answer), answer.text);
  }

  /** Undefined where a slice serves and says what it should; rejects when none serves in time. */
  async wrongAnswer(): Promise<string | undefined> {
    const answer = await this.ask();
    const expected = this.reference.get(keyOf(answer));
    if (answer.text === expected) return undefined;
    return `slice ${answer.sliceId} says ${JSON.stringify(answer.text)}, undisturbed ${JSON.stringify(expected)}`;
  }

  private async ask(): Promise<LocalAnswer> {
    const app = this.app!;
    await waitFor('a slice to serve', async () => (await app.status()).engineReady, { timeoutMs: READY_MS, everyMs: 25 });
    return app.ask({ prompt: PROMPT, maxTokens: TOKENS, timeoutMs: READY_MS });
  }

  /** What is wrong with the files that the next start would serve from. */
  check(): readonly string[] {
    return checkStore(this.data).wrong;
  }

  /** What it does not run. */
  get others(): Target[] {
    const { active } = checkStore(this.data);
    return this.targets.filter((target) => !active || keyOf(target) !== keyOf(active));
  }

  get pointFile(): string {
    return join(this.dir, 'points.txt');
  }

  logTail(): string {
    return this.agent?.logTail(8) ?? '';
  }

  /** Old reports would make every look at the newest one slower. */
  forgetReports(): void {
    this.plane.received.splice(0);
  }

  async kill(): Promise<void> {
    this.app?.close();
    this.app = undefined;
    await this.agent?.kill();
  }

  async stop(): Promise<void> {
    await this.kill();
    this.plane.stop();
  }
}
