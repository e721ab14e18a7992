import type { Condition } from './api-types.js';
import { significant } from './format.js';

export interface ConditionFact {
  readonly text: string;
  readonly tone: 'calm' | 'warn';
}

/** Share of time without progress for want of memory, and degrees below slowing down, from which somebody should look. */
const MEMORY_WARN_PERCENT = 10;
const HEAT_WARN_CELSIUS = 5;
const BATTERY_WARN_PERCENT = 20;

/** What is worth a word about how a box is doing: what troubles it first. */
export function conditionFacts(condition: Condition | null): ConditionFact[] {
  if (!condition) return [];
  const { memoryFullPercent, power, batteryPercent, temperatureCelsius, throttlesAtCelsius, roundTripMs } = condition;
  const facts: ConditionFact[] = [];
  if (memoryFullPercent !== null && memoryFullPercent >= 1)
    facts.push({
      text: `waits for memory ${significant(memoryFullPercent)} % of the time`,
      tone: memoryFullPercent >= MEMORY_WARN_PERCENT ? 'warn' : 'calm',
    });
  if (power === 'battery')
    facts.push({
      text: batteryPercent === null ? 'on battery' : `on battery, ${Math.round(batteryPercent)} %`,
      tone: batteryPercent !== null && batteryPercent <= BATTERY_WARN_PERCENT ? 'warn' : 'calm',
    });
  if (temperatureCelsius !== null)
    facts.push({
      text: `${Math.round(temperatureCelsius)} °C${throttlesAtCelsius === null ? '' : ` of ${Math.round(throttlesAtCelsius)}`}`,
      tone: throttlesAtCelsius !== null && temperatureCelsius > throttlesAtCelsius - HEAT_WARN_CELSIUS ? 'warn' : 'calm',
    });
  if (roundTripMs !== null) facts.push({ text: `${significant(roundTripMs)} ms away`, tone: 'calm' });
  return facts.sort((a, b) => Number(b.tone === 'warn') - Number(a.tone === 'warn'));
}
