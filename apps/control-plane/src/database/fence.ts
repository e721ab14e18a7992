import type { Prisma } from '../generated/prisma/client.js';
import type { Scoped } from './prisma.service.js';

/** What the holder of a leader lease writes with. */
export interface Fence {
  readonly lease: string;
  readonly token: bigint;
}

/** The lease was taken by another replica meanwhile: nothing was written. */
export class Fenced extends Error {
  constructor({ lease, token }: Fence) {
    super(`token ${token} of the leader lease ${lease} is not the newest any more`);
  }
}

/** Writes only while no newer holder exists. A new one has to wait for a write that has begun, so that none lands after its first. */
export function fenced<T>(
  prisma: Pick<Scoped, '$transaction'> & Prisma.TransactionClient,
  fence: Fence | undefined,
  write: (tx: Prisma.TransactionClient) => Promise<T>,
): Promise<T> {
  if (!fence) return write(prisma);
  return prisma.$transaction(async (tx) => {
    const held = await tx.$queryRaw<unknown[]>`SELECT 1 FROM leader_leases WHERE name = ${fence.lease} AND token = ${fence.token} FOR SHARE`;
    if (held.length === 0) throw new Fenced(fence);
    return write(tx);
  });
}
