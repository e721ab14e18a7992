import { Option } from 'commander';
import { parseWhole } from './arguments.js';
import type { Register } from './command.js';
import { UsageFailure } from './failure.js';
import { inspection, renderInspection } from './model-inspect.js';
import { showProgress } from './model-progress.js';
import { readPackage } from './package-dir.js';

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
    .action(async (source: string, options: { out: string; precision: 'fp32' | 'int8' | 'int4'; block?: string; slices?: string; name?: string }) => {
      const block = options.block === undefined ? undefined : parseWhole('--block', options.block, 1);
      if (block !== undefined && options.precision === 'fp32') throw new UsageFailure('--block: fp32 weights have no quantisation block');
      const { importCheckpoint, readSliceTable } = await import('@matfleet/inference');
      const table = options.slices === undefined ? undefined : await readSliceTable(options.slices);
      const progress = showProgress(output);
      try {
        await importCheckpoint({
          source,
          out: options.out,
          precision: options.precision,
          signal,
          onProgress: progress.update,
          ...(block && { block }),
          ...table,
          ...(options.name && { name: options.name }),
        });
      } finally {
        progress.stop();
      }
      output.result(inspection(await readPackage(options.out)), (document) => `${options.out}\n${renderInspection(document)}`);
    });
};
