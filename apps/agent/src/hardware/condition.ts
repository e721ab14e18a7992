import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Condition } from '@matfleet/protocol';
import { PowerSource } from '@matfleet/protocol';

/** Where Linux tells how a box is doing. Another root serves tests. */
export interface ConditionRoots {
  readonly sys: string;
  readonly proc: string;
  /** The agent's own memory group of cgroup v2, whose pressure says more than the machine's. */
  readonly group?: string | undefined;
}
const SYSTEM: ConditionRoots = { sys: '/sys', proc: '/proc' };

/** How the box is doing right now; a field stays unset where the box does not tell. Reads a dozen small files, no longer than a millisecond or two. */
export function readCondition(roots: ConditionRoots = SYSTEM): Condition {
  return { ...memoryPressure(roots), ...power(join(roots.sys, 'class/power_supply')), ...heat(join(roots.sys, 'class/thermal')) };
}

/** Share of the last ten seconds in which some process, and every process, waited for memory: percent. */
function memoryPressure({ proc, group }: ConditionRoots): Pick<Condition, 'memorySomePercent' | 'memoryFullPercent'> {
  const text = (group && read(join(group, 'memory.pressure'))) || read(join(proc, 'pressure/memory'));
  const averageOf = (line: string): number | undefined => {
    const value = new RegExp(`^${line} avg10=([\\d.]+)`, 'm').exec(text)?.[1];
    return value === undefined ? undefined : Number(value);
  };
  return { memorySomePercent: averageOf('some'), memoryFullPercent: averageOf('full') };
}

/** On mains where any supply of that kind is online; on battery where a battery discharges, or where there is one and no mains is online. */
function power(dir: string): Pick<Condition, 'power' | 'batteryPercent'> {
  const supplies = list(dir).map((name) => {
    const field = (file: string): string => read(join(dir, name, file)).trim();
    return { type: field('type'), online: field('online'), status: field('status'), capacity: field('capacity'), scope: field('scope') };
  });
  // A mouse has a battery too: its scope says Device.
  const batteries = supplies.filter(({ type, scope }) => type === 'Battery' && scope !== 'Device');
  const mains = supplies.filter(({ type }) => type === 'Mains' || type === 'USB' || type === 'Wireless');
  const charges = batteries.map(({ capacity }) => Number(capacity)).filter((value) => value > 0 && value <= 100);
  const batteryPercent = charges.length > 0 ? Math.min(...charges) : undefined;
  if (batteries.length === 0 && mains.length === 0) return { power: PowerSource.POWER_SOURCE_UNSPECIFIED, batteryPercent };
  const discharging = batteries.some(({ status }) => status === 'Discharging');
  const onMains = mains.some(({ online }) => online === '1') && !discharging;
  return { power: onMains || batteries.length === 0 ? PowerSource.POWER_SOURCE_MAINS : PowerSource.POWER_SOURCE_BATTERY, batteryPercent };
}

/** The hottest zone, degrees Celsius, and how far it is from where the kernel begins to slow the processor down. */
function heat(dir: string): Pick<Condition, 'temperatureCelsius' | 'throttlesAtCelsius'> {
  let temperatureCelsius: number | undefined;
  let throttlesAtCelsius: number | undefined;
  for (const name of list(dir).filter((one) => one.startsWith('thermal_zone'))) {
    const zone = join(dir, name);
    const celsius = milli(join(zone, 'temp'));
    // Broken sensors tell absolute zero or boiling lead.
    if (celsius === undefined || celsius < -40 || celsius > 150) continue;
    if (temperatureCelsius !== undefined && celsius <= temperatureCelsius) continue;
    temperatureCelsius = celsius;
    const trips = list(zone).flatMap((file) => {
      const index = /^trip_point_(\d+)_type$/.exec(file)?.[1];
      const at = index !== undefined && read(join(zone, file)).trim() === 'passive' ? milli(join(zone, `trip_point_${index}_temp`)) : undefined;
      return at === undefined || at <= 0 ? [] : [at];
    });
    throttlesAtCelsius = trips.length > 0 ? Math.min(...trips) : undefined;
  }
  return { temperatureCelsius, throttlesAtCelsius };
}

const milli = (path: string): number | undefined => {
  const text = read(path).trim();
  return /^-?\d+$/.test(text) ? Number(text) / 1_000 : undefined;
};

const list = (dir: string): string[] => {
  try {
    return readdirSync(dir).sort();
  } catch {
    return [];
  }
};

/** Empty where the file is not there, or the driver refuses. */
function read(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

/** What makes a condition news: less is noise. */
export function isNews(next: Condition, told: Condition | undefined): boolean {
  if (!told) return true;
  const moved = (a: number | undefined, b: number | undefined, by: number): boolean =>
    (a === undefined) !== (b === undefined) || Math.abs((a ?? 0) - (b ?? 0)) >= by;
  return (
    next.power !== told.power ||
    moved(next.memorySomePercent, told.memorySomePercent, 2) ||
    moved(next.memoryFullPercent, told.memoryFullPercent, 1) ||
    moved(next.batteryPercent, told.batteryPercent, 1) ||
    moved(next.temperatureCelsius, told.temperatureCelsius, 3) ||
    moved(next.throttlesAtCelsius, told.throttlesAtCelsius, 1) ||
    moved(next.roundTripMs, told.roundTripMs, Math.max(5, 0.5 * (told.roundTripMs ?? 0)))
  );
}
