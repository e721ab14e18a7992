import { describe, expect, it } from '@jest/globals';
import { agreementOf, failureKindOf, StepFailed, verdict, type Activation } from './activation.js';
import { adopt, advance, beginActivation, commit, crashLooping, fail, recordCrash, recover, revert, type Journal, type Slot } from './journal.js';

const slot = (generation: number, sliceId = 'small'): Slot => ({ generation, modelVersionId: 'v1', modelName: 'nano', sliceId, contextTokens: 512 });
const trial = (more: Partial<Activation> = {}): Activation => ({ generation: 2, step: 'checking', ...more });

describe('golden answers', () => {
  it('count up to the first wrong token, and as a prompt only whole', () => {
    const found = agreementOf([
      { expected: [1, 2, 3], found: [1, 2, 3] },
      { expected: [4, 5, 6, 7], found: [4, 9, 6, 7] },
      { expected: [8, 9], found: [8, 9, 10] },
      { expected: [1, 1], found: [] },
    ]);
    expect(found).toEqual({ prompts: { total: 4, matched: 1 }, tokens: { total: 11, matched: 6 } });
  });

  it('reject a candidate for good when one token is wrong, whatever its speed', () => {
    const wrong = trial({ prompts: { total: 3, matched: 2 }, tokens: { total: 24, matched: 20 }, interTokenMs: 900 });
    const failed = verdict(wrong, 'wide', { mostInterTokenMs: 100, memoryLimitBytes: 0 });
    expect(failed).toMatchObject({ kind: 'golden', final: true });
    expect(failed!.message).toBe('slice wide answered 2 of 3 golden prompts and 20 of 24 of their tokens');
  });

  it('let a candidate serve that is within its bounds, and name the number that is not', () => {
    const right = trial({ prompts: { total: 1, matched: 1 }, tokens: { total: 8, matched: 8 }, interTokenMs: 120.04, residentBytes: 300e6 });
    expect(verdict(right, 'wide', { memoryLimitBytes: 400e6 })).toBeUndefined();
    expect(verdict(right, 'wide', { mostInterTokenMs: 121, memoryLimitBytes: 0 })).toBeUndefined();
    expect(verdict(right, 'wide', { mostInterTokenMs: 100, memoryLimitBytes: 0 })).toMatchObject({
      ...{ kind: 'latency', final: false, message: 'slice wide took 120.0 ms per token of its golden prompts, at most 100 ms are wanted' },
    });
    expect(verdict(right, 'wide', { memoryLimitBytes: 200e6 })).toMatchObject({
      ...{ kind: 'memory', final: true, message: 'slice wide holds 300 MB, its limit is 200 MB' },
    });
  });
});

describe('the kind of a failure', () => {
  it('is the one that a step named, or a full or read-only disk anywhere in the chain of causes', () => {
    expect(failureKindOf(new Error('outer', { cause: new StepFailed('golden', 'wrong', true) }))).toBe('golden');
    const full = Object.assign(new Error('no space left on device'), { code: 'ENOSPC' });
    expect(failureKindOf(new Error('cannot write journal.json', { cause: full }))).toBe('disk');
    expect(failureKindOf(new Error('no route to host'))).toBeUndefined();
  });
});

describe('a trial in the journal', () => {
  const before: Journal = { desired: slot(2, 'large'), active: slot(1) };

  it('keeps its step and what was measured until it has an end', () => {
    const checking = advance(advance(beginActivation(before, slot(2, 'large')), 'starting', { replacedFirst: true }), 'checking', {
      interTokenMs: 7,
    });
    expect(checking.activation).toEqual({ generation: 2, step: 'checking', replacedFirst: true, interTokenMs: 7 });
    expect(commit(checking)).toMatchObject({ active: slot(2, 'large'), previous: slot(1), activation: { step: 'committed', interTokenMs: 7 } });
    const failed = fail(checking, 2, { error: 'wrong', final: true, kind: 'golden' }, 0);
    expect(failed).toMatchObject({ active: slot(1), activation: { step: 'rejected', reason: 'wrong', failure: 'golden', interTokenMs: 7 } });
    expect(failed.provisional).toBeUndefined();
  });

  it('says after a crash of the agent how far it was', () => {
    const recovered = recover(advance(beginActivation(before, slot(2, 'large')), 'checking'), 0);
    expect(recovered.failure).toMatchObject({ error: 'the agent ended while it tried slice large (checking)', final: false, kind: 'interrupted' });
    expect(recovered.activation).toMatchObject({ step: 'rejected', failure: 'interrupted' });
  });

  it('goes with the slice when a newer document asks for the same one', () => {
    const committed = commit(beginActivation(before, slot(2, 'large')));
    expect(adopt(committed, slot(3, 'large')).activation).toEqual({ generation: 3, step: 'committed' });
    expect(adopt({ ...committed, activation: trial({ generation: 1, step: 'committed' }) }, slot(3, 'large')).activation).toBeUndefined();
  });
});

describe('a committed slice whose engine keeps ending', () => {
  const policy = { crashes: 3, windowMs: 10_000 };
  const crashAt = (...timesMs: number[]): Journal =>
    timesMs.reduce<Journal>((journal, atMs) => recordCrash(journal, atMs, policy), { active: slot(2, 'large'), previous: slot(1), desired: slot(2) });

  it('is in a loop after 3 ends within 10 s, however often the agent itself started between them', () => {
    expect(crashLooping(crashAt(0, 4_000), policy)).toBe(false);
    expect(crashLooping(JSON.parse(JSON.stringify(crashAt(0, 4_000, 9_999))) as Journal, policy)).toBe(true);
    expect(crashLooping(crashAt(0, 4_000, 10_000), policy)).toBe(false);
  });

  it('is not, where only a clock that was set back brings the ends together, and keeps no more ends than it counts', () => {
    expect(crashLooping(crashAt(900_000, 900_001, 5), policy)).toBe(false);
    expect(crashAt(1, 2, 3, 4, 5).crashesMs).toEqual([3, 4, 5]);
  });

  it('gives way to the previous one for good, with the reason, and the count begins anew', () => {
    const after = revert(crashAt(1, 2, 3), 'slice large ended 3 times', 4);
    expect(after).toMatchObject({ active: slot(1), failure: { generation: 2, final: true, kind: 'crash-loop' } });
    expect(after.activation).toEqual({ generation: 2, step: 'reverted', reason: 'slice large ended 3 times', failure: 'crash-loop' });
    expect([after.previous, after.crashesMs]).toEqual([undefined, undefined]);
  });
});
