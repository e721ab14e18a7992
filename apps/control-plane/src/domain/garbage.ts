export interface CatalogueVersion {
  readonly id: string;
  readonly name: string;
  readonly createdAt: Date;
  readonly publishedAt: Date | null;
  readonly pinnedAt: Date | null;
}

/** Versions that something in the fleet may need, by why. Ids. */
export interface GarbageRoots {
  /** What a device without a version of its own gets. */
  readonly fleetDefault: string | undefined;
  /** Devices are to run them, or said that they do. */
  readonly assigned: ReadonlySet<string>;
  /** What devices ran before: their way back. */
  readonly previous: ReadonlySet<string>;
  /** Being rolled out. */
  readonly inFlight: ReadonlySet<string>;
}

/** Pure: why each version stays; those that nothing keeps may go. The newest published one of a name always stays, and everything younger than `minimumAgeMs`. */
export function sortGarbage<V extends CatalogueVersion>(
  versions: readonly V[],
  roots: GarbageRoots,
  now: Date,
  minimumAgeMs: number,
): { readonly kept: readonly { readonly version: V; readonly why: string }[]; readonly garbage: readonly V[] } {
  const newest = new Map<string, V>();
  for (const version of versions) {
    const other = newest.get(version.name);
    if (version.publishedAt && (!other || version.publishedAt > other.publishedAt!)) newest.set(version.name, version);
  }
  const why = (version: V): string | undefined => {
    const { id, name, createdAt, publishedAt, pinnedAt } = version;
    if (pinnedAt) return 'pinned';
    if (roots.fleetDefault === id) return 'what new devices get';
    if (roots.assigned.has(id)) return 'assigned to devices';
    if (roots.inFlight.has(id)) return 'being rolled out';
    if (roots.previous.has(id)) return 'the way back of devices';
    if (newest.get(name) === version) return `the newest of ${name}`;
    const ageMs = now.getTime() - (publishedAt ?? createdAt).getTime();
    if (ageMs < minimumAgeMs) return publishedAt ? 'published lately' : 'perhaps still being uploaded';
    return undefined;
  };
  const kept: { version: V; why: string }[] = [];
  const garbage: V[] = [];
  for (const version of versions) {
    const reason = why(version);
    if (reason === undefined) garbage.push(version);
    else kept.push({ version, why: reason });
  }
  return { kept, garbage };
}
