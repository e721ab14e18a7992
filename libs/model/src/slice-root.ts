import { createHash } from 'node:crypto';

const LEAF = Buffer.from([0]);
const NODE = Buffer.from([1]);

/**
 * Merkle root (lower-case hex) over the chunks of a slice, in the manifest's order: the one value that two devices with the same bytes for the same
 * slice agree on. Leaf: SHA-256 of 0x00, the chunk's SHA-256 and its size as 8 bytes, big-endian. Node: SHA-256 of 0x01, left, right. A last one
 * without a partner moves up as it is.
 */
export function sliceRoot(chunks: readonly { readonly id: string; readonly bytes: number }[]): string {
  let level = chunks.map(({ id, bytes }) => {
    const size = Buffer.alloc(8);
    size.writeBigUInt64BE(BigInt(bytes));
    return createHash('sha256').update(LEAF).update(id, 'hex').update(size).digest();
  });
  if (level.length === 0) throw new Error('a slice without chunks has no root');
  while (level.length > 1)
    level = Array.from({ length: Math.ceil(level.length / 2) }, (_, i) => {
      const [left, right] = [level[2 * i]!, level[2 * i + 1]];
      return right ? createHash('sha256').update(NODE).update(left).update(right).digest() : left;
    });
  return level[0]!.toString('hex');
}
