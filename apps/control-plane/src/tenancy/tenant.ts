import { z } from 'zod';
import type { Quotas } from './quota.js';

export const TenantId = z
  .string()
  .regex(/^[a-z0-9]([a-z0-9-]{0,46}[a-z0-9])?$/, 'a tenant has 1 to 48 of a-z, 0-9 and "-", and begins and ends with a letter or digit');

export const CreateTenant = z.object({ id: TenantId, name: z.string().min(1).max(100).optional() });

/** An organisation on this installation. */
export interface TenantView extends Quotas {
  readonly id: string;
  readonly name: string;
  readonly createdAt: Date;
}
