import type { PublishedShape } from '@matfleet/model';
import { Option } from 'commander';
import { parseWhole } from './arguments.js';
import type { Register } from './command.js';
import { UsageFailure } from './failure.js';
import { inspection, renderInspection } from './model-inspect.js';
import { showProgress } from './model-progress.js';
import { readPackage } from './package-dir.js';

interface Options {
  shape: PublishedShape;
  out: string;
  precision?: 'fp32' | 'int8' | 'int4';
  block?: string;
  seed: string;
  checkpoint?: boolean;
}

export const registerSynth: Register = (model, { output, signal }) => {
  model
    .command('synth')
    .description('make a package of a published shape with random weights, to measure speed and memory; its answers mean nothing')
    .addOption(new Option('--shape <shape>', 'whose layers and widths').choices(['e2b', 'e4b']).makeOptionMandatory())
    .requiredOption('--out <dir>', 'the new directory; must not exist, appears complete or not at all')
    .addOption(new Option('--precision <kind>', 'of the weights (default: int4)').choices(['fp32', 'int8', 'int4']))
    .option('--block <n>', 'quantisation block: 32, 64 or 128 (default: 64)')
    .option('--seed <n>', 'equal seeds give equal weights', '1')
    .option('--checkpoint', 'write the same weights as a published checkpoint instead: bfloat16 safetensors in shards')
    .action(async ({ shape, out, precision, block, seed, checkpoint }: Options) => {
      if (checkpoint && (precision || block)) throw new UsageFailure('--checkpoint is always bfloat16: leave out --precision and --block');
      const { synthCheckpoint, synthPackage } = await import('@matfleet/inference');
      const progress = showProgress(output);
      const terms = { shape, out, seed: parseWhole('--seed', seed, 0), signal, onProgress: progress.update };
      try {
        if (checkpoint) await synthCheckpoint(terms);
        else await synthPackage({ ...terms, precision: precision ?? 'int4', ...(block !== undefined && { block: parseWhole('--block', block, 1) }) });
        progress.stop(true);
      } finally {
        progress.stop();
      }
      if (checkpoint) output.result({ checkpoint: out }, () => out);
      else output.result(inspection(await readPackage(out)), (document) => `${out}\n${renderInspection(document)}`);
    });
};
