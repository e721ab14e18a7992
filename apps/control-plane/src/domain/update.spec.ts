import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { targetStep, updateState, type TargetSight, type TargetState } from './update.js';

const pushed: TargetSight = {
  state: 'pushed',
  generation: 4,
  desired: { generation: 4, modelVersionId: 'new' },
  observed: { generation: 3, modelVersionId: 'old' },
  phase: 'fetching',
  phaseError: null,
};
const step = (change: Partial<TargetSight>, nowMs = 0) => targetStep({ ...pushed, ...change }, 'new', nowMs, 1_000);

describe('targetStep', () => {
  it('pushes a pending target, and again until it is pushed', () => {
    expect(step({ state: 'pending', generation: null })).toEqual({ kind: 'push' });
  });

  it('waits while the device fetches', () => {
    expect(step({})).toEqual({ kind: 'wait' });
  });

  it('succeeds when the device runs the version at generation 4, or at a later one with another slice', () => {
    expect(step({ observed: { generation: 4, modelVersionId: 'new' } })).toEqual({ kind: 'succeed' });
    expect(step({ desired: { generation: 6, modelVersionId: 'new' }, observed: { generation: 6, modelVersionId: 'new' } })).toEqual({
      kind: 'succeed',
    });
  });

  it('fails with the error of the device, and keeps the reason', () => {
    expect(step({ phase: 'failed', phaseError: 'golden prompt 2 of 3 differs' })).toEqual({ kind: 'fail', error: 'golden prompt 2 of 3 differs' });
  });

  it('fails when a later generation took the device elsewhere', () => {
    expect(step({ desired: { generation: 5, modelVersionId: 'newer' } })).toEqual({
      kind: 'fail',
      error: 'generation 5 took the device to version newer instead',
    });
  });

  it('fails at the deadline, pending or pushed, but not when the device had made it', () => {
    expect(step({ state: 'pending', generation: null }, 1_000).kind).toBe('fail');
    expect(step({}, 1_000).kind).toBe('fail');
    expect(step({ observed: { generation: 4, modelVersionId: 'new' } }, 1_000).kind).toBe('succeed');
  });

  it('never moves a target that has ended', () => {
    const generation = fc.nat(9);
    const seen = fc.option(fc.record({ generation, modelVersionId: fc.constantFrom('old', 'new', 'newer') }));
    fc.assert(
      fc.property(
        fc.constantFrom<TargetState>('succeeded', 'failed'),
        fc.option(generation),
        seen,
        seen,
        fc.option(fc.constantFrom('active', 'failed')),
        fc.nat(2_000),
        (state, at, desired, observed, phase, nowMs) => {
          expect(targetStep({ state, generation: at, desired, observed, phase, phaseError: null }, 'new', nowMs, 1_000)).toEqual({ kind: 'wait' });
        },
      ),
    );
  });
});

describe('updateState', () => {
  it('runs until every target has ended, and fails by one failed target', () => {
    expect(updateState(['succeeded', 'pushed', 'failed'])).toBe('running');
    expect(updateState(['succeeded', 'failed'])).toBe('failed');
    expect(updateState(['succeeded', 'succeeded'])).toBe('succeeded');
  });
});
