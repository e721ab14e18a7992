import { describe, expect, it } from '@jest/globals';
import type { Device } from './api-types.js';
import { applyDevice, byName, countPresence, historyLimit, matches, replaceDevices, sampleEveryMs, type Fleet } from './fleet.js';

const empty: Fleet = new Map();

function device(id: string, change: Partial<Device> = {}): Device {
  return {
    id,
    name: id,
    labels: [],
    standing: 'accepted',
    standingReason: null,
    presence: 'online',
    lastSeenAt: null,
    capabilities: null,
    condition: null,
    desired: null,
    observed: null,
    phase: null,
    phaseError: null,
    fetchedBytes: 0,
    totalBytes: 0,
    latency: null,
    latencyCorrection: 1,
    ...change,
  };
}

const latency = (ttft: number) => ({ ttftMs: { p50: ttft, p95: ttft * 2 }, interTokenMs: { p50: 5, p95: 9 }, tokensPerSecond: 200, samples: 10 });

describe('fleet', () => {
  it('collects latency into a history that never grows past its limit', () => {
    let fleet = empty;
    for (let i = 0; i < historyLimit + 50; i++) fleet = applyDevice(fleet, device('kiosk', { latency: latency(i) }), i * sampleEveryMs);
    const history = fleet.get('kiosk')!.history;
    expect(history).toHaveLength(historyLimit);
    expect(history[0]!.ttftMs).toBe(50);
    expect(history.at(-1)!.ttftMs).toBe(historyLimit + 49);
  });

  it('takes the news of a device but no second sample within the sampling time', () => {
    let fleet = applyDevice(empty, device('kiosk', { latency: latency(10) }), 1_000);
    fleet = applyDevice(fleet, device('kiosk', { latency: latency(20), presence: 'suspect' }), 1_000 + sampleEveryMs - 1);
    expect(fleet.get('kiosk')!.device.presence).toBe('suspect');
    expect(fleet.get('kiosk')!.history.map((s) => s.ttftMs)).toEqual([10]);
    fleet = applyDevice(fleet, device('kiosk', { latency: latency(30) }), 1_000 + sampleEveryMs);
    expect(fleet.get('kiosk')!.history.map((s) => s.ttftMs)).toEqual([10, 30]);
  });

  it('forgets removed devices and keeps the history of the others when the fleet is read again', () => {
    let fleet = applyDevice(applyDevice(empty, device('a', { latency: latency(1) }), 0), device('b'), 0);
    fleet = replaceDevices(fleet, [device('a')], 10_000);
    expect([...fleet.keys()]).toEqual(['a']);
    expect(fleet.get('a')!.history).toHaveLength(1);
  });

  it('orders by name as people count, and counts presence', () => {
    const fleet = replaceDevices(empty, [device('box-10', { presence: 'offline' }), device('box-9'), device('box-1', { presence: 'suspect' })], 0);
    expect(byName(fleet).map((e) => e.device.name)).toEqual(['box-1', 'box-9', 'box-10']);
    expect(countPresence(fleet)).toEqual({ online: 1, suspect: 1, offline: 1 });
  });

  it('finds a device by every word given, in any order', () => {
    const kiosk = device('kiosk', { desired: { generation: 1, modelVersionId: 'ab12', modelName: 'nano', sliceId: 's-64', reason: '' } });
    expect(matches(kiosk, 'nano KIO')).toBe(true);
    expect(matches(kiosk, '')).toBe(true);
    expect(matches(kiosk, 'kiosk offline')).toBe(false);
  });
});
