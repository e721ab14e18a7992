// Exact match, bytes and speed of every slice of nano, through libs/inference: what a device would answer, token by token. See README.md.
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { openEngine } from '@matfleet/inference';
import { footprint, frontier } from '@matfleet/model';
import { line, machine, megabytes, percent, today, writeTable } from './support/markdown.mjs';
import { CONTEXT_TOKENS, MAX_TOKENS, NANO, chosenSlices, readExamples, readSlices, withPackage } from './support/nano-model.mjs';
import { median, quality } from './support/statistics.mjs';

export const usage = `[options]
  --precision fp32|int8|int4  of the package that is measured (int8)
  --block N                   quantisation block, 32, 64 or 128
  --model DIR                 checkpoint with slices.json and eval/ (models/nano)
  --slices a,b                only these slices
  --limit N                   about N commands of each set
  --write                     replace the committed table; in int8 the qualities in slices.json too`;

export async function run(args) {
  const { values } = parseArgs({
    args,
    options: {
      precision: { type: 'string', default: 'int8' },
      block: { type: 'string' },
      model: { type: 'string', default: NANO },
      slices: { type: 'string' },
      limit: { type: 'string' },
      write: { type: 'boolean', default: false },
    },
  });
  const table = await readSlices(values.model);
  const chosen = chosenSlices(table.slices, values.slices);
  if (values.write && (values.limit || values.slices)) throw new Error('--write needs the whole measurement: leave out --limit and --slices');
  const [heldout, handwritten] = await Promise.all(['heldout', 'handwritten'].map((name) => readExamples(values.model, name, values.limit)));

  return withPackage({ ...values, slices: table.slices }, async ({ manifest, dir }) => {
    const rows = [];
    for (const slice of chosen) {
      const started = performance.now();
      rows.push(await measureSlice({ manifest, dir, slice, heldout: heldout.examples, handwritten: handwritten.examples }));
      console.error(`${slice.id}: ${percent(rows.at(-1).quality.value)} in ${((performance.now() - started) / 1000).toFixed(0)} s`);
    }
    const command = `npm run bench -- nano${values.precision === 'int8' ? '' : ` --precision ${values.precision}`}${values.block ? ` --block ${values.block}` : ''} --write`;
    const report = { date: today(), command, precision: manifest.precision, heldout, handwritten, rows };
    const text = render(report);
    console.log(text);
    if (values.write) await writeResults(values, table, report, text);
    return 0;
  });
}

/** One slice over both sets. A run stops at the first text that is not a prefix of the expected answer: it can no longer match. */
async function measureSlice({ manifest, dir, slice, heldout, handwritten }) {
  const engine = await openEngine({ manifest, storeDir: dir, sliceId: slice.id, contextTokens: CONTEXT_TOKENS });
  const speeds = [];
  const firsts = [];
  const answersExactly = async ({ text, expected }) => {
    const tokens = engine.generate(engine.tokenize([{ role: 'user', text }]), { maxTokens: MAX_TOKENS, reuse: 'off' });
    let answer = '';
    for (;;) {
      const step = await tokens.next();
      if (step.done) {
        const result = step.value;
        if (result.outputTokens > 1) speeds.push(result.tokensPerSecond);
        firsts.push(result.ttftMs);
        return result.reason === 'stop' && result.text === expected;
      }
      answer += step.value.text;
      if (!expected.startsWith(answer)) {
        await tokens.return();
        return false;
      }
    }
  };
  const score = async (examples) => {
    const hits = [];
    for (const example of examples) hits.push({ task: example.function, hit: await answersExactly(example) });
    const tasks = [...new Set(hits.map(({ task }) => task))].sort();
    return { ...quality(hits), tasks: Object.fromEntries(tasks.map((task) => [task, quality(hits.filter((row) => row.task === task))])) };
  };
  try {
    const { tasks, ...overall } = await score(heldout);
    const { tasks: handwrittenTasks, ...hand } = await score(handwritten);
    return {
      slice,
      quality: overall,
      tasks,
      handwritten: hand,
      handwrittenTasks,
      footprint: footprint(manifest, slice, CONTEXT_TOKENS),
      tokensPerSecond: median(speeds),
      ttftMs: median(firsts),
    };
  } finally {
    await engine.close();
  }
}

function render({ date, command, precision, heldout, handwritten, rows }) {
  const best = new Set(
    frontier(
      rows.map((row) => ({ ...row.slice, quality: row.quality })),
      { sizeOf: (slice) => rows.find((row) => row.slice.id === slice.id).footprint.totalBytes },
    ).map((slice) => slice.id),
  );
  const tasks = [...new Set(rows.flatMap((row) => Object.keys(row.tasks)))].sort();
  return [
    `# nano, ${precision.kind}${precision.block ? ` in blocks of ${precision.block}` : ''}`,
    '',
    `${date} · \`${command}\` · ${machine()}`,
    '',
    `Held-out: ${heldout.examples.length} commands, \`${heldout.file}\`, SHA-256 \`${heldout.sha256}\`.`,
    `Hand-written: ${handwritten.examples.length} commands, \`${handwritten.file}\`, SHA-256 \`${handwritten.sha256}\`.`,
    `Resident = weights + tied head + K/V and activations at ${CONTEXT_TOKENS} tokens. Tokens/s and first token: medians, one engine, default threads.`,
    '',
    line(['slice', 'layers', 'FFN', 'held-out', 'hand-written', 'download MB', 'resident MB', 'tokens/s', 'first token ms', 'frontier']),
    line(['---', '--:', '---', '--:', '--:', '--:', '--:', '--:', '--:', '---']),
    ...rows.map((row) =>
      line([
        row.slice.id,
        row.slice.ffn.length,
        widths(row.slice.ffn),
        `${percent(row.quality.value)} ± ${(100 * row.quality.stderr).toFixed(1)}`,
        percent(row.handwritten.value),
        megabytes(row.footprint.downloadBytes),
        megabytes(row.footprint.totalBytes),
        row.tokensPerSecond.toFixed(0),
        row.ttftMs.toFixed(1),
        best.has(row.slice.id) ? 'yes' : 'no',
      ]),
    ),
    '',
    'Held-out by function:',
    '',
    line(['function', 'samples', ...rows.map((row) => row.slice.id)]),
    line(['---', '--:', ...rows.map(() => '--:')]),
    ...tasks.map((task) => line([task, rows[0].tasks[task].samples, ...rows.map((row) => percent(row.tasks[task].value))])),
  ].join('\n');
}

/** Runs of equal widths: 64x4,128. */
function widths(ffn) {
  const runs = [];
  for (const width of ffn) {
    const last = runs.at(-1);
    if (last?.[0] === width) last[1]++;
    else runs.push([width, 1]);
  }
  return runs.map(([width, count]) => (count > 1 ? `${width}x${count}` : width)).join(',');
}

/** The model's own table carries the int8 figures, the precision it is shipped in; other precisions only get a report. */
async function writeResults({ model, precision }, table, { date, command, heldout, rows }, text) {
  await writeTable(precision === 'int8' ? 'nano' : `nano-${precision}`, text);
  if (precision !== 'int8') return;
  const measured = new Map(rows.map((row) => [row.slice.id, row]));
  const { measuredBy: _measuredBy, weights: _weights, evaluation: _evaluation, slices: _slices, ...rest } = table;
  const updated = {
    ...rest,
    evaluation: { metric: 'exact match of the whole answer, int8', dataset: heldout.file, sha256: heldout.sha256, date, command },
    slices: table.slices.map((slice) => {
      const { quality: overall, tasks, handwritten } = measured.get(slice.id);
      return { ...slice, quality: overall, tasks, handwritten };
    }),
  };
  await writeFile(join(model, 'slices.json'), `${JSON.stringify(updated, null, 1)}\n`);
}
