import { describe, expect, it } from '@jest/globals';
import type { Rollout } from './api-types.js';
import { commandsFor, currentRollout, shares } from './progress.js';

const rollout = (id: string, state: Rollout['state'], createdAt: string, waves: Rollout['waves'] = []): Rollout => ({
  ...{ id, name: null, state, createdAt, modelVersionId: 'ab12', finishedAt: null, reason: null, devices: 0, counts: [], holds: [], waves },
});

describe('rollout progress', () => {
  it('divides the bar by where devices stand and leaves out what has none', () => {
    const parts = shares([
      { state: 'pushed', devices: 1 },
      { state: 'succeeded', devices: 2 },
      { state: 'failed', devices: 1 },
    ]);
    expect(parts).toEqual([
      { stage: 'done', count: 2, percent: 50 },
      { stage: 'under way', count: 1, percent: 25 },
      { stage: 'failed', count: 1, percent: 25 },
    ]);
  });

  it('shows the newest rollout that has not ended, before newer ones that have', () => {
    const paused = rollout('paused', 'paused', '2026-01-01');
    const finished = rollout('finished', 'succeeded', '2026-01-02');
    expect(currentRollout([finished, paused])?.id).toBe('paused');
    expect(currentRollout([rollout('older', 'rolled-back', '2025-01-01'), finished])?.id).toBe('finished');
    expect(currentRollout([])).toBeUndefined();
  });

  it('offers what can be done now: nothing with one that goes back, an approval where a wave waits for it', () => {
    const wave = { wave: 1, name: null, state: 'awaiting-approval' as const, reason: null, devices: 1, counts: [], gates: [] };
    expect(commandsFor(rollout('a', 'rolling-back', ''))).toEqual([]);
    expect(commandsFor(rollout('a', 'paused', ''))).toEqual(['resume', 'abort']);
    expect(commandsFor(rollout('a', 'running', '', [wave]))).toEqual(['approve', 'pause', 'abort']);
  });
});
