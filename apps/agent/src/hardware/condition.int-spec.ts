import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { PowerSource } from '@matfleet/protocol';
import { isNews, readCondition } from './condition.js';

describe('the condition of a box', () => {
  let root: string;
  beforeEach(async () => {
    root = await mkdtemp(join(tmpdir(), 'condition-'));
  });
  afterEach(() => rm(root, { recursive: true }));

  /** Files as the kernel shows them. */
  const box = async (files: Record<string, string>) => {
    for (const [path, text] of Object.entries(files)) {
      await mkdir(dirname(join(root, path)), { recursive: true });
      await writeFile(join(root, path), `${text}\n`);
    }
    return readCondition({ sys: join(root, 'sys'), proc: join(root, 'proc'), group: join(root, 'group') });
  };
  const pressure = (some: number, full: number) =>
    `some avg10=${some.toFixed(2)} avg60=0.42 avg300=0.34 total=1760436\nfull avg10=${full.toFixed(2)} avg60=0.08 avg300=0.06 total=523584`;
  const battery = (status: string, capacity: string, name = 'BAT0') => ({
    [`sys/class/power_supply/${name}/type`]: 'Battery',
    [`sys/class/power_supply/${name}/status`]: status,
    [`sys/class/power_supply/${name}/capacity`]: capacity,
  });
  const mains = (online: string) => ({ 'sys/class/power_supply/AC/type': 'Mains', 'sys/class/power_supply/AC/online': online });

  it('is unknown where nothing tells it', async () => {
    expect(await box({})).toEqual({
      memorySomePercent: undefined,
      memoryFullPercent: undefined,
      power: PowerSource.POWER_SOURCE_UNSPECIFIED,
      batteryPercent: undefined,
      temperatureCelsius: undefined,
      throttlesAtCelsius: undefined,
    });
  });

  it('holds the memory pressure of the agent’s own group before the machine’s', async () => {
    expect(await box({ 'proc/pressure/memory': pressure(12.5, 3) })).toMatchObject({ memorySomePercent: 12.5, memoryFullPercent: 3 });
    expect(await box({ 'group/memory.pressure': pressure(40, 0) })).toMatchObject({ memorySomePercent: 40, memoryFullPercent: 0 });
  });

  it.each([
    ['on mains', mains('1'), PowerSource.POWER_SOURCE_MAINS, undefined],
    ['on battery', { ...mains('0'), ...battery('Discharging', '43') }, PowerSource.POWER_SOURCE_BATTERY, 43],
    ['charging', { ...mains('1'), ...battery('Charging', '80') }, PowerSource.POWER_SOURCE_MAINS, 80],
    ['draining beside a weak charger', { ...mains('1'), ...battery('Discharging', '9') }, PowerSource.POWER_SOURCE_BATTERY, 9],
    ['with two batteries', { ...battery('Full', '100'), ...battery('Discharging', '12', 'BAT1') }, PowerSource.POWER_SOURCE_BATTERY, 12],
    [
      'with a mouse',
      { ...mains('1'), ...battery('Discharging', '5', 'mouse'), 'sys/class/power_supply/mouse/scope': 'Device' },
      PowerSource.POWER_SOURCE_MAINS,
      undefined,
    ],
  ])('knows a box %s', async (_what, files, power, batteryPercent) => {
    expect(await box(files)).toMatchObject({ power, ...(batteryPercent !== undefined && { batteryPercent }) });
    if (batteryPercent === undefined) expect((await box(files)).batteryPercent).toBeUndefined();
  });

  it('takes the hottest zone with its own point of slowing down, and no broken sensor', async () => {
    const zone = (index: number, files: Record<string, string>) =>
      Object.fromEntries(Object.entries(files).map(([name, text]) => [`sys/class/thermal/thermal_zone${index}/${name}`, text]));
    const condition = await box({
      ...zone(0, { temp: '41000', trip_point_0_type: 'passive', trip_point_0_temp: '70000' }),
      ...zone(1, {
        temp: '68500',
        trip_point_0_type: 'critical',
        trip_point_0_temp: '105000',
        trip_point_1_type: 'passive',
        trip_point_1_temp: '95000',
      }),
      ...zone(2, { temp: '-273000' }),
      ...zone(3, { temp: 'none' }),
    });
    expect(condition).toMatchObject({ temperatureCelsius: 68.5, throttlesAtCelsius: 95 });
  });

  it('is news when it moved by more than noise, or when something appeared or went away', async () => {
    const calm = {
      power: PowerSource.POWER_SOURCE_MAINS,
      memorySomePercent: 1,
      memoryFullPercent: 0,
      batteryPercent: 80,
      temperatureCelsius: 50,
      throttlesAtCelsius: 90,
      roundTripMs: 40,
    };
    expect(isNews(calm, undefined)).toBe(true);
    expect(isNews({ ...calm, memorySomePercent: 2.5, temperatureCelsius: 52, roundTripMs: 55 }, calm)).toBe(false);
    for (const change of [
      { power: PowerSource.POWER_SOURCE_BATTERY },
      { memorySomePercent: 3 },
      { memoryFullPercent: 1 },
      { batteryPercent: 79 },
      { temperatureCelsius: 53 },
      { roundTripMs: 61 },
      { roundTripMs: undefined },
    ])
      expect([change, isNews({ ...calm, ...change }, calm)]).toEqual([change, true]);
  });
});
