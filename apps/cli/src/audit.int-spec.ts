import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { auditHash, type AuditRecord, GENESIS } from '@matfleet/history';

const BIN = new URL('../bin/matfleet.mjs', import.meta.url).pathname;

describe('matfleet audit verify', () => {
  const records: AuditRecord[] = [];
  let dir: string;

  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), 'matfleet-audit-'));
    for (let sequence = 1; sequence <= 4; sequence++) {
      const content = {
        sequence,
        at: '2026-11-24T12:00:00.000Z',
        actor: 'key:k',
        action: 'device.revoked',
        subject: `device:${sequence}`,
        before: { standing: 'accepted' },
        after: { standing: 'revoked' },
        previous: records.at(-1)?.hash ?? GENESIS,
      };
      records.push({ ...content, hash: auditHash(content) });
    }
  });
  afterAll(() => rm(dir, { recursive: true, force: true }));

  async function verify(log: readonly object[], ...args: string[]): Promise<{ code: number; text: string }> {
    const file = join(dir, 'log.jsonl');
    await writeFile(file, log.map((record) => `${JSON.stringify(record)}\n`).join(''));
    return new Promise((resolve) =>
      execFile(process.execPath, [BIN, 'audit', 'verify', file, ...args], { timeout: 50_000 }, (error, stdout, stderr) =>
        resolve({ code: error ? Number(error.code) : 0, text: stdout + stderr }),
      ),
    );
  }

  it('proves a whole log without a control plane, and names its end', async () => {
    const head = `4:${records[3]!.hash}`;
    expect(await verify(records, '--head', head)).toEqual({ code: 0, text: `4 records, whole and unaltered; the last is ${head}\n` });
  });

  it('fails at the record that was altered, and at a log that was cut short', async () => {
    const altered = [...records.slice(0, 2), { ...records[2]!, actor: 'key:somebody-else' }, records[3]!];
    expect(await verify(altered)).toMatchObject({ code: 1, text: expect.stringContaining('record 3 has') });
    expect(await verify(records.slice(0, 2), '--head', `4:${records[3]!.hash}`)).toMatchObject({
      code: 1,
      text: expect.stringContaining('the log ends at record 2, but record 4 was noted'),
    });
    expect(await verify([{ nonsense: true }])).toMatchObject({ code: 1, text: expect.stringContaining('line 1: this is no audit record') });
  });
});
