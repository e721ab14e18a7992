/** What a Range header asks of a file: the whole, the bytes [from, to), or nothing that exists. */
export type ByteRange = { kind: 'whole' } | { kind: 'part'; from: number; to: number } | { kind: 'unsatisfiable' };

/** RFC 9110, 14.2: one range of bytes. A header that is not understood, or asks for several ranges, is ignored, as the RFC allows. */
export function parseRange(header: string | undefined, bytes: number): ByteRange {
  const match = /^bytes=(\d*)-(\d*)$/.exec(header?.replaceAll(' ', '') ?? '');
  if (!match || (match[1] === '' && match[2] === '')) return { kind: 'whole' };
  const [, first = '', last = ''] = match;
  if (first === '')
    return Number(last) === 0 || bytes === 0 ? { kind: 'unsatisfiable' } : { kind: 'part', from: Math.max(0, bytes - Number(last)), to: bytes };
  const from = Number(first);
  if (last !== '' && Number(last) < from) return { kind: 'whole' };
  if (from >= bytes) return { kind: 'unsatisfiable' };
  return { kind: 'part', from, to: last === '' ? bytes : Math.min(bytes, Number(last) + 1) };
}
