import { describe, expect, it } from '@jest/globals';
import type { Device } from './api-types.js';
import { phaseOf } from './phase.js';

function device(change: Partial<Device>): Device {
  return {
    id: 'd',
    name: 'kiosk',
    labels: [],
    standing: 'accepted',
    standingReason: null,
    presence: 'online',
    lastSeenAt: null,
    capabilities: null,
    condition: null,
    desired: { generation: 4, modelVersionId: 'v2', modelName: 'nano', sliceId: 'large', reason: '' },
    observed: { generation: 4, modelVersionId: 'v2', sliceId: 'large' },
    phase: 'active',
    phaseError: null,
    fetchedBytes: 0,
    totalBytes: 0,
    latency: null,
    latencyCorrection: 1,
    ...change,
  };
}

describe('phase', () => {
  it('is calm when the device runs what it should', () => {
    expect(phaseOf(device({}))).toEqual({ tone: 'calm', text: 'Active, generation 4', percent: null });
  });

  it('counts the bytes on their way, and does not divide by none', () => {
    expect(phaseOf(device({ phase: 'fetching', fetchedBytes: 512, totalBytes: 2048 }))).toEqual({
      tone: 'busy',
      text: 'Fetching 512 B of 2.0 KiB',
      percent: 25,
    });
    expect(phaseOf(device({ phase: 'fetching' })).percent).toBeNull();
  });

  it('says what failed and what keeps running', () => {
    const failed = phaseOf(
      device({
        phase: 'failed',
        phaseError: 'golden prompt 0 gave 7 instead of 9',
        observed: { generation: 3, modelVersionId: 'v1', sliceId: 'small' },
      }),
    );
    expect(failed).toEqual({ tone: 'bad', text: 'golden prompt 0 gave 7 instead of 9; small keeps running', percent: null });
  });

  it('tells an old generation that is active from the desired one', () => {
    expect(phaseOf(device({ observed: { generation: 3, modelVersionId: 'v1', sliceId: 'small' } })).tone).toBe('busy');
  });

  it('has words for a device that has reported nothing', () => {
    expect(phaseOf(device({ phase: null, desired: null, observed: null })).text).toBe('No assignment');
  });
});
