import type { Device } from './api-types.js';
import { bytes } from './format.js';

export interface PhaseView {
  readonly tone: 'calm' | 'busy' | 'bad';
  readonly text: string;
  /** 0..100 while bytes are on their way, else null. */
  readonly percent: number | null;
}

/** What a device is doing about its desired document, in plain words. */
export function phaseOf({ phase, phaseError, fetchedBytes, totalBytes, desired, observed }: Device): PhaseView {
  const goal = desired ? `generation ${desired.generation}` : 'no assignment';
  switch (phase?.toLowerCase()) {
    case 'fetching':
      return {
        tone: 'busy',
        text: totalBytes > 0 ? `Fetching ${bytes(fetchedBytes)} of ${bytes(totalBytes)}` : 'Fetching',
        percent: totalBytes > 0 ? Math.min(100, (fetchedBytes / totalBytes) * 100) : null,
      };
    case 'fetched':
      return { tone: 'calm', text: `${goal} is fetched and waits for its time`, percent: null };
    case 'verifying':
      return { tone: 'busy', text: `Verifying chunks of ${goal}`, percent: null };
    case 'activating':
      return { tone: 'busy', text: `Activating ${goal}`, percent: null };
    case 'failed': {
      const kept = observed?.sliceId ? `; ${observed.sliceId} keeps running` : '';
      return { tone: 'bad', text: `${phaseError ?? `Could not activate ${goal}`}${kept}`, percent: null };
    }
    case 'active':
      return desired && observed && observed.generation < desired.generation
        ? { tone: 'busy', text: `Active on generation ${observed.generation}, generation ${desired.generation} is on its way`, percent: null }
        : { tone: 'calm', text: `Active, ${goal}`, percent: null };
    default:
      return { tone: 'calm', text: desired ? `Not reported yet, ${goal}` : 'No assignment', percent: null };
  }
}
