import { describe, expect, it } from '@jest/globals';
import type { Device, ModelVersion } from './api-types.js';
import { meetsFloor, qualityOf, tasksOf } from './floor.js';

const q = (value: number) => ({ value, samples: 100, stderr: 0.01 });
const models: readonly ModelVersion[] = [
  {
    id: 'v1',
    name: 'nano',
    publishedAt: '2026-01-01',
    slices: [
      { id: 'small', name: 'small', bytes: 1, quality: q(0.7), tasks: { set_light: q(0.95) } },
      { id: 'large', name: 'large', bytes: 2, quality: q(0.95), tasks: null },
    ],
  },
];

function device(name: string, sliceId: string | null, presence: Device['presence'] = 'online'): Device {
  return {
    id: name,
    name,
    labels: [],
    standing: 'accepted',
    standingReason: null,
    presence,
    lastSeenAt: null,
    capabilities: null,
    condition: null,
    desired: null,
    observed: sliceId === null ? null : { generation: 1, modelVersionId: 'v1', sliceId },
    phase: null,
    phaseError: null,
    fetchedBytes: 0,
    totalBytes: 0,
    latency: null,
    latencyCorrection: 1,
  };
}

describe('quality floor', () => {
  it('names the online devices that meet it, by what they run now', () => {
    const devices = [device('kiosk', 'small'), device('server', 'large'), device('spare', 'large', 'offline'), device('new', null)];
    expect(meetsFloor(devices, models, 0.9)).toEqual(['server']);
    expect(meetsFloor(devices, models, 0.7)).toEqual(['kiosk', 'server']);
  });

  it('judges by the task when one is named, and knows nothing where none was measured', () => {
    expect(qualityOf(device('kiosk', 'small'), models, 'set_light')).toBe(0.95);
    expect(qualityOf(device('server', 'large'), models, 'set_light')).toBeUndefined();
    expect(tasksOf(models)).toEqual(['set_light']);
  });
});
