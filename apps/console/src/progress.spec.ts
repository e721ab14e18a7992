import { describe, expect, it } from '@jest/globals';
import type { TargetState, Update } from './api-types.js';
import { currentUpdate, shares } from './progress.js';

function update(id: string, state: Update['state'], createdAt: string, targets: readonly TargetState[] = []): Update {
  return {
    id,
    state,
    createdAt,
    modelVersionId: 'ab12',
    finishedAt: null,
    targets: targets.map((target, i) => ({ deviceId: `d${i}`, deviceName: `d${i}`, state: target, generation: null, error: null })),
  };
}

describe('update progress', () => {
  it('divides the bar by target states and leaves out states without targets', () => {
    const parts = shares(update('u', 'running', '2026-01-01', ['pushed', 'succeeded', 'succeeded', 'failed']));
    expect(parts).toEqual([
      { state: 'succeeded', count: 2, percent: 50 },
      { state: 'pushed', count: 1, percent: 25 },
      { state: 'failed', count: 1, percent: 25 },
    ]);
  });

  it('shows the newest running update, before newer finished ones', () => {
    const running = update('running', 'running', '2026-01-01');
    const finished = update('finished', 'succeeded', '2026-01-02');
    expect(currentUpdate([finished, running])?.id).toBe('running');
    expect(currentUpdate([update('older', 'failed', '2025-01-01'), finished])?.id).toBe('finished');
    expect(currentUpdate([])).toBeUndefined();
  });
});
