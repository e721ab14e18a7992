import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { checkHistory, type HistoryEvent } from '@matfleet/history';
import { StartInference } from '@matfleet/protocol';
import { FakeControlPlane } from '@matfleet/protocol/testing';
import { NO_FAULTS, parseScript, type FaultScript } from './network/script.js';
import { Simulation } from './simulation.js';

describe('a simulated fleet', () => {
  let plane: FakeControlPlane;
  let simulation: Simulation | undefined;
  let history: HistoryEvent[];

  beforeEach(async () => {
    plane = await FakeControlPlane.start({ heartbeatMs: 100, leaseMs: 1_000 });
    history = [];
  });

  afterEach(async () => {
    await simulation?.stop();
    plane.stop();
  });

  function simulate(devices: number, script: FaultScript = NO_FAULTS): Simulation {
    return (simulation = new Simulation({
      ...{ server: `https://localhost:${plane.port}`, joinToken: plane.joinToken, devices, seed: 3, ramp: 100, script, modelMemoryBytes: [] },
      record: (event) => history.push(event),
    }));
  }

  const of = <Kind extends HistoryEvent['kind']>(kind: Kind) =>
    history.filter((event): event is Extract<HistoryEvent, { kind: Kind }> => event.kind === kind);
  const ids = (): string[] => [...new Set(of('session-opened').map(({ device }) => device))];

  it('enrols every device by itself, connects them, and brings each to its document', async () => {
    const { statistics } = await started(3);
    expect(ids()).toHaveLength(3);
    for (const id of ids()) plane.setDesired(id, { generation: 1n, modelVersionId: 'v1', modelName: 'nano', sliceId: 'small', contextTokens: 512 });
    await plane.until('all to converge', () => statistics.converged === 3);
    expect(of('slot-applied').map(({ device, generation, sliceId }) => [device, generation, sliceId])).toEqual(
      expect.arrayContaining(ids().map((id) => [id, 1, 'small'])),
    );
    await plane.until('the last report', () => of('report-acknowledged').length >= 9);
    expect(simulation!.counts()).toMatchObject({ enrolled: 3, connected: 3, converged: 3, sessions: 3, errors: 0 });
  });

  it('carries out one attempt once, however often it is sent', async () => {
    await started(1);
    const [id] = ids() as [string];
    plane.setDesired(id, { generation: 1n, modelVersionId: 'v1', modelName: 'nano', sliceId: 'small', contextTokens: 512 });
    await plane.until('the slice', () => of('slot-applied').length === 1);
    const start = StartInference.fromPartial({ attemptId: 'a1', remainingMs: 5_000, request: {}, modelVersionId: 'v1', sliceId: 'small' });
    plane.startInference(id, start);
    plane.startInference(id, start);
    await plane.until('the answer', () => plane.messages(id, 'inferenceEvent').length >= 3);
    plane.startInference(
      id,
      StartInference.fromPartial({ attemptId: 'a2', remainingMs: 5_000, request: {}, modelVersionId: 'v2', sliceId: 'small' }),
    );
    const events = await plane.until('the refusal', () => plane.messages(id, 'inferenceEvent').length >= 4 && plane.messages(id, 'inferenceEvent'));
    expect(events.at(-1)?.event).toMatchObject({ $case: 'failure' });
    expect(of('command-ran').map(({ command }) => command)).toEqual(['a1']);
  });

  it.each([
    { what: 'a cut', faults: '{ kind: drop, at: 0, for: 0.3 }' },
    { what: 'a half-open network', faults: '{ kind: half-open, at: 0 }' },
    { what: 'a restart of the agent', faults: '{ kind: restart, at: 0 }' },
  ])('comes back after $what, and goes on where it was', async ({ faults }) => {
    const running = await started(2, parseScript(`faults: [${faults}]`, 'script'));
    for (const id of ids()) plane.setDesired(id, { generation: 1n, modelVersionId: 'v1', modelName: 'nano', sliceId: 'small', contextTokens: 512 });
    await running.playScript();
    await plane.until('two more sessions', () => ids().every((id) => of('session-opened').filter(({ device }) => device === id).length === 2));
    await plane.until('both to be here', () => running.statistics.connected === 2 && running.statistics.converged === 2);
    await running.stop();
    expect(of('slot-applied')).toHaveLength(2);
    expect(of('device-ended').map(({ runs }) => runs?.generation)).toEqual([1, 1]);
    expect(checkHistory(history)).toMatchObject({ ok: true, devices: 2 });
  });

  it.each([-600_000, 600_000])('beats, moves on and comes back the same with clocks that jump by %i ms', async (ms) => {
    const faults = `{ kind: skew, at: 0, for: 1.5, ms: ${ms} }, { kind: drop, at: 0.5, for: 0.2 }`;
    const running = await started(3, parseScript(`faults: [${faults}]`, 'script'));
    const move = (generation: bigint): void => {
      for (const id of ids())
        plane.setDesired(id, { generation, modelVersionId: 'v1', modelName: 'nano', sliceId: `s${generation}`, contextTokens: 512 });
    };
    const playing = running.playScript();
    move(1n);
    await plane.until('the session after the cut', () =>
      ids().every((id) => of('session-opened').filter(({ device }) => device === id).length === 2),
    );
    move(2n);
    await playing;
    await plane.until('the second slice', () => running.statistics.converged === 3 && of('slot-applied').length === 6);
    const beats = running.statistics.beats;
    await plane.until('beats after the clocks came right', () => running.statistics.beats >= beats + 6);
    await running.stop();
    // The cut ended one session each, and nothing else any.
    expect(of('session-opened')).toHaveLength(6);
    expect(checkHistory(history)).toMatchObject({ ok: true, devices: 3 });
  });

  it('is seen by the checker when the control plane gives an epoch twice', async () => {
    await started(1);
    const [id] = ids() as [string];
    const { epoch } = of('session-opened')[0]!;
    plane.send(id, {
      message: {
        $case: 'welcome',
        value: { epoch: BigInt(epoch), deviceId: id, heartbeatMs: 100, leaseMs: 1_000, reconnectJitterMs: 0, serverTimeUnixMs: 0n },
      },
    });
    await plane.until('the second Welcome', () => of('session-opened').length === 2);
    expect(checkHistory(history).epochViolations).toBe(1);
  });

  async function started(devices: number, script?: FaultScript): Promise<Simulation> {
    const running = simulate(devices, script);
    await running.start();
    await plane.until('all to connect', () => running.statistics.connected === devices);
    return running;
  }
});
