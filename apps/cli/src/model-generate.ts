import type { GenerateOptions, GenerateResult, SamplingOptions } from '@matfleet/inference';
import { footprint, frontier, type Manifest } from '@matfleet/model';
import { parseIds, parseNumber, parseWhole } from './arguments.js';
import type { Register } from './command.js';
import { UsageFailure } from './failure.js';
import { readPackage } from './package-dir.js';

interface GenerateCommandOptions {
  readonly prompt?: string;
  readonly system?: string;
  readonly ids?: string;
  readonly slice?: string;
  readonly context?: string;
  readonly maxTokens?: string;
  readonly temperature?: string;
  readonly topK?: string;
  readonly topP?: string;
  readonly seed?: string;
}

export const registerGenerate: Register = (model, { output, signal }) => {
  model
    .command('generate')
    .description('answer a prompt with a model package, here, streaming')
    .argument('<dir>', 'a model package')
    .option('--prompt <text>', 'the user’s message, under the Gemma chat template')
    .option('--system <text>', 'put in front of the message')
    .option('--ids <ids>', 'token ids instead of a prompt, separated by commas, taken as they are')
    .option('--slice <id>', 'default: the best slice of the package')
    .option('--context <tokens>', 'prompt and answer together; default: the model’s limit, at most 4096')
    .option('--max-tokens <n>', 'default: what the context leaves')
    .option('--temperature <t>', 'sample instead of taking the likeliest token; unset fields then are 1, top-k 64, top-p 0.95')
    .option('--top-k <k>', 'sample among the k likeliest; 0: no limit')
    .option('--top-p <p>', 'sample among the likeliest that hold this probability; 1: no limit')
    .option('--seed <n>', 'makes sampling repeatable')
    .action(async (dir: string, options: GenerateCommandOptions) => {
      const promptIds = options.ids === undefined ? undefined : parseIds('--ids', options.ids);
      if ((promptIds === undefined) === (options.prompt === undefined)) throw new UsageFailure('give either --prompt or --ids');
      if (promptIds && options.system !== undefined) throw new UsageFailure('--system goes with --prompt');
      const generate = { ...generateOptions(options), signal };
      const contextTokens = options.context === undefined ? undefined : parseWhole('--context', options.context, 1);

      const { manifest, modelVersionId } = await readPackage(dir);
      const sliceId = options.slice ?? bestSlice(manifest);
      const limit = contextTokens ?? Math.min(DEFAULT_CONTEXT_TOKENS, manifest.config.maxPositionEmbeddings);
      const { openEngine } = await import('@matfleet/inference');
      const engine = await openEngine({ manifest, storeDir: dir, sliceId, contextTokens: limit, signal });
      try {
        const ids =
          promptIds ??
          engine.tokenize([
            ...(options.system === undefined ? [] : [{ role: 'system', text: options.system } as const]),
            { role: 'user', text: options.prompt! },
          ]);
        // Without a tokenizer in the package there is no text: ids are shown instead.
        const hasText = manifest.chunks.some(({ part }) => part.kind === 'tokenizer');
        const tokenIds: number[] = [];
        const tokens = engine.generate(ids, generate);
        let step = await tokens.next();
        for (; !step.done; step = await tokens.next()) {
          output.stream(hasText ? step.value.text : `${tokenIds.length > 0 ? ',' : ''}${step.value.tokenId}`);
          tokenIds.push(step.value.tokenId);
        }
        const answer: GenerateResult = step.value;
        if (answer.reason === 'cancelled') signal.throwIfAborted();
        output.result({ ...answer, tokenIds, sliceId, modelVersionId }, () => '');
        output.note(
          `${sliceId} · ${answer.promptTokens} + ${answer.outputTokens} tokens · first after ${answer.ttftMs.toFixed(0)} ms · ${answer.tokensPerSecond.toFixed(1)} tokens/s · ${answer.reason}`,
        );
      } finally {
        await engine.close();
      }
    });
};

const DEFAULT_CONTEXT_TOKENS = 4096;

/** The last of the frontier: the best there is, and the smallest of those. */
const bestSlice = (manifest: Manifest): string =>
  frontier(manifest.slices, { sizeOf: (slice) => footprint(manifest, slice, manifest.config.maxPositionEmbeddings).totalBytes }).at(-1)!.id;

/** Any sampling option switches sampling on. */
function generateOptions(options: GenerateCommandOptions): GenerateOptions {
  const sampling: SamplingOptions = {
    ...(options.temperature !== undefined && { temperature: parseNumber('--temperature', options.temperature, 0, 100) }),
    ...(options.topK !== undefined && { topK: parseWhole('--top-k', options.topK, 0) }),
    ...(options.topP !== undefined && { topP: parseNumber('--top-p', options.topP, 0, 1) }),
    ...(options.seed !== undefined && { seed: parseWhole('--seed', options.seed, 0) }),
  };
  return {
    ...(options.maxTokens !== undefined && { maxTokens: parseWhole('--max-tokens', options.maxTokens, 1) }),
    ...(Object.keys(sampling).length > 0 && { sampling }),
  };
}
