import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { connect, withApiOptions, type ApiOptions } from './api.js';
import { parseWhole } from './arguments.js';
import type { Register } from './command.js';
import { findDevice } from './fleet.js';

const Entry = z.looseObject({ id: z.number(), at: z.string(), kind: z.string(), summary: z.string() });
type Entry = z.infer<typeof Entry>;
const Page = z.looseObject({ entries: z.array(Entry), next: z.number().nullable() });

const WATCH_MS = 1_000;
const PAGE = 500;

/** What happened to one device. */
export const registerTimelineCommand: Register = (device, { output, signal }) => {
  withApiOptions(
    device
      .command('timeline')
      .description('show what happened to a device, oldest first')
      .argument('<device>', 'name or id; of one that is gone, its id'),
  )
    .option('--limit <n>', 'the newest so many; default: 50')
    .option('--kind <kind>', 'of one kind alone, for example presence, assigned or condition')
    .option('--watch', 'go on with what happens from now on, until Ctrl-C; with --json a line each')
    .action(async (which: string, options: ApiOptions & { limit?: string; kind?: string; watch?: boolean }) => {
      const limit = options.limit === undefined ? 50 : parseWhole('--limit', options.limit, 1);
      const api = await connect(options, signal);
      // A device that was decommissioned has no name any more; its timeline is still there.
      const id = /^[0-9a-f-]{36}$/.test(which) ? which : (await findDevice(api, which)).id;
      const read = (query: Record<string, string>) => {
        const all = { ...query, ...(options.kind !== undefined && { kind: options.kind }) };
        return api.get(`/api/v1/devices/${encodeURIComponent(id)}/timeline?${new URLSearchParams(all).toString()}`, Page);
      };
      const found: Entry[] = [];
      for (let before: number | null = null; found.length < limit;) {
        const page: z.infer<typeof Page> = await read({
          limit: String(Math.min(PAGE, limit - found.length)),
          ...(before !== null && { before: String(before) }),
        });
        found.push(...page.entries);
        before = page.next;
        if (before === null) break;
      }
      const entries = found.reverse();
      if (!options.watch) return output.result(entries, (rows) => (rows.length === 0 ? 'nothing is written down yet' : rows.map(line).join('\n')));
      let last = 0;
      const tell = (entry: Entry): void => {
        output.item(entry, line);
        last = Math.max(last, entry.id);
      };
      entries.forEach(tell);
      for (;;) {
        const { entries: news } = await read({ limit: String(PAGE), after: String(last) });
        news.forEach(tell);
        if (news.length < PAGE) await sleep(WATCH_MS, undefined, { signal });
      }
    });
};

const line = ({ at, kind, summary }: Entry): string => `${at}  ${kind.padEnd(14)}  ${summary}`;
