import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { sortGarbage, type CatalogueVersion, type GarbageRoots } from './garbage.js';

const DAY_MS = 24 * 3_600_000;
const NOW = new Date('2031-01-31T00:00:00Z');
const ago = (days: number): Date => new Date(NOW.getTime() - days * DAY_MS);
const version = (id: string, days: number, more: Partial<CatalogueVersion> = {}): CatalogueVersion => ({
  id,
  name: 'nano',
  createdAt: ago(days),
  publishedAt: ago(days),
  pinnedAt: null,
  ...more,
});
const roots = (some: Partial<GarbageRoots> = {}): GarbageRoots => ({
  fleetDefault: undefined,
  assigned: new Set(),
  previous: new Set(),
  inFlight: new Set(),
  ...some,
});
const sorted = (versions: CatalogueVersion[], some: Partial<GarbageRoots> = {}) => {
  const { kept, garbage } = sortGarbage(versions, roots(some), NOW, 7 * DAY_MS);
  return { kept: Object.fromEntries(kept.map((one) => [one.version.id, one.why])), garbage: garbage.map(({ id }) => id) };
};

describe('garbage of the catalogue', () => {
  it('is what nobody runs, ran, will run or pinned, and is neither young nor the newest of its name', () => {
    const versions = ['default', 'assigned', 'previous', 'flying', 'old', 'older'].map((id, i) => version(id, 30 + i));
    const all = [
      ...versions,
      version('pinned', 50, { pinnedAt: ago(1) }),
      version('young', 6),
      version('upload', 2, { publishedAt: null }),
      version('stuck', 9, { publishedAt: null }),
      version('newest', 1),
      version('other', 90, { name: 'gemma' }),
    ];
    expect(
      sorted(all, { fleetDefault: 'default', assigned: new Set(['assigned']), previous: new Set(['previous']), inFlight: new Set(['flying']) }),
    ).toEqual({
      kept: {
        default: 'what new devices get',
        assigned: 'assigned to devices',
        previous: 'the way back of devices',
        flying: 'being rolled out',
        pinned: 'pinned',
        young: 'published lately',
        upload: 'perhaps still being uploaded',
        newest: 'the newest of nano',
        other: 'the newest of gemma',
      },
      garbage: ['old', 'older', 'stuck'],
    });
  });

  it('never takes a root, whatever its age', () => {
    fc.assert(
      fc.property(
        fc.array(fc.nat(400), { minLength: 1, maxLength: 20 }),
        fc.nat(),
        fc.constantFrom('assigned', 'previous', 'inFlight'),
        (ages, pick, kind) => {
          const versions = ages.map((days, i) => version(`v${i}`, days));
          const root = versions[pick % versions.length]!.id;
          expect(sorted(versions, { [kind]: new Set([root]) }).garbage).not.toContain(root);
          expect(sorted(versions, { fleetDefault: root }).garbage).not.toContain(root);
        },
      ),
    );
  });
});
