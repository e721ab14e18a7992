// What travels when a device changes slice: every step of the published chain, up and down, over the wire. What is measured and how: bench/README.md.
import { mkdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { deliver, enrol, channelOptions, deviceCredentials, DeviceTrust, fetchManifest, targetOf } from '@matfleet/device';
import { ControlPlaneProcess, publish } from '@matfleet/harness';
import { chunksOf, missingChunks, publishedChain, publishedShapes, sliceById, sliceRoot, theoreticalBytes, versionId } from '@matfleet/model';
import { ArtifactServiceClient } from '@matfleet/protocol';
import { ChunkStore } from '../apps/agent/dist/chunk-store.js';
import { machine, percent, table, today, writeTable } from './support/markdown.mjs';
import { whole } from './support/options.mjs';
import { CACHE, randomPackage } from './support/random-package.mjs';

export const usage = `[options]
  --block N   quantisation block of its int4 weights (128)
  --write     replace the committed table`;

const OFF_MAX = 0.02;
const UPGRADE_SHARE_MAX = 0.36;

export async function run(args) {
  const { values } = parseArgs({ args, options: { block: { type: 'string', default: '128' }, write: { type: 'boolean', default: false } } });
  const block = whole('--block', values.block);
  const packageDir = await randomPackage({ shape: 'e4b', precision: 'int4', block });
  const dir = join(CACHE, `delta-${process.pid}`);
  await mkdir(dir, { recursive: true });
  let controlPlane;
  try {
    controlPlane = await ControlPlaneProcess.start({ dir: join(dir, 'control-plane') });
    await publish(packageDir, controlPlane.httpUrl, controlPlane.apiKeyFile);
    const modelVersionId = versionId(await readFile(join(packageDir, 'manifest.json')));
    const device = await enrolled(controlPlane, join(dir, 'device'));
    const rows = await measure(device, modelVersionId, block);
    const text = render(rows, args);
    console.log(text);
    if (values.write) await writeTable('delta-e4b', text);
    return rows.every(({ ok }) => ok) ? 0 : 1;
  } finally {
    await controlPlane?.stop();
    await rm(dir, { recursive: true, force: true });
  }
}

async function enrolled({ api, deviceUrl }, dir) {
  const { token } = await api.createJoinToken(1);
  const identity = await enrol({ joinUrl: deviceUrl, token, deviceName: 'bench', directory: join(dir, 'identity') });
  const client = new ArtifactServiceClient(targetOf(deviceUrl), deviceCredentials(identity), channelOptions);
  return { client, store: new ChunkStore(dir), trust: new DeviceTrust({ file: join(dir, 'trust.json'), client: () => client }) };
}

async function measure({ client, store, trust }, modelVersionId, block) {
  if (!(await trust.targetOf(modelVersionId))) throw new Error('the control plane signed nothing');
  store.putManifest(modelVersionId, await fetchManifest(client, modelVersionId));
  const manifest = store.manifest(modelVersionId);
  const precision = { kind: 'int4', block };
  const rows = [];
  let before;
  for (const { id } of [...publishedChain, ...publishedChain.slice(0, -1).reverse()]) {
    const slice = sliceById(manifest, id);
    const slot = { modelVersionId, modelName: manifest.name, sliceId: id, generation: 1, contextTokens: 0 };
    const missing = store.chunks(slot).filter((chunk) => store.view(slot).missingChunks.includes(chunk.id));
    let bytes = 0;
    await deliver(client, missing, {
      what: id,
      directory: join(store.directory, 'chunks'),
      pathOf: (chunkId) => store.chunkPath(chunkId),
      signal: AbortSignal.timeout(600_000),
      onBytes: (count) => (bytes += count),
    });
    const chunks = chunksOf(manifest, slice);
    const total = chunks.reduce((sum, chunk) => sum + chunk.bytes, 0);
    const theory = before
      ? Math.max(0, theoreticalBytes(publishedShapes.e4b, precision, slice) - theoreticalBytes(publishedShapes.e4b, precision, before))
      : undefined;
    const planned = missingChunks({ manifest, slice }, before && { manifest, slice: before });
    const off = theory ? bytes / theory - 1 : undefined;
    const step = before ? `${before.id} → ${id}` : `nothing → ${id}`;
    const ok = (theory === undefined || (theory === 0 ? bytes === 0 : Math.abs(off) <= OFF_MAX)) && planned.length >= missing.length;
    rows.push({ step, chunks: missing.length, bytes, theory, off, total, root: sliceRoot(chunks), ok });
    before = slice;
  }
  // Every byte that was brought is what its name says, and the widest slice has its root.
  const damaged = await store.verify({ modelVersionId, sliceId: 'e4b' }, AbortSignal.timeout(600_000));
  if (damaged.length > 0) throw new Error(`${damaged.length} chunks are damaged`);
  const [small, large] = ['e2b', 'e4b'].map((id) => sliceById(manifest, id));
  const jump = missingChunks({ manifest, slice: large }, { manifest, slice: small });
  const jumpBytes = jump.reduce((sum, chunk) => sum + chunk.bytes, 0);
  const total = chunksOf(manifest, large).reduce((sum, chunk) => sum + chunk.bytes, 0);
  const theory = theoreticalBytes(publishedShapes.e4b, precision, large) - theoreticalBytes(publishedShapes.e4b, precision, small);
  rows.push({
    step: 'e2b → e4b at once',
    chunks: jump.length,
    bytes: jumpBytes,
    theory,
    off: jumpBytes / theory - 1,
    total,
    ok: jumpBytes / total <= UPGRADE_SHARE_MAX,
  });
  return rows;
}

const MB = (bytes) => (bytes / 1e6).toFixed(1);

function render(rows, args) {
  const command = ['npm run bench -- delta', ...args.filter((arg) => arg !== '--write')].join(' ').trim();
  return [
    '# What travels when a device changes slice: E4B’s shape, int4, bands of 8192',
    '',
    `${today()} · \`${command}\` · ${machine()}`,
    '',
    table(
      [
        ['step', 'left'],
        ['chunks', 'right'],
        ['MB fetched', 'right'],
        ['MB by arithmetic', 'right'],
        ['off', 'right'],
        ['of the slice', 'right'],
      ],
      rows.map(({ step, chunks, bytes, theory, off, total }) => [
        step,
        chunks,
        MB(bytes),
        theory === undefined ? '' : MB(theory),
        off === undefined ? '' : percent(off, 2),
        percent(bytes / total),
      ]),
    ),
  ].join('\n');
}
