import { describe, expect, it } from '@jest/globals';
import { cpuFeatures } from './cpu-features.js';

describe('cpu features', () => {
  it('keeps what matters to matrix kernels on x86', () => {
    expect(cpuFeatures('processor\t: 0\nflags\t\t: fpu vme avx avx2 avx512f avx512_vnni hypervisor\nbugs: spectre_v1\n')).toEqual([
      'avx',
      'avx2',
      'avx512f',
      'avx512_vnni',
    ]);
  });

  it('names the Arm features, each once', () => {
    expect(cpuFeatures('processor : 0\nFeatures : fp asimd neon asimddp i8mm\n')).toEqual(['neon', 'dotprod', 'i8mm']);
  });

  it('finds none in an empty text', () => {
    expect(cpuFeatures('')).toEqual([]);
  });
});
