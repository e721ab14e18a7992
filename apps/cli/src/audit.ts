import { once } from 'node:events';
import { createReadStream, createWriteStream } from 'node:fs';
import { createInterface } from 'node:readline';
import { AuditRecord, type AuditHead, verifyAudit } from '@matfleet/history';
import { z } from 'zod';
import { connect, withApiOptions, type ApiOptions } from './api.js';
import { parseWhole } from './arguments.js';
import type { Register } from './command.js';
import { Failure, UsageFailure } from './failure.js';
import { table } from './output.js';

const PAGE = 1_000;
const Head = z.object({ sequence: z.number(), hash: z.string() });

/** Who changed what: read from the control plane, written to a file, and proved from the file alone. */
export const registerAuditCommands: Register = (program, { output, signal }) => {
  const audit = program.command('audit').description('who changed what, and the proof that nobody changed that');

  withApiOptions(audit.command('list').description('show the newest records'))
    .option('--limit <n>', 'how many', '50')
    .option('--subject <thing>', 'of one thing alone, for example device:<id>')
    .action(async (options: ApiOptions & { limit: string; subject?: string }) => {
      const query = new URLSearchParams({
        limit: String(parseWhole('--limit', options.limit, 1)),
        ...(options.subject !== undefined && { subject: options.subject }),
      });
      const api = await connect(options, signal);
      output.result(await api.get(`/api/v1/audit?${query}`, z.array(AuditRecord)), (records) =>
        table(records, [
          { title: '#', value: ({ sequence }) => `${sequence}`, align: 'right' },
          { title: 'at', value: ({ at }) => at },
          { title: 'who', value: ({ actor }) => actor },
          { title: 'what', value: ({ action }) => action },
          { title: 'to', value: ({ subject }) => subject },
          { title: 'after', value: ({ after }) => (after === null ? '' : JSON.stringify(after)) },
        ]),
      );
    });

  withApiOptions(audit.command('head').description('show number and hash of the newest record: keep them elsewhere, for verify --head')).action(
    async (options: ApiOptions) => {
      const api = await connect(options, signal);
      output.result(await api.get('/api/v1/audit/head', Head), ({ sequence, hash }) => `${sequence}:${hash}`);
    },
  );

  withApiOptions(audit.command('export').description('write all records to a file, one JSON document a line').argument('<file>')).action(
    async (file: string, options: ApiOptions) => {
      const api = await connect(options, signal);
      const target = createWriteStream(file, { mode: 0o600 });
      await once(target, 'open');
      let last = 0;
      for (;;) {
        const page = await api.get(`/api/v1/audit?limit=${PAGE}&after=${last}`, z.array(AuditRecord));
        const text = page.map((record) => `${JSON.stringify(record)}\n`).join('');
        if (text !== '' && !target.write(text)) await once(target, 'drain');
        last = page.at(-1)?.sequence ?? last;
        if (page.length < PAGE) break;
      }
      target.end();
      await once(target, 'close');
      output.result({ file, records: last }, () => `${last} records in ${file}`);
    },
  );

  audit
    .command('verify')
    .description('follow the chain of an exported file; needs no control plane')
    .argument('<file>')
    .option('--head <sequence:hash...>', 'what `audit head` said at some time: the log must still contain it')
    .action(async (file: string, options: { head?: string[] }) => {
      const heads = (options.head ?? []).map(parseHead);
      const verdict = verifyAudit(await readRecords(file), { heads });
      if (!verdict.ok) throw new Failure('audit-broken', `${file}: ${verdict.problem}`);
      output.result(verdict, ({ records, head }) => `${records} records, whole and unaltered; the last is ${head.sequence}:${head.hash}`);
    });
};

function parseHead(text: string): AuditHead {
  const match = /^(\d{1,15}):([0-9a-f]{64})$/.exec(text);
  if (!match) throw new UsageFailure(`--head: ${JSON.stringify(text)} is not <sequence>:<hash>, as audit head prints it`);
  return { sequence: Number(match[1]), hash: match[2]! };
}

async function readRecords(file: string): Promise<AuditRecord[]> {
  const records: AuditRecord[] = [];
  let line = 0;
  for await (const text of createInterface({ input: createReadStream(file) })) {
    line += 1;
    try {
      records.push(AuditRecord.parse(JSON.parse(text)));
    } catch (cause) {
      throw new Failure('audit-broken', `${file}, line ${line}: this is no audit record`, { cause });
    }
  }
  return records;
}
