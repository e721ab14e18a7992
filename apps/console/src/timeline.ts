import type { TimelineEntry } from './api-types.js';

/** Newest first, each once. */
export const merged = (known: readonly TimelineEntry[], more: readonly TimelineEntry[]): readonly TimelineEntry[] =>
  [...new Map([...known, ...more].map((entry) => [entry.id, entry])).values()].sort((a, b) => b.id - a.id);
