import { Option } from 'commander';
import { parseWhole } from './arguments.js';
import type { Register } from './command.js';
import { UsageFailure } from './failure.js';
import { inspection, renderInspection } from './model-inspect.js';
import { showProgress } from './model-progress.js';
import { readPackage } from './package-dir.js';

interface ImportCommandOptions {
  readonly out: string;
  readonly precision: 'fp32' | 'int8' | 'int4';
  readonly block?: string;
  readonly slices?: string;
  readonly name?: string;
  readonly threads?: string;
  readonly golden: boolean;
}

export const registerImport: Register = (model, { output, signal }) => {
  model
    .command('import')
    .description('make a model package from a Hugging Face checkpoint directory')
    .argument('<hf-dir>', 'config.json, safetensors, tokenizer.json')
    .requiredOption('--out <dir>', 'the new package; must not exist, appears complete or not at all')
    .addOption(new Option('--precision <kind>', 'of the weights').choices(['fp32', 'int8', 'int4']).makeOptionMandatory())
    .option('--block <n>', 'quantisation block: 32, 64 or 128 (int8 and int4)')
    .option(
      '--slices <file>',
      "slice table: a JSON list of slices, or {slices, evaluation}; default: the checkpoint's slices.json, Google's published table, or the full slice alone",
    )
    .option('--name <name>', "the model's name; default: the directory's")
    .option('--threads <n>', 'that encode weights; default: all cores, at most 4')
    .option(
      '--no-golden',
      'leave out the answers that a device must reproduce before it uses a slice; they take time, and twice the room of the weights on the disk meanwhile',
    )
    .action(async (source: string, options: ImportCommandOptions) => {
      const block = options.block === undefined ? undefined : parseWhole('--block', options.block, 1);
      if (block !== undefined && options.precision === 'fp32') throw new UsageFailure('--block: fp32 weights have no quantisation block');
      const threads = options.threads === undefined ? undefined : parseWhole('--threads', options.threads, 1);
      const { importCheckpoint, readSliceTable } = await import('@matfleet/inference');
      const table = options.slices === undefined ? undefined : await readSliceTable(options.slices);
      const progress = showProgress(output);
      try {
        await importCheckpoint({
          source,
          out: options.out,
          precision: options.precision,
          golden: options.golden,
          signal,
          onProgress: progress.update,
          ...(block && { block }),
          ...(threads && { threads }),
          ...table,
          ...(options.name && { name: options.name }),
        });
        progress.stop(true);
      } finally {
        progress.stop();
      }
      output.result(inspection(await readPackage(options.out)), (document) => `${options.out}\n${renderInspection(document)}`);
    });
};
