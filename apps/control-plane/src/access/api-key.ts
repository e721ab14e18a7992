import { FILTER_LENGTH_MAX } from '@matfleet/filter';
import { z } from 'zod';
import { type Role, ROLES } from './permissions.js';

export const KEY_TTL_SECONDS_MAX = 10 * 365 * 86_400;

export const CreateApiKey = z.object({
  name: z.string().min(1).max(100),
  role: z.enum(ROLES),
  /** Which devices alone it means; without: all. */
  devices: z.string().min(1).max(FILTER_LENGTH_MAX).optional(),
  ttlSeconds: z.number().int().min(1).max(KEY_TTL_SECONDS_MAX).optional(),
  /** May make tenants and act in each; only the installation's keys make such ones. */
  installation: z.boolean().optional(),
});
export type CreateApiKey = z.infer<typeof CreateApiKey>;

/** A key without its secret. */
export interface ApiKeyView {
  readonly id: string;
  readonly name: string;
  readonly role: Role;
  /** Which devices alone it means, in CEL; null: all. */
  readonly devices: string | null;
  readonly installation: boolean;
  readonly createdAt: Date;
  readonly expiresAt: Date | null;
  readonly revokedAt: Date | null;
  /** To the minute; null before the first use. */
  readonly lastUsedAt: Date | null;
}

export interface IssuedApiKey extends ApiKeyView {
  /** Shown once: only its hash is kept. */
  readonly secret: string;
}
