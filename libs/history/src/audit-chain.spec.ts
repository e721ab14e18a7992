import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { auditHash, type AuditRecord, GENESIS, verifyAudit } from './audit-chain.js';

function chain(length: number): AuditRecord[] {
  const records: AuditRecord[] = [];
  for (let sequence = 1; sequence <= length; sequence++) {
    const content = {
      sequence,
      at: new Date(1_700_000_000_000 + sequence).toISOString(),
      actor: 'key:k',
      action: 'device.revoked',
      subject: `device:${sequence}`,
      before: { standing: 'accepted', at: null },
      after: { standing: 'revoked', reason: 'stolen' },
      previous: records.at(-1)?.hash ?? GENESIS,
    };
    records.push({ ...content, hash: auditHash(content) });
  }
  return records;
}

describe('the audit chain', () => {
  it('holds for an untouched log, from its beginning and from any record on', () => {
    const records = chain(7);
    const head = { sequence: 7, hash: records[6]!.hash };
    expect(verifyAudit(records, { heads: [head, { sequence: 3, hash: records[2]!.hash }] })).toEqual({ ok: true, records: 7, head });
    expect(verifyAudit(records.slice(4), { from: { sequence: 4, hash: records[3]!.hash } })).toEqual({ ok: true, records: 3, head });
    expect(verifyAudit([])).toEqual({ ok: true, records: 0, head: { sequence: 0, hash: GENESIS } });
  });

  it('does not depend on the order of keys, which a database changes', () => {
    const [record] = chain(1);
    const turned = { ...record!, after: { reason: 'stolen', standing: 'revoked' } };
    expect(auditHash(turned)).toBe(record!.hash);
  });

  it('breaks at the record that was altered, whatever was altered in it', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 5 }), fc.constantFrom('at', 'actor', 'action', 'subject', 'before', 'after', 'previous'), (at, field) => {
        const records = chain(6);
        records[at] = { ...records[at]!, [field]: 'other' };
        expect(verifyAudit(records)).toMatchObject({ ok: false, sequence: at + 1 });
      }),
    );
  });

  it('breaks where a record was altered and its own hash made to fit', () => {
    const records = chain(3);
    const forged = { ...records[1]!, actor: 'key:somebody-else' };
    records[1] = { ...forged, hash: auditHash(forged) };
    expect(verifyAudit(records)).toMatchObject({ ok: false, sequence: 3, problem: expect.stringContaining('continues') });
  });

  it('misses a record that was taken out, one that was doubled, and two that changed places', () => {
    const [a, b, c] = chain(3) as [AuditRecord, AuditRecord, AuditRecord];
    for (const records of [
      [a, c],
      [a, b, b, c],
      [a, c, b],
      [b, c],
    ])
      expect(verifyAudit(records).ok).toBe(false);
  });

  it('shows a log that was cut short or written anew only beside a head noted before', () => {
    const records = chain(5);
    const heads = [{ sequence: 5, hash: records[4]!.hash }];
    expect(verifyAudit(records.slice(0, 3)).ok).toBe(true);
    expect(verifyAudit(records.slice(0, 3), { heads })).toMatchObject({ ok: false, problem: 'the log ends at record 3, but record 5 was noted' });
    const anew = chain(5);
    const last = { ...anew[4]!, actor: 'key:nobody' };
    anew[4] = { ...last, hash: auditHash(last) };
    expect(verifyAudit(anew).ok).toBe(true);
    expect(verifyAudit(anew, { heads })).toMatchObject({ ok: false, problem: expect.stringContaining('rewritten') });
  });
});
