import { strict as assert } from 'node:assert';
import { damagedNanoPackage, nanoPackage, publish, waitFor, type Fleet, type HeldOutCommand, type Rollout } from '@matfleet/harness';
import type { Report } from './report.js';

const short = (id: string): string => id.slice(0, 12);
const ENDED = ['succeeded', 'aborted', 'rolled-back'];
/** One device, then the rest; a version must say nearly what the one before said. */
const PLAN = { waves: [{ name: 'first', count: 1 }, {}], gates: { agreementPercent: 85, errorPoints: 5 } };

/** The same weights at half the bits, first to one device, then to all. */
export async function rollOut(
  fleet: Fleet,
  report: Report,
  command: HeldOutCommand,
): Promise<{ versionId: string; waves: object[]; seconds: number }> {
  const next = await nanoPackage('int4');
  assert.notEqual(next.versionId, fleet.model.versionId);
  await publish(next.dir, fleet.controlPlane.httpUrl, fleet.controlPlane.apiKeyFile);
  report.line(`version ${short(fleet.model.versionId)} (int8) → ${short(next.versionId)} (int4)`);
  const start = performance.now();
  const rollout = await ended(fleet, await fleet.api.startRollout(next.versionId, PLAN));
  assert.equal(rollout.state, 'succeeded', `the rollout is ${rollout.state}: ${rollout.reason}`);
  assert.equal(rollout.devices, fleet.agents.length);
  await fleet.converged(next.versionId);
  const seconds = Number(((performance.now() - start) / 1000).toFixed(2));
  tell(rollout, report);
  for (const agent of fleet.agents) {
    const answer = await agent.app.ask({ prompt: command.text });
    assert.equal(answer.modelVersionId, next.versionId, `${agent.name} still answers with ${answer.modelVersionId}`);
    report.line(`${agent.name.padEnd(8)} ${answer.sliceId} of ${short(answer.modelVersionId)}: ${answer.text}`);
  }
  return { versionId: next.versionId, waves: rollout.waves, seconds };
}

/** A version whose weights are scrambled: its own golden answers are in order, and what it says is not what the version before said. */
export async function stopBadVersion(fleet: Fleet, report: Report, command: HeldOutCommand): Promise<{ reason: string; seconds: number }> {
  const [good] = await fleet.api.devices();
  const before = good!.observed!.modelVersionId;
  const bad = await damagedNanoPackage();
  await publish(bad.dir, fleet.controlPlane.httpUrl, fleet.controlPlane.apiKeyFile);
  report.line(`version ${short(before)} → ${short(bad.versionId)}, whose weights are scrambled`);
  const start = performance.now();
  const rollout = await ended(fleet, await fleet.api.startRollout(bad.versionId, PLAN));
  assert.equal(rollout.state, 'rolled-back', `the rollout is ${rollout.state}: ${rollout.reason}`);
  const [first, second] = rollout.waves;
  assert.ok(
    first!.gates.some(({ gate, verdict }) => gate === 'agreement' && verdict === 'failed'),
    `no gate stopped it: ${rollout.reason}`,
  );
  assert.equal(second!.state, 'pending', 'the second wave has begun');
  await fleet.converged(before);
  const seconds = Number(((performance.now() - start) / 1000).toFixed(2));
  tell(rollout, report);
  for (const agent of fleet.agents) {
    const answer = await agent.app.ask({ prompt: command.text });
    assert.equal(answer.modelVersionId, before, `${agent.name} answers with ${answer.modelVersionId}`);
  }
  report.line(`every device answers with ${short(before)}`);
  return { reason: rollout.reason!, seconds };
}

function tell({ waves, state, reason }: Rollout, report: Report): void {
  for (const wave of waves) {
    report.line(
      `wave ${wave.wave}, ${wave.devices} ${wave.devices === 1 ? 'device' : 'devices'}: ${wave.state}${wave.reason ? `, ${wave.reason}` : ''}`,
    );
    for (const { gate, verdict, reason: why } of wave.gates) if (verdict !== 'unknown') report.line(`  gate ${gate} ${verdict}: ${why}`);
  }
  report.line(`${state}: ${reason}`);
}

const ended = (fleet: Fleet, { id }: Rollout): Promise<Rollout> =>
  waitFor(
    'the rollout to end',
    async () => {
      const seen = await fleet.api.rollout(id);
      assert.notEqual(seen.state, 'paused', `it is paused: ${seen.reason}`);
      return ENDED.includes(seen.state) ? seen : undefined;
    },
    { timeoutMs: 60_000 },
  );
