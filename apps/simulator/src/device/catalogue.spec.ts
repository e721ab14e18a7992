import { describe, expect, it } from '@jest/globals';
import { seededRandom } from '@matfleet/model';
import { capabilitiesOf, DEVICE_CLASSES, drawClass } from './catalogue.js';

describe('the catalogue of boxes', () => {
  it('is drawn from by share, the same for the same seed', () => {
    const draw = (seed: number): string[] => {
      const random = seededRandom(seed);
      return Array.from({ length: 5_000 }, () => drawClass(random()).name);
    };
    expect(draw(7)).toEqual(draw(7));
    const total = DEVICE_CLASSES.reduce((sum, { share }) => sum + share, 0);
    for (const { name, share } of DEVICE_CLASSES) {
      const seen = draw(7).filter((drawn) => drawn === name).length / 5_000;
      expect(Math.abs(seen - share / total)).toBeLessThan(0.03);
    }
  });

  it('grants less to a model than the box has', () => {
    for (const box of DEVICE_CLASSES) {
      const { modelMemoryBytes, availableMemoryBytes, totalMemoryBytes } = capabilitiesOf(box);
      expect(modelMemoryBytes).toBeLessThanOrEqual(availableMemoryBytes);
      expect(availableMemoryBytes).toBeLessThan(totalMemoryBytes);
    }
    expect(capabilitiesOf(DEVICE_CLASSES[0]!, 2_000_000).modelMemoryBytes).toBe(2_000_000n);
  });
});
