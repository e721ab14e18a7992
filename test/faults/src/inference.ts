import { join } from 'node:path';
import {
  AgentProcess,
  ControlPlaneProcess,
  heldOutCommands,
  makeRunDir,
  nanoPackage,
  pickCommands,
  publish,
  seededRandom,
  sleep,
  waitFor,
  type Inference,
} from '@matfleet/harness';

const BOXES = ['a', 'b', 'c'] as const;
/** The same grant, so the same slice: whoever answers, the text is the same. */
const MODEL_MEMORY = '4MiB';
const BEATS = { MATFLEET_HEARTBEAT_MS: '1000', MATFLEET_LEASE_MS: '3000' };
const WINDOW_MS = 6_000;
const QUEUED = 12;
const LOCAL = 24;
const FAULTS = 4;

/** How one seed went. */
export interface InferenceFaults {
  readonly seed: number;
  readonly faults: readonly string[];
  readonly queued: number;
  /** Attempts of the queued ones. */
  readonly attempts: number;
  readonly local: number;
  /** Answers in which a second device went on. */
  readonly wentOn: number;
  /** Local calls whose own agent was killed under them: nobody was left to answer. */
  readonly agentGone: number;
  readonly lost: number;
  readonly doubled: number;
  readonly wrongText: number;
  readonly problems: readonly string[];
}

/** A control plane and three equal agents in processes of their own. */
export class InferenceRig {
  private readonly expected = new Map<string, string>();

  private constructor(
    readonly controlPlane: ControlPlaneProcess,
    readonly agents: readonly AgentProcess[],
    private readonly remove: () => Promise<void>,
    private readonly prompts: readonly string[],
  ) {}

  static async start(count: number = BOXES.length): Promise<InferenceRig> {
    const run = await makeRunDir('inference-faults');
    const controlPlane = await ControlPlaneProcess.start({ dir: join(run.dir, 'control-plane'), env: BEATS });
    const nano = await nanoPackage('int8');
    await publish(nano.dir, controlPlane.httpUrl, controlPlane.apiKeyFile);
    const { token } = await controlPlane.api.createJoinToken(count);
    const agents: AgentProcess[] = [];
    for (const name of BOXES.slice(0, count))
      agents.push(await AgentProcess.start({ name, modelMemory: MODEL_MEMORY, token, deviceUrl: controlPlane.deviceUrl, dir: join(run.dir, name) }));
    const prompts = pickCommands(await heldOutCommands(), 8, 1).map(({ text }) => text);
    const rig = new InferenceRig(controlPlane, agents, run.remove, prompts);
    await rig.ready();
    for (const prompt of prompts) rig.expected.set(prompt, (await agents[0]!.app.ask({ prompt })).text);
    return rig;
  }

  /** Every device runs its slice, and says so. */
  async ready(): Promise<void> {
    await waitFor(
      'every device to run a slice',
      async () => {
        const devices = await this.controlPlane.api.devices();
        const slices = new Set(devices.map(({ observed }) => observed?.sliceId));
        const all = devices.length === this.agents.length && devices.every(({ presence, observed }) => presence === 'online' && observed);
        return (all && slices.size === 1) || undefined;
      },
      { timeoutMs: 60_000 },
    );
    for (const { app } of this.agents) await waitFor('an engine', async () => (await app.status()).engineReady || undefined, { timeoutMs: 30_000 });
  }

  prompt(at: number): string {
    return this.prompts[at % this.prompts.length]!;
  }

  textOf(prompt: string): string {
    return this.expected.get(prompt)!;
  }

  async ask(prompt: string, deadlineMs: number): Promise<Inference> {
    const { id } = await this.controlPlane.api.createInference({ prompt, deadlineMs });
    return waitFor(
      `inference ${id} to end`,
      async () => {
        const seen = await this.controlPlane.api.inference(id);
        return seen.state === 'succeeded' || seen.state === 'failed' ? seen : undefined;
      },
      { timeoutMs: deadlineMs + 10_000, everyMs: 10 },
    );
  }

  async stop(): Promise<void> {
    await Promise.all(this.agents.map((agent) => agent.stop()));
    await this.controlPlane.stop();
    await this.remove();
  }
}

/** Agents and engines are killed and frozen at random moments while applications ask on their boxes and inferences are queued. */
export async function runInferenceFaults(rig: InferenceRig, seed: number): Promise<InferenceFaults> {
  const random = seededRandom(seed);
  const problems: string[] = [];
  const killed = new Map<AgentProcess, number>();
  let [lost, doubled, wrongText, wentOn, agentGone] = [0, 0, 0, 0, 0];

  const check = (what: string, prompt: string, text: string | null): void => {
    if (text === rig.textOf(prompt)) return;
    wrongText++;
    problems.push(`${what}: ${JSON.stringify(text)} instead of ${JSON.stringify(rig.textOf(prompt))}`);
  };
  const queued = async (at: number): Promise<Inference> => {
    await sleep(random() * WINDOW_MS);
    const prompt = rig.prompt(at);
    const ended = await rig.ask(prompt, 60_000);
    if (ended.state !== 'succeeded') {
      lost++;
      problems.push(`queued ${at}: ${ended.error}`);
    } else check(`queued ${at}`, prompt, ended.answer);
    if (ended.attempts.filter(({ state }) => state === 'succeeded').length > 1) doubled++;
    if (ended.attempts.some(({ reason }) => reason.includes('goes on after'))) wentOn++;
    return ended;
  };
  const local = async (at: number): Promise<void> => {
    await sleep(random() * WINDOW_MS);
    const agent = rig.agents[Math.floor(random() * rig.agents.length)]!;
    const { app } = agent;
    const prompt = rig.prompt(at);
    const began = performance.now();
    try {
      const answer = await app.ask({ prompt, timeoutMs: 30_000 });
      check(`local ${at} at ${agent.name}`, prompt, answer.text);
      if (answer.hops > 1) wentOn++;
    } catch (error) {
      // The process that the application talks to is gone, or was when it asked.
      if (agent.app !== app || agent.process.exited || (killed.get(agent) ?? -Infinity) > began) agentGone++;
      else {
        lost++;
        problems.push(`local ${at} at ${agent.name}: ${(error as Error).message}`);
      }
    }
  };

  const faults: string[] = [];
  const harm = async (): Promise<void> => {
    for (let i = 0; i < FAULTS; i++) {
      await sleep((random() * WINDOW_MS) / FAULTS);
      const agent = rig.agents[Math.floor(random() * rig.agents.length)]!;
      const chance = random();
      const { enginePid } = await agent.app.status().catch(() => ({ enginePid: 0 }));
      if (chance < 0.35 && enginePid > 0) {
        faults.push(`engine of ${agent.name} killed`);
        kill(enginePid, 'SIGKILL');
      } else if (chance < 0.7) {
        faults.push(`${agent.name} frozen`);
        const pids = [agent.process.pid, enginePid].filter((pid) => pid > 0);
        for (const pid of pids) kill(pid, 'SIGSTOP');
        await sleep(500 + random() * 1_000);
        for (const pid of pids) kill(pid, 'SIGCONT');
      } else {
        faults.push(`agent ${agent.name} killed`);
        killed.set(agent, performance.now());
        await agent.process.kill();
        await sleep(random() * 500);
        await agent.restart();
        killed.set(agent, performance.now());
      }
    }
  };

  const [ended] = await Promise.all([
    Promise.all(Array.from({ length: QUEUED }, (_, at) => queued(at))),
    Promise.all(Array.from({ length: LOCAL }, (_, at) => local(at))),
    harm(),
  ]);
  await rig.ready();
  const attempts = ended.reduce((sum, one) => sum + one.attempts.length, 0);
  return { seed, faults, queued: QUEUED, attempts, local: LOCAL, wentOn, agentGone, lost, doubled, wrongText, problems };
}

/** It may be gone already. */
function kill(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}
