import { z } from 'zod';

const most = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER).nullable().optional();
const small = z.number().int().min(0).max(2_147_483_647).nullable().optional();

/** What is to change; null takes a limit away. */
export const QuotaPatch = z.object({
  devicesMax: small,
  modelBytesMax: most,
  queuedInferencesMax: small,
  apiCallsPerMinuteMax: small,
});
export type QuotaPatch = z.infer<typeof QuotaPatch>;

/** What a tenant may have at most; null: as much as it wants. */
export interface Quotas {
  readonly devicesMax: number | null;
  /** Of all chunks that its manifests name. */
  readonly modelBytesMax: number | null;
  /** That wait or run. */
  readonly queuedInferencesMax: number | null;
  /** At one replica. */
  readonly apiCallsPerMinuteMax: number | null;
}
