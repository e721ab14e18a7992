/** What a box says of how it is doing, as far as it is judged here; null where it does not tell. */
export interface Wellbeing {
  readonly memorySomePercent: number | null;
  readonly memoryFullPercent: number | null;
  readonly power: 'mains' | 'battery' | null;
  readonly batteryPercent: number | null;
  readonly temperatureCelsius: number | null;
  readonly throttlesAtCelsius: number | null;
}

export type Concern = 'memory-pressure' | 'heat' | 'low-battery' | 'on-battery';
/** In order: what a device is told to be troubled by. */
export type Concerns = readonly Concern[];

export interface ConcernChange {
  readonly concern: Concern;
  readonly began: boolean;
  /** In plain words, with the numbers. */
  readonly reason: string;
}

/** Each begins at the first bound and ends only at the second one, so that a value at the edge is no news every few seconds. */
const BOUNDS = {
  memoryFullPercent: { from: 10, until: 5 },
  memorySomePercent: { from: 40, until: 20 },
  /** Celsius below the point where the kernel throttles. */
  heatMargin: { from: 5, until: 10 },
  batteryPercent: { from: 20, until: 30 },
} as const;

/** Which concerns began and which ended. What a box does not tell any more leaves its concern as it was. */
export function concernChanges(before: Concerns, now: Wellbeing): { readonly concerns: Concerns; readonly changes: readonly ConcernChange[] } {
  const judged = (['memory-pressure', 'heat', 'low-battery', 'on-battery'] as const).map((concern) => {
    const had = before.includes(concern);
    return { concern, had, ...judge(concern, had, now) };
  });
  return {
    concerns: judged.filter(({ has }) => has).map(({ concern }) => concern),
    changes: judged.filter(({ had, has }) => had !== has).map(({ concern, has, reason }) => ({ concern, began: has, reason })),
  };
}

function judge(concern: Concern, had: boolean, now: Wellbeing): { has: boolean; reason: string } {
  const bound = had ? 'until' : 'from';
  switch (concern) {
    case 'memory-pressure': {
      const { memoryFullPercent: full, memorySomePercent: some } = now;
      if (full === null && some === null) return { has: had, reason: '' };
      return {
        has: (full ?? 0) >= BOUNDS.memoryFullPercent[bound] || (some ?? 0) >= BOUNDS.memorySomePercent[bound],
        reason: `processes waited for memory: some for ${some?.toFixed(0) ?? '?'} % of the last ten seconds, all for ${full?.toFixed(0) ?? '?'} %`,
      };
    }
    case 'heat': {
      const { temperatureCelsius: temperature, throttlesAtCelsius: limit } = now;
      if (temperature === null || limit === null) return { has: had, reason: '' };
      return {
        has: limit - temperature <= BOUNDS.heatMargin[bound],
        reason: `${temperature.toFixed(0)} °C, throttled from ${limit.toFixed(0)} °C on`,
      };
    }
    case 'low-battery': {
      const { batteryPercent: percent, power } = now;
      if (percent === null) return { has: had, reason: '' };
      return { has: power !== 'mains' && percent <= BOUNDS.batteryPercent[bound], reason: `the battery holds ${percent.toFixed(0)} %` };
    }
    case 'on-battery':
      if (now.power === null) return { has: had, reason: '' };
      return { has: now.power === 'battery', reason: now.power === 'battery' ? 'runs on its battery' : 'is on mains again' };
  }
}
