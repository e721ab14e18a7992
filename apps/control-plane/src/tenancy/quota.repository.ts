import { currentTenant } from '../database/scope.js';
import { DomainError } from '../errors.js';
import type { Prisma } from '../generated/prisma/client.js';
import type { Quotas } from './quota.js';

/** The tenant's limit, in a transaction that is about to add to what it limits. With a limit the tenant's row is locked: two cannot count past each other. */
export async function quotaHere(tx: Prisma.TransactionClient, name: Exclude<keyof Quotas, 'apiCallsPerMinuteMax'>): Promise<number | null> {
  const id = currentTenant();
  const tenant = await tx.tenant.findUnique({ where: { id }, select: { [name]: true } });
  if ((tenant as Record<string, unknown> | null)?.[name] == null) return null;
  await tx.$queryRaw`SELECT id FROM tenants WHERE id = ${id} FOR UPDATE`;
  const locked = await tx.tenant.findUnique({ where: { id }, select: { [name]: true } });
  const value = (locked as Record<string, number | bigint | null> | null)?.[name];
  return value == null ? null : Number(value);
}

/** `would`: what there would be. */
export const overQuota = (what: string, would: number, most: number): DomainError =>
  new DomainError('resource-exhausted', `tenant ${currentTenant()} may have ${most} ${what} at most, and would have ${would}`);
