import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Fleet, Inference, Rollout, RolloutTarget } from '@matfleet/harness';
import type { HistoryFile, HistorySlot } from '@matfleet/history';

/** What the operator was told in the end, and what real agents have in their journals. */
export async function recordOperator(
  fleet: Fleet,
  operator: HistoryFile,
  rollout: Rollout & { targets: readonly RolloutTarget[] },
  inferences: readonly Inference[],
): Promise<void> {
  for (const { deviceId, state } of rollout.targets)
    if (state !== 'waiting' && state !== 'pushed')
      operator.add({
        kind: 'command-ended',
        command: `${rollout.id}/${deviceId}`,
        outcome: state === 'succeeded' ? state : 'failed',
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
