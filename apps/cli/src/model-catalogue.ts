import { z } from 'zod';
import { connect, withApiOptions, type Api, type ApiOptions } from './api.js';
import type { Register } from './command.js';
import { Failure, UsageFailure } from './failure.js';
import { formatBytes, table } from './output.js';

const Quality = z.object({ value: z.number(), samples: z.number(), stderr: z.number() });
const ModelSlice = z.object({
  id: z.string(),
  name: z.string(),
  quality: Quality.nullable(),
  bytes: z.number(),
  ffn: z.array(z.number()),
  skip: z.array(z.number()),
  root: z.string(),
});
const ModelVersion = z.object({
  id: z.string(),
  name: z.string(),
  precision: z.string(),
  createdAt: z.string(),
  publishedAt: z.string().nullable(),
  pinnedAt: z.string().nullable(),
  retiredAt: z.string().nullable(),
  evaluation: z
    .object({ metric: z.string(), dataset: z.string(), sha256: z.string().nullable(), date: z.string().nullable(), command: z.string().nullable() })
    .nullable(),
  chunkCount: z.number(),
  totalBytes: z.number(),
  slices: z.array(ModelSlice),
});
type ModelVersion = z.infer<typeof ModelVersion>;
const Named = z.object({ id: z.string(), name: z.string() });
const Garbage = z.object({
  removed: z.boolean(),
  garbage: z.array(Named),
  kept: z.array(Named.extend({ why: z.string() })),
  chunks: z.number(),
  bytes: z.number(),
});

/** The catalogue of a control plane: what is there, what is in it, what may go. */
export const registerCatalogue: Register = (model, { output, signal }) => {
  withApiOptions(model.command('list').description('list the versions of a control plane, newest first')).action(async (options: ApiOptions) => {
    const api = await connect(options, signal);
    output.result(await api.get('/api/v1/models', z.array(ModelVersion)), (versions) =>
      table(versions, [
        { title: 'name', value: ({ name }) => name },
        { title: 'version', value: ({ id }) => id.slice(0, 12) },
        { title: 'precision', value: ({ precision }) => precision },
        { title: 'slices', value: ({ slices }) => `${slices.length}`, align: 'right' },
        { title: 'size', value: ({ totalBytes }) => formatBytes(totalBytes), align: 'right' },
        { title: 'state', value: stateOf },
      ]),
    );
  });

  withApiOptions(
    model.command('show').description('show a version: its slices, their qualities and what these were measured on').argument('<version>', VERSION),
  ).action(async (version: string, options: ApiOptions) => {
    const api = await connect(options, signal);
    output.result(await findVersion(api, version), render);
  });

  for (const [name, method, description] of [
    ['pin', 'PUT', 'keep a version from being collected as garbage'],
    ['unpin', 'DELETE', 'let it be collected again, once nothing needs it'],
  ] as const)
    withApiOptions(model.command(name).description(description).argument('<version>', VERSION)).action(
      async (version: string, options: ApiOptions) => {
        const api = await connect(options, signal);
        const { id } = await findVersion(api, version);
        const path = `/api/v1/models/${id}/pin`;
        const changed = method === 'PUT' ? await api.send('PUT', path, new Uint8Array(), ModelVersion) : await api.delete(path, ModelVersion);
        output.result(changed, (document) => `${document.name} ${document.id.slice(0, 12)}: ${stateOf(document)}`);
      },
    );

  withApiOptions(model.command('gc').description('say which versions and chunks nothing needs any more; with --yes remove them'))
    .option('--older-than <time>', 'younger versions stay: 7d, 12h, 0d', '7d')
    .option('--yes', 'remove them')
    .action(async (options: ApiOptions & { olderThan: string; yes?: boolean }) => {
      const olderThanSeconds = parseAge(options.olderThan);
      const api = await connect(options, signal);
      const report = await api.post('/api/v1/models/gc', { olderThanSeconds, remove: options.yes === true }, Garbage);
      output.result(report, ({ removed, garbage, kept, chunks, bytes }) =>
        [
          table(
            [...garbage.map((one) => ({ ...one, why: removed ? 'removed' : 'nothing needs it' })), ...kept],
            [
              { title: 'name', value: (row) => row.name },
              { title: 'version', value: (row) => row.id.slice(0, 12) },
              { title: '', value: (row) => row.why },
            ],
          ),
          `${chunks} chunks, ${formatBytes(bytes)}${removed ? ', were removed' : ' would be freed: --yes removes them'}`,
        ].join('\n'),
      );
    });
};

const VERSION = 'its id, or the first characters of it, or the name of a model for its newest version';

/** By id, by a prefix of at least four characters that only one has, or the newest of a name. */
async function findVersion(api: Api, wanted: string): Promise<ModelVersion> {
  const versions = await api.get('/api/v1/models', z.array(ModelVersion));
  const named = versions.find(({ name, retiredAt }) => name === wanted && retiredAt === null);
  if (named) return named;
  const found = /^[0-9a-f]{4,64}$/.test(wanted) ? versions.filter(({ id }) => id.startsWith(wanted)) : [];
  if (found.length > 1)
    throw new Failure('ambiguous', `${found.length} versions begin with ${wanted}: ${found.map(({ id }) => id.slice(0, 16)).join(', ')}`);
  if (!found[0]) throw new Failure('not-found', `there is no model or version ${JSON.stringify(wanted)}; matfleet model list shows what there is`);
  return found[0];
}

const stateOf = ({ publishedAt, pinnedAt, retiredAt }: ModelVersion): string =>
  [
    retiredAt ? `retired ${day(retiredAt)}` : publishedAt ? `published ${day(publishedAt)}` : 'not published yet',
    ...(pinnedAt ? ['pinned'] : []),
  ].join(', ');

const day = (iso: string): string => iso.slice(0, 10);

function render(version: ModelVersion): string {
  const { name, id, precision, chunkCount, totalBytes, evaluation, slices } = version;
  const measured = evaluation
    ? `${evaluation.metric} on ${evaluation.dataset}${evaluation.sha256 ? ` (SHA-256 ${evaluation.sha256.slice(0, 12)}…)` : ''}${evaluation.date ? `, ${evaluation.date}` : ''}`
    : 'nothing: the version says no qualities';
  return [
    `${name} ${id}`,
    `${stateOf(version)} · ${precision} · ${chunkCount} chunks, ${formatBytes(totalBytes)}`,
    `measured on ${measured}`,
    '',
    table(slices, [
      { title: 'slice', value: (slice) => slice.id },
      { title: 'layers', value: ({ ffn }) => `${ffn.length}`, align: 'right' },
      { title: 'size', value: ({ bytes }) => formatBytes(bytes), align: 'right' },
      { title: 'quality', value: ({ quality }) => (quality ? `${(100 * quality.value).toFixed(1)} %` : ''), align: 'right' },
      { title: '±', value: ({ quality }) => (quality && quality.samples > 0 ? `${(100 * quality.stderr).toFixed(1)}` : ''), align: 'right' },
      { title: 'root', value: ({ root }) => root.slice(0, 12) },
    ]),
  ].join('\n');
}

function parseAge(text: string): number {
  const match = /^(\d{1,6})([smhd])$/.exec(text);
  if (!match) throw new UsageFailure(`--older-than: ${JSON.stringify(text)} is not a time such as 7d, 12h or 30m`);
  return Number(match[1]) * { s: 1, m: 60, h: 3_600, d: 86_400 }[match[2] as 's' | 'm' | 'h' | 'd'];
}
