// What quantisation costs in answers: every slice of nano in int8 and int4, block by block, against the float32 package. See README.md.
import { openEngine } from '@matfleet/inference';
import { footprint } from '@matfleet/model';
import { parseArgs } from 'node:util';
import { Decoder } from '../libs/inference/dist/decoder.js';
import { createSampler } from '../libs/inference/dist/sampler.js';
import { machine, megabytes, percent, table, today, writeTable } from './support/markdown.mjs';
import { CONTEXT_TOKENS, MAX_TOKENS, NANO, chosenSlices, readExamples, readSlices, withPackage } from './support/nano-model.mjs';
import { quality } from './support/statistics.mjs';

const PRECISIONS = [{ precision: 'fp32' }, ...['int8', 'int4'].flatMap((precision) => [32, 64, 128].map((block) => ({ precision, block })))];

export const usage = `[options]
  --model DIR      checkpoint with slices.json and eval/ (models/nano)
  --slices a,b     only these slices
  --limit N        about N of the held-out commands
  --write          replace the committed table`;

export async function run(args) {
  const { values } = parseArgs({
    args,
    options: {
      model: { type: 'string', default: NANO },
      slices: { type: 'string' },
      limit: { type: 'string' },
      write: { type: 'boolean', default: false },
    },
  });
  if (values.write && (values.limit || values.slices)) throw new Error('--write needs the whole measurement: leave out --limit and --slices');
  const { slices } = await readSlices(values.model);
  const heldout = await readExamples(values.model, 'heldout', values.limit);
  return withPackages(values.model, slices, PRECISIONS, async (packages) => {
    const rows = [];
    for (const slice of chosenSlices(slices, values.slices)) {
      const started = performance.now();
      rows.push(...(await compareSlice(packages, slice, heldout.examples)));
      console.error(`${slice.id} in ${((performance.now() - started) / 1000).toFixed(0)} s`);
    }
    const text = render({ heldout, packages, rows });
    console.log(text);
    if (values.write) await writeTable('quantization-nano', text);
    return 0;
  });
}

async function withPackages(model, slices, [next, ...rest], use, done = []) {
  if (!next) return use(done);
  return withPackage({ model, slices, ...next }, (made) => withPackages(model, slices, rest, use, [...done, { ...next, ...made }]));
}

/**
 * The float32 answer of each command is generated token by token. Every package then computes the logits behind each of its tokens, in one
 * pass over prompt and answer; only where its choice differs somewhere does it generate an answer of its own.
 */
async function compareSlice(packages, slice, examples) {
  const opened = await Promise.all(packages.map((one) => open(one, slice)));
  try {
    const [reference] = opened;
    const choose = createSampler(undefined, reference.manifest.config);
    for (const example of examples) {
      const promptIds = reference.engine.tokenize([{ role: 'user', text: example.text }]);
      const want = await answer(reference.engine, promptIds);
      const isRight = ({ reason, text }) => reason === 'stop' && text === example.expected;
      const ids = [...promptIds, ...want.tokenIds];
      // Where the answer ended by itself, the choice of the stop token counts too.
      const wanted = want.tokenIds.length + (want.reason === 'stop' ? 1 : 0);
      const forced = ids.slice(0, promptIds.length + wanted - 1);
      const expected = await logits(reference, forced, wanted);
      for (const one of opened) {
        const got = one === reference ? expected : await logits(one, forced, wanted);
        let same = true;
        for (let i = 0; i < wanted; i++) {
          addErrors(one.errors, got[i], expected[i]);
          const chosen = choose(got[i]);
          const right = want.tokenIds[i] ?? choose(expected[i]);
          if (chosen === right) continue;
          same = false;
          one.flips++;
          one.overturned = Math.max(one.overturned, expected[i][right] - expected[i][chosen]);
        }
        one.tokens += wanted;
        const own = same || one === reference ? want : await answer(one.engine, promptIds);
        const [hit, before] = [isRight(own), isRight(want)];
        one.hits.push({ hit });
        if (before && !hit) one.lost++;
        if (!before && hit) one.won++;
        if (own.reason === want.reason && own.tokenIds.join() === want.tokenIds.join()) one.same++;
      }
    }
    return opened.map((one) => ({
      ...one,
      slice,
      quality: quality(one.hits),
      sameAnswers: one.same / examples.length,
      meanError: one.errors.sum / one.errors.count,
      maxError: one.errors.max,
      footprint: footprint(one.manifest, slice, CONTEXT_TOKENS),
    }));
  } finally {
    await Promise.all(opened.flatMap(({ engine, decoder }) => [engine.close(), decoder.close()]));
  }
}

async function open({ precision, block, manifest, dir }, slice) {
  const engine = await openEngine({ manifest, storeDir: dir, sliceId: slice.id, contextTokens: CONTEXT_TOKENS });
  const decoder = await Decoder.open(manifest, dir, slice);
  const cache = decoder.newCache(CONTEXT_TOKENS, CONTEXT_TOKENS);
  const errors = { sum: 0, count: 0, max: 0 };
  return { precision, block, manifest, engine, decoder, cache, errors, hits: [], same: 0, lost: 0, won: 0, tokens: 0, flips: 0, overturned: 0 };
}

async function answer(engine, promptIds) {
  const tokens = engine.generate(promptIds, { maxTokens: MAX_TOKENS });
  const tokenIds = [];
  for (;;) {
    const step = await tokens.next();
    if (step.done) return { tokenIds, text: step.value.text, reason: step.value.reason };
    tokenIds.push(step.value.tokenId);
  }
}

/** Logits of the last `wanted` positions. */
async function logits({ decoder, cache }, ids, wanted) {
  cache.reset();
  return decoder.forward(ids, cache, wanted);
}

function addErrors(errors, got, expected) {
  for (let i = 0; i < got.length; i++) {
    const error = Math.abs(got[i] - expected[i]);
    errors.sum += error;
    if (error > errors.max) errors.max = error;
  }
  errors.count += got.length;
}

const nameOf = ({ precision, block }) => (block ? `${precision} ${block}` : precision);

function render({ heldout, packages, rows }) {
  const [reference] = rows;
  return [
    '# Quantisation of nano',
    '',
    `${today()} · \`npm run bench -- quantization --write\` · ${machine()}`,
    '',
    `Held-out: ${heldout.examples.length} commands, \`${heldout.file}\`, SHA-256 \`${heldout.sha256}\`. ${reference.tokens} tokens of ${reference.slice.id} were compared.`,
    `Float32 in one pass over its own answers chose another token than token by token ${rows.filter(({ precision }) => precision === 'fp32').reduce((sum, row) => sum + row.flips, 0)} times, all slices together.`,
    '',
    table(
      [
        ['slice', 'left'],
        ['precision', 'left'],
        ['held-out', 'right'],
        ['lost', 'right'],
        ['won', 'right'],
        ['answers as fp32', 'right'],
        ['tokens as fp32', 'right'],
        ['mean logit error', 'right'],
        ['max', 'right'],
        ['margin overturned', 'right'],
        ['download MB', 'right'],
        ['resident MB', 'right'],
      ],
      rows.map((row) => [
        row.slice.id,
        nameOf(row),
        `${percent(row.quality.value)} ± ${(100 * row.quality.stderr).toFixed(1)}`,
        row.lost,
        row.won,
        percent(row.sameAnswers),
        percent(1 - row.flips / row.tokens, 2),
        row.meanError.toFixed(3),
        row.maxError.toFixed(2),
        row.overturned.toFixed(2),
        megabytes(row.footprint.downloadBytes),
        megabytes(row.footprint.totalBytes),
      ]),
    ),
    '',
    'The blocks that the packages really have. A block never exceeds its row: nano is 96 wide, so most of its matrices cannot hold one of 128.',
    '',
    blockTable(packages),
  ].join('\n');
}

/** Per package: bytes, bits per weight with scales and padding, and how many weights lie in which block. Embedding planes are not in it. */
function blockTable(packages) {
  const matrices = packages[0].manifest.chunks.flatMap(({ part, tensors }) =>
    part.kind === 'plane' ? [] : tensors.filter(({ shape }) => shape.length === 2),
  );
  const sizes = [16, 32, 64, 128];
  const rows = packages.slice(1).map(({ precision, block, manifest }) => {
    const stored = new Map(
      manifest.chunks.flatMap(({ part, tensors }) => (part.kind === 'plane' ? [] : tensors.map((tensor) => [tensor.name, tensor]))),
    );
    const weights = matrices
      .map(({ name, shape }) => ({ name, count: shape[0] * shape[1], ...stored.get(name) }))
      .filter((tensor) => tensor.block !== undefined);
    const count = weights.reduce((sum, one) => sum + one.count, 0);
    const bytes = weights.reduce((sum, one) => sum + one.bytes + stored.get(`${one.name}.scales`).bytes, 0);
    const share = (size) => weights.filter((one) => one.block === size).reduce((sum, one) => sum + one.count, 0) / count;
    const total = manifest.chunks.reduce((sum, chunk) => sum + chunk.bytes, 0);
    return [nameOf({ precision, block }), megabytes(total), ((8 * bytes) / count).toFixed(2), ...sizes.map((size) => percent(share(size)))];
  });
  return table(
    [['package', 'left'], ['whole package MB', 'right'], ['bits per weight', 'right'], ...sizes.map((size) => [`in blocks of ${size}`, 'right'])],
    rows,
  );
}
