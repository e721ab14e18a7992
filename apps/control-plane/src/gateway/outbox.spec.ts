import { describe, expect, it } from '@jest/globals';
import type { SessionResponse } from '@matfleet/protocol';
import { Outbox } from './outbox.js';

const desired = (generation: bigint): SessionResponse => ({
  message: {
    $case: 'desired',
    value: { generation, modelVersionId: 'v', modelName: 'm', sliceId: 's', contextTokens: 1, reason: '', updateId: '', changeOver: 1 },
  },
});
const reportAck = (sequence: bigint): SessionResponse => ({ message: { $case: 'reportAck', value: { sequence } } });
const cancel = (attemptId: string): SessionResponse => ({ message: { $case: 'cancelInference', value: { attemptId } } });

describe('Outbox', () => {
  it('keeps of a thousand documents and acknowledgements the newest of each, behind what waited before', () => {
    const outbox = new Outbox();
    outbox.add(cancel('a'));
    for (let i = 1n; i <= 1_000n; i += 1n) expect([outbox.add(desired(i)), outbox.add(reportAck(i))]).toEqual([true, true]);
    expect(outbox.take()).toEqual([cancel('a'), desired(1_000n), reportAck(1_000n)]);
    expect(outbox.length).toBe(0);
  });

  it('refuses an inference behind 64 others, and still takes the newest document', () => {
    const outbox = new Outbox();
    for (let i = 0; i < 64; i += 1) expect(outbox.add(cancel(`a${i}`))).toBe(true);
    expect(outbox.add(cancel('one more'))).toBe(false);
    expect(outbox.add(desired(7n))).toBe(true);
    expect(outbox.length).toBe(65);
    expect(outbox.next()).toEqual(cancel('a0'));
  });
});
