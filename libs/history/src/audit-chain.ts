import { createHash } from 'node:crypto';
import { z } from 'zod';

/** One change, as the audit log keeps it: who did what to which thing. Each record carries the hash of the one before, so none can be altered, removed or put between without all later ones changing. */
export const AuditRecord = z.object({
  /** From 1, without gaps. */
  sequence: z.number().int().positive(),
  /** ISO 8601, on the control plane's clock. */
  at: z.string(),
  /** `key:<id>`, `device:<id>` or `control-plane`. */
  actor: z.string(),
  /** `<thing>.<what happened>`, for example `device.revoked`. */
  action: z.string(),
  /** `<thing>:<id>`. */
  subject: z.string(),
  /** What was true before and what is after; null where there was or is nothing. Never a secret. */
  before: z.json(),
  after: z.json(),
  /** `hash` of the record before; of the first one, GENESIS. */
  previous: z.string(),
  /** Lower-case hex SHA-256 over everything above. */
  hash: z.string(),
});
export type AuditRecord = z.infer<typeof AuditRecord>;

export const GENESIS = '0'.repeat(64);

/** The hash that a record must carry: SHA-256 over its other fields as JSON with sorted keys and no spaces. */
export const auditHash = ({ hash: _hash, ...content }: Omit<AuditRecord, 'hash'> & { hash?: string }): string =>
  createHash('sha256').update(canonical(content)).digest('hex');

/** The end of a chain: keep it where the control plane's administrators cannot write, and a shortened or rewritten log shows. */
export interface AuditHead {
  readonly sequence: number;
  readonly hash: string;
}

export type AuditVerdict =
  | { readonly ok: true; readonly records: number; readonly head: AuditHead }
  | { readonly ok: false; readonly sequence: number; readonly problem: string };

/**
 * Follows a chain from its first record, or from the record after `from`. With `heads` (noted earlier), also checks that the log still
 * contains each of them; one that lies before `from` is not looked at.
 */
export function verifyAudit(
  records: Iterable<AuditRecord>,
  { from, heads = [] }: { from?: AuditHead; heads?: readonly AuditHead[] } = {},
): AuditVerdict {
  let head: AuditHead = from ?? { sequence: 0, hash: GENESIS };
  let count = 0;
  const wanted = new Map(heads.map(({ sequence, hash }) => [sequence, hash]));
  for (const record of records) {
    const problem = problemOf(record, head) ?? noted(record, wanted.get(record.sequence));
    if (problem) return { ok: false, sequence: record.sequence, problem };
    head = { sequence: record.sequence, hash: record.hash };
    count += 1;
  }
  const lost = heads.find(({ sequence }) => sequence > head.sequence);
  if (lost) return { ok: false, sequence: lost.sequence, problem: `the log ends at record ${head.sequence}, but record ${lost.sequence} was noted` };
  return { ok: true, records: count, head };
}

function problemOf(record: AuditRecord, head: AuditHead): string | undefined {
  if (record.sequence !== head.sequence + 1)
    return `record ${record.sequence} follows record ${head.sequence}: records are missing, doubled or out of order`;
  if (record.previous !== head.hash)
    return `record ${record.sequence} continues ${short(record.previous)}, but the record before has ${short(head.hash)}`;
  const found = auditHash(record);
  return found === record.hash ? undefined : `record ${record.sequence} has ${short(record.hash)}, its content ${short(found)}: it was altered`;
}

const noted = (record: AuditRecord, hash: string | undefined): string | undefined =>
  hash === undefined || hash === record.hash
    ? undefined
    : `record ${record.sequence} has ${short(record.hash)}, but ${short(hash)} was noted: the log was rewritten`;

const short = (hash: string): string => `hash ${hash.slice(0, 12)}…`;

function canonical(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join(',')}]`;
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  const entries = Object.entries(value).filter(([, item]) => item !== undefined);
  return `{${entries
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, item]) => `${JSON.stringify(key)}:${canonical(item)}`)
    .join(',')}}`;
}
