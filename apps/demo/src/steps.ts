import { strict as assert } from 'node:assert';
import { pickCommands, sleep, waitFor, type AgentProcess, type Device, type Fleet, type HeldOutCommand, type Inference } from '@matfleet/harness';
import type { Report } from './report.js';

const short = (id: string): string => id.slice(0, 12);
const percent = (value: number | null | undefined): string => (value == null ? 'unknown' : `${(100 * value).toFixed(1)} %`);

export async function showSlices(fleet: Fleet, report: Report): Promise<{ name: string; slice: string; reason: string }[]> {
  const devices = await fleet.converged(fleet.model.versionId);
  const shown = fleet.agents.map(({ name }) => {
    const { desired } = devices.find((device) => device.name === name)!;
    report.line(`${name.padEnd(8)} ${desired!.sliceId}`);
    report.line(`${''.padEnd(8)} ${desired!.reason}`);
    return { name, slice: desired!.sliceId, reason: desired!.reason };
  });
  assert.equal(
    new Set(shown.map(({ slice }) => slice)).size,
    shown.length,
    `expected ${shown.length} different slices, got ${shown.map(({ slice }) => slice).join(', ')}`,
  );
  return shown;
}

/** Asks each agent over its own socket, as an application on that box would. */
export async function askEachAgent(fleet: Fleet, report: Report, commands: readonly HeldOutCommand[], versionId: string): Promise<unknown[]> {
  const answers = [];
  for (const agent of fleet.agents) {
    for (const command of commands) {
      const answer = await agent.app.ask({ prompt: command.text });
      const correct = answer.text === command.expected;
      report.line(`${agent.name.padEnd(8)} "${command.text}"`);
      report.line(`${''.padEnd(8)} ${correct ? '✓' : '✗'} ${answer.text}`);
      report.line(
        `${''.padEnd(8)} ${answer.sliceId} of ${short(answer.modelVersionId)}, TTFT ${answer.ttftMs.toFixed(0)} ms, ${answer.tokensPerSecond.toFixed(0)} tokens/s`,
      );
      assert.equal(answer.modelVersionId, versionId, `${agent.name} answered with version ${answer.modelVersionId}, not ${versionId}`);
      assert.ok(answer.text.length > 0, `${agent.name} gave an empty answer to "${command.text}"`);
      const { ttftMs, tokensPerSecond, sliceId } = answer;
      answers.push({
        device: agent.name,
        prompt: command.text,
        answer: answer.text,
        correct,
        slice: sliceId,
        modelVersion: answer.modelVersionId,
        ttftMs,
        tokensPerSecond,
      });
    }
  }
  return answers;
}

export async function killEngine(agent: AgentProcess, report: Report, command: HeldOutCommand): Promise<unknown> {
  const before = await agent.app.status();
  process.kill(before.enginePid, 'SIGKILL');
  report.line(`killed the engine of ${agent.name} (process ${before.enginePid})`);
  const start = performance.now();
  const after = await waitFor(
    `the engine of ${agent.name} to come back`,
    async () => {
      const status = await agent.app.status();
      return status.engineReady && status.enginePid !== before.enginePid && status.engineRestarts > before.engineRestarts ? status : undefined;
    },
    { timeoutMs: 30_000, everyMs: 50 },
  );
  const recoveredMs = performance.now() - start;
  assert.ok(!agent.process.exited, `${agent.name} itself went down with its engine`);
  const answer = await agent.app.ask({ prompt: command.text });
  report.line(`a new one (process ${after.enginePid}) serves after ${recoveredMs.toFixed(0)} ms and answers ${answer.text}`);
  return { device: agent.name, recoveredMs, answer: answer.text };
}

/** An inference whose quality floor only the largest device's slice meets. */
export async function queuedInference(fleet: Fleet, report: Report, command: HeldOutCommand): Promise<unknown> {
  const floor = await floorAbove(fleet, 1);
  const { id } = await fleet.api.createInference({ prompt: command.text, qualityFloor: floor.value, deadlineMs: 30_000 });
  const inference = await finished(fleet, id);
  const by = inference.attempts.find((attempt) => attempt.state === 'succeeded');
  report.line(`floor ${percent(floor.value)}: only ${floor.devices.join(', ')} can meet it`);
  report.line(`${by?.deviceName} answered ${inference.answer} (${by?.reason})`);
  assert.deepEqual([by?.deviceName], floor.devices);
  return { floor: floor.value, device: by!.deviceName, slice: inference.sliceId, answer: inference.answer };
}

/** Kills the device that answers, at a random moment, until one kill really hit an answer in flight; another device must then finish it, once. */
export async function fallback(fleet: Fleet, report: Report, commands: readonly HeldOutCommand[], random: () => number): Promise<unknown> {
  const floor = (await rankedDevices(fleet))[1]!.value; // two devices at least can answer
  for (let attempt = 1; attempt <= 12; attempt++) {
    const command = commands[attempt % commands.length]!;
    const { id } = await fleet.api.createInference({ prompt: command.text, qualityFloor: floor, deadlineMs: 60_000 });
    const first = await waitFor('the inference to start', async () => (await fleet.api.inference(id)).attempts[0], { timeoutMs: 20_000, everyMs: 3 });
    await sleep(random() * 40);
    const victim = fleet.agent(first.deviceName);
    await victim.process.kill();
    const inference = await finished(fleet, id);
    await victim.restart();
    await fleet.converged(inference.modelVersionId!);
    const answered = inference.attempts.filter(({ state }) => state === 'succeeded');
    assert.equal(answered.length, 1, `inference ${id} was answered ${answered.length} times`);
    if (inference.attempts.length < 2) {
      report.line(`${first.deviceName} had answered before it was killed; trying again`);
      continue;
    }
    const trace = inference.attempts.map(({ deviceName, state, reason, error }) => ({ device: deviceName, state, reason, error }));
    for (const { device, state, reason, error } of trace) report.line(`${device.padEnd(8)} ${state}: ${error ?? reason}`);
    report.line(`answer, once: ${inference.answer}`);
    assert.notEqual(answered[0]!.deviceName, first.deviceName, 'the device that was killed cannot be the one that answered');
    assert.equal(new Set(trace.map(({ device }) => device)).size, trace.length, 'a device was tried twice');
    return { killed: first.deviceName, answeredBy: answered[0]!.deviceName, answer: inference.answer, trace };
  }
  throw new Error('twelve kills, and not one hit an answer in flight');
}

export const demoCommands = (all: readonly HeldOutCommand[], seed: number): HeldOutCommand[] => pickCommands(all, 8, seed);

async function finished(fleet: Fleet, id: string): Promise<Inference> {
  const inference = await waitFor(
    `inference ${id} to end`,
    async () => {
      const seen = await fleet.api.inference(id);
      return seen.state === 'succeeded' || seen.state === 'failed' ? seen : undefined;
    },
    { timeoutMs: 70_000, everyMs: 25 },
  );
  assert.equal(inference.state, 'succeeded', `inference ${id} failed: ${inference.error}`);
  return inference;
}

/** A quality floor that exactly the best `count` devices meet. */
async function floorAbove(fleet: Fleet, count: number): Promise<{ value: number; devices: string[] }> {
  const ranked = await rankedDevices(fleet);
  const [lowestIn, highestOut] = [ranked[count - 1]!, ranked[count]!];
  assert.ok(lowestIn.value > highestOut.value, `no floor separates ${lowestIn.name} from ${highestOut.name}: both ${lowestIn.value}`);
  return { value: (lowestIn.value + highestOut.value) / 2, devices: ranked.slice(0, count).map(({ name }) => name) };
}

/** Every device with the quality of the slice that it runs, best first. */
async function rankedDevices(fleet: Fleet): Promise<{ name: string; value: number }[]> {
  const devices: Device[] = await fleet.api.devices();
  const quality = new Map(
    (await fleet.api.models()).flatMap((model) => model.slices.map((slice) => [`${model.id}/${slice.id}`, slice.quality?.value ?? 0] as const)),
  );
  return devices
    .map(({ name, observed }) => ({ name, value: quality.get(`${observed?.modelVersionId}/${observed?.sliceId}`) ?? 0 }))
    .sort((a, b) => b.value - a.value);
}
