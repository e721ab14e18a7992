import type { OpenLogitsOptions } from '@matfleet/inference';
import { Option } from 'commander';
import { parseIds, parseWhole, parseWidths } from './arguments.js';
import type { Register } from './command.js';
import { UsageFailure } from './failure.js';

interface LogitsOptions {
  readonly ids: string;
  readonly slice?: string;
  readonly ffn?: string;
  readonly skip?: string;
  readonly prefill?: string;
  readonly last?: true;
  readonly precision?: 'fp32' | 'int8' | 'int4';
  readonly block?: string;
}

export const registerLogits: Register = (model, { output }) => {
  model
    .command('logits')
    .description('compute unmasked logits of token ids, to compare with a reference')
    .argument('<dir>', 'a Hugging Face checkpoint directory or a model package')
    .requiredOption('--ids <ids>', 'token ids, separated by commas')
    .option('--slice <id>', 'a slice of the model’s table; default: the whole model')
    .option('--ffn <widths>', 'FFN width per kept layer, as in 64x4,128,64x10')
    .option('--skip <layers>', 'skipped layers in original numbering, with --ffn')
    .option('--prefill <n>', 'run the first n ids in one pass and the rest one by one from the cache')
    .option('--last', 'the last position alone, through the prefill cut')
    .addOption(new Option('--precision <kind>', 'for a checkpoint; a package keeps its own').choices(['fp32', 'int8', 'int4']))
    .option('--block <n>', 'quantisation block, for a checkpoint')
    .action(async (source: string, options: LogitsOptions) => {
      const ids = parseIds('--ids', options.ids);
      const prefill = options.prefill === undefined ? undefined : parseWhole('--prefill', options.prefill, 1);
      if (prefill !== undefined && prefill > ids.length) throw new UsageFailure(`--prefill ${prefill} is more than the ${ids.length} ids given`);
      if (prefill !== undefined && options.last) throw new UsageFailure('--prefill and --last exclude each other');
      const { openLogits } = await import('@matfleet/inference');
      const logits = await openLogits({ source, ...shapeOptions(options) });
      try {
        const rows = await logits.logits(ids, { ...(prefill && { prefill }), ...(options.last && { last: true }) });
        output.resultInPieces(
          () => jsonOf(rows),
          () => rows.map((row, i) => `${i > 0 ? '\n' : ''}${numbers(row).join(' ')}`),
        );
      } finally {
        await logits.close();
      }
    });
};

/** Nine digits are enough to tell any two float32 apart. */
const numbers = (row: Float32Array): number[] => Array.from(row, (value) => Number(value.toPrecision(9)));

/** `{"logits":[[…],…]}`, a row at a time: with 262,400 tokens a row is 3 MB of text, and a string ends at 512 MB. */
function* jsonOf(rows: readonly Float32Array[]): Generator<string> {
  yield '{"logits":[';
  for (const [i, row] of rows.entries()) yield `${i > 0 ? ',' : ''}${JSON.stringify(numbers(row))}`;
  yield ']}';
}

function shapeOptions(options: LogitsOptions): Omit<OpenLogitsOptions, 'source'> {
  const shaped = options.ffn !== undefined || options.skip !== undefined;
  if (shaped && options.slice !== undefined) throw new UsageFailure('--slice excludes --ffn and --skip');
  if (options.skip !== undefined && options.ffn === undefined) throw new UsageFailure('--skip needs --ffn with the width of every kept layer');
  return {
    ...(options.slice !== undefined && { sliceId: options.slice }),
    ...(options.ffn !== undefined && {
      ffn: parseWidths('--ffn', options.ffn),
      skip: options.skip === undefined ? [] : parseIds('--skip', options.skip),
    }),
    ...(options.precision && { precision: options.precision }),
    ...(options.block !== undefined && { block: parseWhole('--block', options.block, 1) }),
  };
}
