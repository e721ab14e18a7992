// A slice changed inside an answer: what keeping the K/V costs in exactness, and what prefilling anew costs in time, on nano. See README.md.
import { openEngine } from '@matfleet/inference';
import { prefillChunkTokens, sliceById } from '@matfleet/model';
import { parseArgs } from 'node:util';
import { generate } from '../libs/inference/dist/generate.js';
import { createSampler } from '../libs/inference/dist/sampler.js';
import { SliceSet } from '../libs/inference/dist/slice-set.js';
import { machine, percent, table, today, writeTable } from './support/markdown.mjs';
import { CONTEXT_TOKENS, MAX_TOKENS, NANO, readExamples, readSlices, withPackage } from './support/nano-model.mjs';
import { median } from './support/statistics.mjs';

const PAIRS = 's-32-L6>s-512,s-512>s-32-L6,s-32-L6>s-128,s-128>s-32-L6';
/** Tokens by the first slice; the other one computes the rest. */
const SWITCH_AFTER = [2, 4, 8];

export const usage = `[options]
  --precision fp32|int8|int4  of the package that is measured (int8)
  --model DIR                 checkpoint with slices.json and eval/ (models/nano)
  --pairs 'a>b,c>d'           from one slice to another (${PAIRS})
  --limit N                   about N commands of each set (40)
  --write                     replace the committed table`;

export async function run(args) {
  const { values } = parseArgs({
    args,
    options: {
      precision: { type: 'string', default: 'int8' },
      model: { type: 'string', default: NANO },
      pairs: { type: 'string', default: PAIRS },
      limit: { type: 'string', default: '40' },
      write: { type: 'boolean', default: false },
    },
  });
  const pairs = values.pairs.split(',').map((text) => text.split('>'));
  const { slices } = await readSlices(values.model);
  const sets = await Promise.all(['heldout', 'handwritten'].map((name) => readExamples(values.model, name, values.limit)));
  return withPackage({ ...values, slices }, async ({ manifest, dir }) => {
    const lab = await openLab(manifest, dir, [...new Set(pairs.flat())]);
    const rows = [];
    try {
      const commands = sets.flatMap(({ examples }) => examples).map((one) => ({ ...one, promptIds: lab.tokenize(one.text) }));
      for (const [from, to] of pairs) {
        const started = performance.now();
        rows.push(...(await comparePair(lab, commands, from, to)));
        console.error(`${from} > ${to} in ${((performance.now() - started) / 1000).toFixed(0)} s`);
      }
    } finally {
      await lab.close();
    }
    const options = args.filter((arg) => arg !== '--write').map((arg) => (arg.includes('>') ? `'${arg}'` : arg));
    const text = render({ command: ['npm run bench -- switching', ...options, '--write'].join(' '), sets, manifest, rows });
    console.log(text);
    if (values.write) await writeTable(values.precision === 'int8' ? 'switching-nano' : `switching-nano-${values.precision}`, text);
    return 0;
  });
}

/** The engine's own answering, over decoders that note the logits of every choice. */
async function openLab(manifest, dir, ids) {
  const { config } = manifest;
  const engine = await openEngine({ manifest, storeDir: dir, sliceId: ids[0], contextTokens: CONTEXT_TOKENS });
  const set = await SliceSet.create(
    manifest,
    dir,
    ids.map((id) => sliceById(manifest, id)),
    { mostOpen: ids.length },
  );
  for (const id of ids) await set.use(id);
  const chunkTokens = prefillChunkTokens(config);
  const cache = set.newCache(CONTEXT_TOKENS, chunkTokens);
  const choose = createSampler(undefined, config);

  /** `chosen`: every choice, that of the stop token too; `steps[i]`: logits and milliseconds of the passes behind choice i. */
  async function answer(promptIds, options) {
    const passes = { logits: undefined, ms: 0 };
    const use = async (id) => {
      const decoder = await set.use(id);
      const forward = async (tokenIds, into) => {
        const started = performance.now();
        const rows = await decoder.forward(tokenIds, into);
        passes.ms += performance.now() - started;
        passes.logits = rows[0];
        return rows;
      };
      return { ownedLayers: decoder.ownedLayers, forward };
    };
    const silent = { push: () => '', end: () => '' };
    const tokens = generate(use, config, ids[0], cache, promptIds, { maxTokens: MAX_TOKENS, ...options }, chunkTokens, () => silent);
    const [chosen, steps] = [[], []];
    for (;;) {
      const step = await tokens.next();
      if (!step.done || step.value.reason === 'stop') {
        chosen.push(step.done ? choose(passes.logits) : step.value.tokenId);
        steps.push({ ...passes });
        passes.ms = 0;
      }
      if (step.done) return { chosen, steps };
    }
  }
  return {
    answer,
    tokenize: (text) => engine.tokenize([{ role: 'user', text }]),
    close: async () => {
      await engine.close();
      await set.close();
    },
  };
}

/** One row per moment of the change. */
async function comparePair(lab, commands, from, to) {
  const alone = [];
  for (const { promptIds } of commands)
    alone.push({ from: await lab.answer(promptIds, { sliceId: from }), to: await lab.answer(promptIds, { sliceId: to }) });
  const rows = [];
  for (const after of [...SWITCH_AFTER, 'every token']) {
    const row = { from, to, after, answers: [], flips: [], firstErrors: [], keepMs: [], prefillMs: [], ownMs: [], notFresh: 0, freshError: 0 };
    const sliceFor = after === 'every token' ? (n) => (n % 2 ? to : from) : (n) => (n < after ? from : to);
    const first = after === 'every token' ? 1 : after;
    for (const [i, { promptIds }] of commands.entries()) {
      // An answer that ends before the change has none.
      if (alone[i].from.chosen.length <= first) continue;
      const keep = await lab.answer(promptIds, { sliceId: from, sliceFor, onSwitch: 'keep' });
      const prefill = await lab.answer(promptIds, { sliceId: from, sliceFor, onSwitch: 'prefill' });
      if (after !== 'every token') await compareFresh(lab, row, promptIds, to, prefill, after);
      record(row, first, keep, prefill, alone[i]);
    }
    rows.push(row);
  }
  return rows;
}

/** A run of the new slice alone on prompt and the tokens so far, which prefilling at the change must equal. */
async function compareFresh(lab, row, promptIds, to, prefill, after) {
  const fresh = await lab.answer([...promptIds, ...prefill.chosen.slice(0, after)], { sliceId: to, maxTokens: MAX_TOKENS - after });
  if (fresh.chosen.join() !== prefill.chosen.slice(after).join()) row.notFresh++;
  for (const [i, { logits }] of fresh.steps.entries()) {
    if (fresh.chosen[i] !== prefill.chosen[after + i]) break;
    row.freshError = Math.max(row.freshError, ...differences(logits, prefill.steps[after + i].logits));
  }
}

function record(row, first, keep, prefill, alone) {
  const length = Math.max(keep.chosen.length, prefill.chosen.length);
  const parts = Array.from({ length }, (_, i) => i).filter((i) => keep.chosen[i] !== prefill.chosen[i]);
  const same = (a, b) => a.chosen.join() === b.chosen.join();
  row.answers.push({
    tokens: length - first,
    differing: parts.length,
    keepAsTo: same(keep, alone.to),
    prefillAsTo: same(prefill, alone.to),
    fromAsTo: same(alone.from, alone.to),
  });
  row.firstErrors.push(...differences(keep.steps[first].logits, prefill.steps[first].logits));
  if (parts.length > 0) {
    const at = parts[0];
    const [kept, anew] = [keep.chosen[at], prefill.chosen[at]];
    const margin = ({ steps }, a, b) => steps[at].logits[a] - steps[at].logits[b];
    row.flips.push({ anew: margin(prefill, anew, kept), kept: margin(keep, kept, anew) });
  }
  // Where every token changes slice, each one is a change; else the one after the change is, and the others show the slice's own pace.
  const changes = row.after === 'every token' ? undefined : first;
  row.keepMs.push(...keep.steps.slice(first, changes && changes + 1).map(({ ms }) => ms));
  row.prefillMs.push(...prefill.steps.slice(first, changes && changes + 1).map(({ ms }) => ms));
  row.ownMs.push(...alone.to.steps.slice(1).map(({ ms }) => ms));
}

function differences(a, b) {
  return Array.from(a, (value, i) => Math.abs(value - b[i]));
}

function render({ command, sets, manifest, rows }) {
  const share = (row, of) => percent(row.answers.filter(of).length / row.answers.length);
  const sum = (values) => values.reduce((total, value) => total + value, 0);
  const fixed = rows.filter(({ after }) => after !== 'every token');
  const right = (names) => names.map((name) => [name, 'right']);
  return [
    `# Changing slice inside an answer of nano, ${manifest.precision.kind}`,
    '',
    `${today()} · \`${command}\` · ${machine()}`,
    '',
    `Commands: ${sets.map(({ examples, file }) => `${examples.length} of \`${file}\``).join(' and ')}; answers that end before the change are left out.`,
    `Prefilling at a fixed token against a fresh run of the new slice on the same tokens: ${sum(fixed.map((row) => row.notFresh))} of ${sum(fixed.map((row) => row.answers.length))} answers differ; largest logit difference ${Math.max(...fixed.map((row) => row.freshError)).toExponential(1)}.`,
    '',
    table(
      [
        ['from', 'left'],
        ['to', 'left'],
        ['after token', 'left'],
        ...right(['answers', 'keep = prefill', 'tokens that differ', 'logit error after the change, mean', 'max', 'flips']),
        ...right(['margin anew, median', 'max', 'margin kept, median', 'max']),
      ],
      rows.map((row) => [
        row.from,
        row.to,
        row.after,
        row.answers.length,
        share(row, ({ differing }) => differing === 0),
        percent(sum(row.answers.map(({ differing }) => differing)) / sum(row.answers.map(({ tokens }) => tokens)), 2),
        (sum(row.firstErrors) / row.firstErrors.length).toFixed(3),
        row.firstErrors.reduce((most, value) => Math.max(most, value), 0).toFixed(2),
        row.flips.length,
        ...['anew', 'kept'].flatMap((kind) => {
          const margins = row.flips.map((flip) => flip[kind]);
          return margins.length > 0 ? [median(margins).toFixed(2), Math.max(...margins).toFixed(2)] : ['–', '–'];
        }),
      ]),
    ),
    '',
    'The whole answer against that of the new slice alone, and the time of a token that another slice than the one before computes:',
    '',
    table(
      [
        ['from', 'left'],
        ['to', 'left'],
        ['after token', 'left'],
        ...right(['never changed = new slice', 'keep = new slice', 'prefill = new slice', 'keep ms', 'prefill ms', 'new slice alone ms']),
      ],
      rows.map((row) => [
        row.from,
        row.to,
        row.after,
        share(row, ({ fromAsTo }) => fromAsTo),
        share(row, ({ keepAsTo }) => keepAsTo),
        share(row, ({ prefillAsTo }) => prefillAsTo),
        median(row.keepMs).toFixed(2),
        median(row.prefillMs).toFixed(2),
        median(row.ownMs).toFixed(2),
      ]),
    ),
  ].join('\n');
}
