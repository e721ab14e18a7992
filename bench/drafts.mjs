// What n-gram drafts give: how often they are right on nano's commands, and what verifying them costs at full size. See bench/README.md.
import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { availableParallelism, cpus, tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs, promisify } from 'node:util';
import { importCheckpoint, openEngine, readManifest, runtime } from '@matfleet/inference';
import { sliceById } from '@matfleet/model';
import { Decoder } from '../libs/inference/dist/decoder.js';
import { whole } from './support/options.mjs';
import { CACHE, randomPackage } from './support/random-package.mjs';
import { median } from './support/statistics.mjs';

const exec = promisify(execFile);
const NANO = resolve(import.meta.dirname, '../models/nano');
const DRAFTS = [0, 2, 4, 8];

export const usage = `[options]
  --slice ID       of nano (s-512)
  --limit N        about N of nano's held-out commands (150)
  --shape e2b|e4b  whose passes are timed (e2b)
  --block N        quantisation block of that package (128)
  --threads N      of one operator there (all cores, at most 4)
  --context N      tokens of context there (512)
  --repeats N      passes of each length there (15)
  --cache DIR      where random packages are kept (~/.cache/matfleet/bench)
  --write          replace the committed table`;

export async function run(args) {
  const { values } = parseArgs({
    args,
    options: {
      slice: { type: 'string', default: 's-512' },
      limit: { type: 'string', default: '150' },
      shape: { type: 'string', default: 'e2b' },
      block: { type: 'string', default: '128' },
      threads: { type: 'string', default: String(Math.min(4, availableParallelism())) },
      context: { type: 'string', default: '512' },
      repeats: { type: 'string', default: '15' },
      cache: { type: 'string', default: CACHE },
      write: { type: 'boolean', default: false },
    },
  });
  const passes = await timePasses(values);
  const commands = await answerCommands(values.slice, whole('--limit', values.limit));
  const text = render({ ...values, passes, commands });
  console.log(text);
  if (values.write) {
    const command = ['npm run bench -- drafts', ...args.filter((arg) => arg !== '--write')].join(' ');
    await writeFile(new URL('results/drafts.md', import.meta.url), `# Drafts from the text itself\n\n\`${command}\`\n\n${text}\n`);
  }
  return 0;
}

/** Passes over one token, and over one and a draft, at full size. */
async function timePasses(values) {
  const dir = await randomPackage({ ...values, block: whole('--block', values.block), precision: 'int4' });
  const slice = sliceById(await readManifest(dir), values.shape);
  const terms = {
    dir,
    sliceId: slice.id,
    threads: whole('--threads', values.threads),
    contextTokens: whole('--context', values.context),
    lengths: [1, 2, ...DRAFTS.slice(1).map((draft) => draft + 1)],
    repeats: whole('--repeats', values.repeats),
  };
  console.error(`timing passes of ${dir}`);
  const script = join(import.meta.dirname, 'support/passes-run.mjs');
  const { stdout } = await exec(process.execPath, [script, JSON.stringify(terms)], { maxBuffer: 2 ** 26, timeout: 1_800_000 });
  return JSON.parse(stdout);
}

/** nano's commands, each with every draft length in turn and from nothing. Throws where a draft changed an answer. */
async function answerCommands(sliceId, limit) {
  const table = JSON.parse(await readFile(join(NANO, 'slices.json'), 'utf8'));
  const lines = (await readFile(join(NANO, 'eval/heldout.jsonl'), 'utf8')).split('\n').filter(Boolean);
  const step = Math.max(1, Math.ceil(lines.length / limit));
  const texts = lines.filter((_, i) => i % step === 0).map((line) => JSON.parse(line).text);
  const work = await mkdtemp(join(tmpdir(), 'matfleet-bench-'));
  try {
    const dir = join(work, 'package');
    const slices = [sliceById(table, sliceId)].map(({ id, name, ffn, skip }) => ({ id, name, ffn, skip }));
    const manifest = await importCheckpoint({ source: NANO, out: dir, precision: 'int8', slices, golden: false });
    const engine = await openEngine({ manifest, storeDir: dir, sliceId, contextTokens: 256 });
    const rows = [1, 2].flatMap((turn) =>
      DRAFTS.map((draftTokens) => ({ turn, draftTokens, tokens: 0, ms: 0, drafted: 0, accepted: 0, changed: 0, answers: 0 })),
    );
    const sequences = [];
    // A conversation: the command, its answer, another one. The second answer finds its shape in the first.
    for (const [at, text] of texts.entries()) {
      const first = await answer(engine, [{ role: 'user', text }], 0);
      const again = { role: 'user', text: texts[(at + 1) % texts.length] };
      const command = { role: 'user', text };
      for (const [turn, messages] of [[command], [command, { role: 'model', text: first.text }, again]].entries()) {
        const results = [];
        for (const row of rows.filter((one) => one.turn === turn + 1)) {
          const result = await answer(engine, messages, row.draftTokens);
          results.push(result);
          row.answers++;
          row.tokens += result.tokenIds.length;
          row.ms += result.ms;
          row.drafted += result.draftedTokens;
          row.accepted += result.acceptedTokens;
          if (result.tokenIds.join() !== results[0].tokenIds.join()) row.changed++;
        }
        if (turn === 0) sequences.push([...engine.tokenize(messages), ...results[0].tokenIds]);
      }
    }
    await engine.close();
    const agreement = [];
    for (const activations of ['float32', 'int8'])
      agreement.push({ activations, ...(await comparePasses(manifest, dir, slices[0], activations, sequences)) });
    return { rows, agreement };
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/** Logits of passes over five tokens beside those of single steps, activations rounded to 8 bits (as models of full size do) or not. */
async function comparePasses(manifest, dir, slice, activations, sequences) {
  const decoder = await Decoder.open(manifest, dir, slice, { activations });
  const [single, many] = [decoder.newCache(256, 32), decoder.newCache(256, 32)];
  const best = (row) => row.reduce((at, value, i) => (value > row[at] ? i : at), 0);
  const total = { largest: 0, changed: 0, compared: 0 };
  for (const ids of sequences) {
    single.reset();
    many.reset();
    while (many.length < ids.length) {
      const pass = ids.slice(many.length, many.length + 5);
      const rows = (await decoder.forward(pass, many, pass.length)).map((row) => row.slice());
      for (const [at, id] of pass.entries()) {
        const alone = (await decoder.forward([id], single))[0];
        for (let v = 0; v < alone.length; v++) total.largest = Math.max(total.largest, Math.abs(alone[v] - rows[at][v]));
        if (best(alone) !== best(rows[at])) total.changed++;
        total.compared++;
      }
    }
  }
  await decoder.close();
  return total;
}

/** `ms` from the first token to the end. */
async function answer(engine, messages, draftTokens) {
  const events = engine.generate(engine.tokenize(messages), { maxTokens: 64, reuse: 'off', draftTokens });
  const tokenIds = [];
  let firstAt = 0;
  for (;;) {
    const step = await events.next();
    if (tokenIds.length === 0) firstAt = performance.now();
    if (step.done) return { ...step.value, tokenIds, ms: performance.now() - firstAt };
    tokenIds.push(step.value.tokenId);
  }
}

function render({ shape, block, threads, context, repeats, slice, passes, commands }) {
  const line = (cells) => `| ${cells.join(' | ')} |`;
  const table = (header, rows) => [line(header), line(header.map(() => '--:')), ...rows.map(line)];
  const one = median(passes.ms[1]);
  const plain = (row) => commands.rows.find(({ turn, draftTokens }) => turn === row.turn && draftTokens === 0);
  return [
    `${cpus()[0]?.model}, ${cpus().length} cores, ONNX Runtime ${runtime.version}, ${new Date().toISOString().slice(0, 10)}. Other work ran beside.`,
    '',
    `${shape}, int4 block ${block}, ${threads} threads, after ${context} tokens, medians of ${repeats}:`,
    '',
    ...table(
      ['tokens in a pass', 'ms', 'of a single one', 'right tokens of its draft that pay for it'],
      Object.entries(passes.ms).map(([length, ms]) => {
        const ratio = median(ms) / one;
        return [length, median(ms).toFixed(1), ratio.toFixed(2), length === '1' ? '–' : `${(ratio - 1).toFixed(2)} of ${length - 1}`];
      }),
    ),
    '',
    `nano, slice ${slice}, int8, held-out commands, ${commands.rows[0].answers} answers a row; a second turn follows a first one of the same kind:`,
    '',
    ...table(
      ['turn', 'drafted at most', 'drafted', 'right', 'tokens a pass', 'tokens/s', 'speed', 'answers that differ'],
      commands.rows.map((row) => [
        row.turn,
        row.draftTokens,
        row.drafted,
        row.drafted ? `${((100 * row.accepted) / row.drafted).toFixed(0)} %` : '–',
        (row.tokens / (row.tokens - row.accepted)).toFixed(2),
        ((1000 * row.tokens) / row.ms).toFixed(0),
        `${(row.tokens / row.ms / (plain(row).tokens / plain(row).ms)).toFixed(2)}x`,
        row.changed,
      ]),
    ),
    '',
    'Logits of a pass over several tokens against those of single ones:',
    '',
    ...table(
      ['model', 'activations', 'positions', 'largest difference', 'another best token'],
      [...commands.agreement.map((one) => [`nano int8, trained`, one.activations, one]), [`${shape} int4, random`, 'int8', passes]].map(
        ([model, activations, { compared, largest, changed }]) => [model, activations, compared, largest.toExponential(1), changed],
      ),
    ),
    '',
    'Rounding activations to 8 bits turns differences in the last bits into whole steps; random weights magnify them from layer to layer.',
  ].join('\n');
}
