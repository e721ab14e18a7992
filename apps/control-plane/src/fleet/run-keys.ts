import type { Observed } from './device.js';

const KEYS_MAX = 10_000;

/** One string for all devices that run the same slice of the same version: a fleet of thousands holds a handful of them. */
export class RunKeys {
  private readonly keys = new Map<string, string>();

  of(observed: Observed | null): string | undefined {
    if (!observed) return undefined;
    const key = `${observed.modelVersionId}/${observed.sliceId}`;
    const known = this.keys.get(key);
    if (known !== undefined) return known;
    if (this.keys.size >= KEYS_MAX) this.keys.clear();
    this.keys.set(key, key);
    return key;
  }
}
