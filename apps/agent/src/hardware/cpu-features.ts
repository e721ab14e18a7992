/** What matters to matrix kernels, as /proc/cpuinfo names it. */
const X86 = [
  'sse4_2',
  'avx',
  'avx2',
  'fma',
  'f16c',
  'avx_vnni',
  'avx512f',
  'avx512bw',
  'avx512vl',
  'avx512_vnni',
  'avx512_bf16',
  'amx_int8',
  'amx_bf16',
  'amx_tile',
];
/** Arm's names, and what we call them. */
const ARM: Record<string, string> = {
  asimd: 'neon',
  neon: 'neon',
  asimddp: 'dotprod',
  i8mm: 'i8mm',
  bf16: 'bf16',
  sve: 'sve',
  sve2: 'sve2',
  fphp: 'fp16',
};

/** The features in the text of /proc/cpuinfo, without repetition. */
export function cpuFeatures(cpuinfo: string): string[] {
  const line = /^(?:flags|Features)\s*:\s*(.*)$/m.exec(cpuinfo)?.[1] ?? '';
  const flags = new Set(line.split(/\s+/));
  return [...new Set([...X86.filter((flag) => flags.has(flag)), ...Object.entries(ARM).flatMap(([flag, name]) => (flags.has(flag) ? [name] : []))])];
}
