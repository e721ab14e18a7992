import { strict as assert } from 'node:assert';
import { heldOutCommands, pickCommands, seededRandom, sleep, waitFor, type Fleet, type HeldOutCommand, type Inference } from '@matfleet/harness';

/** How one seed went: what was killed, and what the invariants saw. */
export interface SeedResult {
  seed: number;
  kills: string[];
  inferences: number;
  attempts: number;
  localAnswers: number;
  seconds: number;
}

const WINDOW_MS = 3_000;
const INFERENCES = 4;

/**
 * One turn of the line under kill -9: a rollout runs, inferences are queued and local applications ask, while agents, engines and the control
 * plane are killed at random moments and started again. Then everything must be as if nothing had happened; throws when it is not.
 */
export async function runSeed(fleet: Fleet, seed: number, versions: readonly string[]): Promise<SeedResult> {
  const start = performance.now();
  const random = seededRandom(seed);
  const commands = pickCommands(await heldOutCommands(), 8, seed);
  const target = versions[seed % versions.length]!;

  const rollout = await retried('start the rollout', () => fleet.api.startRollout(target));
  const submitting = submitInferences(fleet, commands, random);
  const asking = askLocally(fleet, commands, random);
  const kills = await killAtRandom(fleet, random);
  const ids = await submitting;
  const localAnswers = await asking;

  const inferences: Inference[] = [];
  for (const id of ids) inferences.push(await ended(fleet, id));
  for (const { id, state, error, attempts } of inferences) {
    const answered = attempts.filter((attempt) => attempt.state === 'succeeded').length;
    assert.equal(state, 'succeeded', `inference ${id} was lost: ${state}, ${error}`);
    assert.equal(answered, 1, `inference ${id} was answered ${answered} times`);
  }

  const finished = await waitFor(
    `rollout ${rollout.id} to end`,
    async () => {
      const seen = await fleet.api.rollout(rollout.id);
      return seen.state === 'running' ? undefined : seen;
    },
    { timeoutMs: 90_000 },
  );
  assert.equal(finished.state, 'succeeded', `rollout ${rollout.id} ended as ${finished.state}: ${finished.reason}`);
  await fleet.converged(target, 60_000);
  for (const agent of fleet.agents) {
    const answer = await agent.app.ask({ prompt: commands[0]!.text });
    assert.equal(answer.modelVersionId, target, `${agent.name} answers with ${answer.modelVersionId} after the rollout of ${target}`);
  }
  return {
    seed,
    kills,
    inferences: inferences.length,
    attempts: inferences.reduce((sum, { attempts }) => sum + attempts.length, 0),
    localAnswers,
    seconds: Number(((performance.now() - start) / 1000).toFixed(1)),
  };
}

async function submitInferences(fleet: Fleet, commands: readonly HeldOutCommand[], random: () => number): Promise<string[]> {
  const ids: string[] = [];
  for (let i = 0; i < INFERENCES; i++) {
    await sleep((random() * WINDOW_MS) / INFERENCES);
    const { id } = await retried('queue an inference', () => fleet.api.createInference({ prompt: commands[i]!.text, deadlineMs: 90_000 }));
    ids.push(id);
  }
  return ids;
}

/** Local applications keep asking; an answer may fail while its own agent or engine is dead, but then it fails clearly and the next one works. */
async function askLocally(fleet: Fleet, commands: readonly HeldOutCommand[], random: () => number): Promise<number> {
  let answers = 0;
  const until = performance.now() + WINDOW_MS;
  while (performance.now() < until) {
    const agent = fleet.agents[Math.floor(random() * fleet.agents.length)]!;
    await agent.app.ask({ prompt: commands[5]!.text, timeoutMs: 5_000 }).then(
      () => answers++,
      () => undefined,
    );
    await sleep(50);
  }
  return answers;
}

async function killAtRandom(fleet: Fleet, random: () => number): Promise<string[]> {
  const kills: string[] = [];
  const count = 2 + Math.floor(random() * 2);
  for (let i = 0; i < count; i++) {
    await sleep((random() * WINDOW_MS) / count);
    const agent = fleet.agents[Math.floor(random() * fleet.agents.length)]!;
    const what = ['agent', 'engine', 'control plane'][Math.floor(random() * 3)]!;
    if (what === 'control plane') {
      await fleet.controlPlane.process.kill();
      kills.push('control plane');
      await eachAnswers(fleet, 'while the control plane is dead');
      await sleep(random() * 500);
      await fleet.controlPlane.restart();
    } else if (what === 'agent') {
      await agent.process.kill();
      kills.push(`agent ${agent.name}`);
      await sleep(random() * 500);
      await agent.restart();
      await answers(fleet, agent.name, 'after kill -9 of the agent');
    } else {
      const { enginePid } = await agent.app.status();
      if (enginePid > 0) process.kill(enginePid, 'SIGKILL');
      kills.push(`engine of ${agent.name}`);
      await answers(fleet, agent.name, 'after kill -9 of its engine');
    }
  }
  return kills;
}

const eachAnswers = async (fleet: Fleet, when: string): Promise<void> => {
  for (const agent of fleet.agents) await answers(fleet, agent.name, when);
};

/** The agent must come to answer from a slice it has, with nobody's help. */
function answers(fleet: Fleet, name: string, when: string): Promise<unknown> {
  let failure: unknown;
  return waitFor(
    `agent ${name} to answer ${when}`,
    () =>
      fleet
        .agent(name)
        .app.ask({ prompt: 'turn the lights off in the office', timeoutMs: 5_000 })
        .catch((error: unknown) => {
          failure = error;
          return undefined;
        }),
    { timeoutMs: 30_000, everyMs: 100, lastSeen: () => String(failure) },
  );
}

const ended = (fleet: Fleet, id: string): Promise<Inference> =>
  waitFor(
    `inference ${id} to end`,
    async () => {
      const seen = await fleet.api.inference(id);
      return seen.state === 'succeeded' || seen.state === 'failed' ? seen : undefined;
    },
    { timeoutMs: 100_000, everyMs: 100 },
  );

/** The control plane may be dead at this moment; whoever calls it tries again, as any client would. */
const retried = <T>(what: string, call: () => Promise<T>): Promise<T> => waitFor(what, call, { timeoutMs: 60_000, everyMs: 200 });
