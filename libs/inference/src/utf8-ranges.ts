/** Inclusive range of one byte. */
export type ByteRange = readonly [low: number, high: number];

/** The code points from `low` to `high` as sequences of byte ranges; surrogates, which are no characters, are left out. */
export function utf8Ranges(low: number, high: number): ByteRange[][] {
  if (low > high) return [];
  if (low < 0xe000 && high > 0xd7ff) return [...utf8Ranges(low, Math.min(high, 0xd7ff)), ...utf8Ranges(Math.max(low, 0xe000), high)];
  for (const last of [0x7f, 0x7ff, 0xffff]) if (low <= last && high > last) return [...utf8Ranges(low, last), ...utf8Ranges(last + 1, high)];
  if (high < 0x80) return [[[low, high]]];
  // Where the leading bits differ, the bytes after them must run over their whole range.
  for (let bits = 6; bits <= 18; bits += 6) {
    const rest = (1 << bits) - 1;
    if ((low & ~rest) === (high & ~rest)) continue;
    if ((low & rest) !== 0) return [...utf8Ranges(low, low | rest), ...utf8Ranges((low | rest) + 1, high)];
    if ((high & rest) !== rest) return [...utf8Ranges(low, (high & ~rest) - 1), ...utf8Ranges(high & ~rest, high)];
  }
  const [from, to] = [utf8.encode(String.fromCodePoint(low)), utf8.encode(String.fromCodePoint(high))];
  return [Array.from(from, (byte, index) => [byte, to[index]!] as const)];
}

const utf8 = new TextEncoder();
