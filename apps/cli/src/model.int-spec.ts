import { execFile, spawn } from 'node:child_process';
import { copyFile, mkdir, mkdtemp, readdir, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';

const BIN = new URL('../bin/matfleet.mjs', import.meta.url).pathname;
const TOKENIZER = new URL('../../../libs/inference/fixtures/tokenizer/small-tokenizer.json', import.meta.url).pathname;

let dir: string;
const at = (name: string) => join(dir, name);
const run = (...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> =>
  new Promise((resolve) => {
    execFile(process.execPath, [BIN, ...args], { timeout: 50_000, maxBuffer: 1 << 26 }, (error, stdout, stderr) =>
      resolve({ code: error ? Number(error.code) : 0, stdout, stderr }),
    );
  });
/** Runs with --json and parses stdout as the one document it must be. */
const json = async (...args: string[]) => {
  const { code, stdout } = await run(...args, '--json');
  return { code, document: JSON.parse(stdout) };
};

const IDS = '2,9,300,41,500,7,11,260,33,90,4,12';
const LOGITS = ['model', 'logits'];

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'matfleet-cli-'));
  await writeCheckpoint(at('hf'), { tokenizer: true });
  await writeCheckpoint(at('hf-bare'), { tokenizer: false });
  await writeFile(
    at('slices.json'),
    JSON.stringify({
      slices: [
        { id: 'small', name: 'Small', ffn: [16, 16], skip: [2, 3], quality: { value: 0.5, samples: 100, stderr: 0.05 } },
        {
          id: 'full',
          name: 'Full',
          ffn: [64, 64, 64, 64],
          skip: [],
          quality: { value: 0.9, samples: 100, stderr: 0.03 },
          tasks: { greet: { value: 1, samples: 10, stderr: 0 } },
        },
      ],
      evaluation: { metric: 'exact match', dataset: 'made up' },
    }),
  );
  expect(
    (await run('model', 'import', at('hf'), '--out', at('fp32'), '--precision', 'fp32', '--slices', at('slices.json'), '--name', 'tiny')).code,
  ).toBe(0);
});
afterAll(() => rm(dir, { recursive: true }));

describe('usage', () => {
  it.each([
    [[], 'a command is missing'],
    [['model', 'bogus'], "unknown command 'bogus'"],
    [['model', 'import', 'x', '--out', 'y'], "required option '--precision <kind>'"],
    [['model', 'import', 'x', '--out', 'y', '--precision', 'int3'], "argument 'int3' is invalid"],
    [['model', 'logits', 'x', '--ids', '1,b'], '--ids: "b" is not a whole number'],
    [['model', 'logits', 'x', '--ids', '1,2', '--prefill', '3'], '--prefill 3 is more than the 2 ids given'],
    [['model', 'logits', 'x', '--ids', '1', '--skip', '3'], '--skip needs --ffn'],
    [['model', 'generate', 'x'], 'give either --prompt or --ids'],
  ])('%j exits with 2 and says what is wrong, with --json on stdout', async (args, message) => {
    const { code, stdout, stderr } = await run(...args, '--json');
    const { error } = JSON.parse(stdout);
    expect([code, error.code]).toEqual([2, 'usage']);
    expect(error.message).toContain(message);
    expect(stderr).not.toBe('');
  });

  it('keeps stdout empty without --json when the command line is wrong', async () => {
    expect(await run('model', 'logits', 'x', '--ids', '1,b')).toMatchObject({ code: 2, stdout: '', stderr: expect.stringContaining('--ids: "b"') });
  });

  it('prints help on stdout and exits with 0', async () => {
    const { code, stdout } = await run('model', 'logits', '--help');
    expect(code).toBe(0);
    expect(stdout).toContain('--prefill <n>');
    expect((await json('model', 'logits', '--help')).document.help).toContain('--prefill <n>');
  });
});

describe('matfleet model import and inspect', () => {
  it('names the package, its slices, bytes and qualities', async () => {
    const { code, document } = await json('model', 'inspect', at('fp32'));
    expect(code).toBe(0);
    expect(document).toMatchObject({
      name: 'tiny',
      layers: 4,
      vocabSize: 768,
      precision: { kind: 'fp32', block: null },
      evaluation: { dataset: 'made up' },
    });
    expect(document.slices.map((slice: { id: string }) => slice.id)).toEqual(['small', 'full']);
    const [small, full] = document.slices;
    expect(full).toMatchObject({ quality: { value: 0.9, samples: 100 }, tasks: { greet: { value: 1 } }, frontier: true });
    expect(small.footprint.downloadBytes).toBeLessThan(full.footprint.downloadBytes);
    expect(full.footprint.downloadBytes).toBe(document.bytes);
    const files = await readdir(join(at('fp32'), 'chunks'));
    expect(files.filter((name) => /^[0-9a-f]{64}$/.test(name))).toHaveLength(document.chunks);
  });

  it('shows the same as a table', async () => {
    const { stdout } = await run('model', 'inspect', at('fp32'));
    expect(stdout).toMatch(/^small +2 +16x2 +2,3 .* 50\.0 % ± 5\.0 +yes$/m);
  });

  it.each(['int8', 'int4'])('makes a smaller package in %s and reports progress on stderr only', async (precision) => {
    const { code, stdout, stderr } = await run(
      'model',
      'import',
      at('hf'),
      '--out',
      at(precision),
      '--precision',
      precision,
      '--block',
      '32',
      '--json',
    );
    expect([code, JSON.parse(stdout).precision]).toEqual([0, { kind: precision, block: 32 }]);
    expect(stderr).toMatch(/^weights: \d+/m);
    expect(JSON.parse(stdout).bytes).toBeLessThan((await json('model', 'inspect', at('fp32'))).document.bytes / 2);
  });

  it('refuses an output that exists and leaves it alone', async () => {
    const { code, document } = await json('model', 'import', at('hf'), '--out', at('fp32'), '--precision', 'int8');
    expect(code).toBe(1);
    expect(document.error.message).toContain(at('fp32'));
    expect((await json('model', 'inspect', at('fp32'))).document.precision.kind).toBe('fp32');
  });

  it('leaves nothing behind when a shard is truncated, and names the file', async () => {
    await writeCheckpoint(at('hf-short'), { tokenizer: true });
    await truncate(join(at('hf-short'), 'model.safetensors'), 100_000);
    const before = await readdir(dir);
    const { code, document } = await json('model', 'import', at('hf-short'), '--out', at('short'), '--precision', 'int8');
    expect(code).toBe(1);
    expect(document.error.message).toContain('model.safetensors');
    expect(await readdir(dir)).toEqual(before);
  });

  it('leaves nothing behind at Ctrl-C', async () => {
    const before = await readdir(dir);
    const child = spawn(process.execPath, [BIN, 'model', 'import', at('hf'), '--out', at('interrupted'), '--precision', 'int8'], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    child.stderr.once('data', () => child.kill('SIGINT'));
    const code = await new Promise((resolve) => child.once('exit', resolve));
    expect(code).toBe(130);
    expect(await readdir(dir)).toEqual(before);
  });

  it('says which field of a slice table is wrong', async () => {
    await writeFile(at('bad-slices.json'), JSON.stringify([{ id: 'a', name: 'A', ffn: [0], skip: [] }]));
    const { code, document } = await json(
      'model',
      'import',
      at('hf'),
      '--out',
      at('never'),
      '--precision',
      'int8',
      '--slices',
      at('bad-slices.json'),
    );
    expect(code).toBe(1);
    expect(document.error.message).toMatch(/bad-slices\.json.*slices\[0\]\.ffn\[0\]/s);
  });
});

describe('matfleet model logits', () => {
  it('gives one row of every vocabulary entry per position, the same from a checkpoint and from its package', async () => {
    const bare = (await json(...LOGITS, at('hf-bare'), '--ids', IDS)).document.logits as number[][];
    expect([bare.length, bare[0]!.length]).toEqual([12, 768]);
    const packaged = (await json(...LOGITS, at('fp32'), '--ids', IDS, '--slice', 'full')).document.logits;
    expect(difference(packaged, bare)).toBeLessThan(1e-4);
  });

  it('agrees with itself from the cache and through the prefill cut', async () => {
    const full = (await json(...LOGITS, at('hf'), '--ids', IDS, '--ffn', '64x2,32', '--skip', '2')).document.logits as number[][];
    const cached = (await json(...LOGITS, at('hf'), '--ids', IDS, '--ffn', '64x2,32', '--skip', '2', '--prefill', '5')).document.logits as number[][];
    const last = (await json(...LOGITS, at('hf'), '--ids', IDS, '--ffn', '64x2,32', '--skip', '2', '--last')).document.logits as number[][];
    expect(difference(cached, full)).toBeLessThan(1e-4);
    expect(difference(last, full.slice(-1))).toBeLessThan(1e-4);
  });

  it.each([
    ['a list of widths that is too short', ['--ffn', '64x3'], /3 FFN widths for 4 kept layers/],
    ['a skipped layer that others read K/V from', ['--ffn', '64x3', '--skip', '1'], /layer 1 cannot be skipped/],
    ['a skipped layer that does not exist', ['--ffn', '64x3', '--skip', '7'], /layer 7/],
    ['a width above the model’s', ['--ffn', '64x3,128'], /128/],
    ['an unknown slice', ['--slice', 'nope'], /nope/],
  ])('refuses %s', async (_what, args, message) => {
    const { code, document } = await json(...LOGITS, at('hf'), '--ids', '2,5', ...args);
    expect(code).toBe(1);
    expect(document.error.message).toMatch(message);
  });

  it('refuses an id outside the vocabulary, naming both numbers', async () => {
    const { code, document } = await json(...LOGITS, at('hf'), '--ids', '2,768');
    expect(code).toBe(1);
    expect(document.error.message).toMatch(/768/);
  });
});

describe('matfleet model generate', () => {
  it('continues ids without a tokenizer, and repeats itself', async () => {
    expect((await run('model', 'import', at('hf-bare'), '--out', at('bare'), '--precision', 'fp32')).code).toBe(0);
    const first = await json('model', 'generate', at('bare'), '--ids', IDS, '--max-tokens', '6');
    expect([first.code, first.document.tokenIds.length, first.document.promptTokens]).toEqual([0, first.document.outputTokens, 12]);
    expect(first.document.tokenIds.length).toBeGreaterThan(0);
    const again = await run('model', 'generate', at('bare'), '--ids', IDS, '--max-tokens', '6');
    expect(again.stdout).toBe(`${first.document.tokenIds.join()}\n`);
    expect(again.stderr).toContain('tokens/s');
  });

  it('answers a prompt with text, the same streamed as in the document', async () => {
    const { document } = await json('model', 'generate', at('fp32'), '--prompt', 'hello', '--max-tokens', '12', '--slice', 'small');
    expect(document).toMatchObject({ sliceId: 'small', reason: expect.stringMatching(/^(stop|max-tokens)$/) });
    const { stdout } = await run('model', 'generate', at('fp32'), '--prompt', 'hello', '--max-tokens', '12', '--slice', 'small');
    expect(stdout).toBe(`${document.text}\n`);
  });

  it('takes the best slice by default and samples repeatably with a seed', async () => {
    const sample = async (seed: string) =>
      (await json('model', 'generate', at('fp32'), '--ids', IDS, '--max-tokens', '16', '--temperature', '3', '--top-k', '0', '--seed', seed))
        .document;
    const [a, b, c] = [await sample('1'), await sample('1'), await sample('2')];
    expect(a.sliceId).toBe('full');
    expect(a.tokenIds).toEqual(b.tokenIds);
    expect(a.tokenIds).not.toEqual(c.tokenIds);
  });

  it('says that a prompt needs a tokenizer', async () => {
    const { code, document } = await json('model', 'generate', at('bare'), '--prompt', 'hello');
    expect(code).toBe(1);
    expect(document.error.message).toMatch(/tokenizer/);
  });

  it('names the slices there are', async () => {
    const { document } = await json('model', 'generate', at('fp32'), '--ids', '2', '--slice', 'huge');
    expect(document.error.message).toMatch(/huge.*small, full/);
  });

  it('says that a checkpoint must be imported first', async () => {
    const { code, document } = await json('model', 'generate', at('hf'), '--ids', '2');
    expect([code, document.error.code]).toEqual([1, 'not-a-package']);
  });
});

function difference(a: number[][], b: number[][]): number {
  expect([a.length, a[0]!.length]).toEqual([b.length, b[0]!.length]);
  return Math.max(...a.flatMap((row, i) => row.map((value, j) => Math.abs(value - b[i]![j]!))));
}

/** A Gemma 3n of 4 layers with random weights in the published layout; layers 2 and 3 read the K/V of layers 0 and 1. */
async function writeCheckpoint(path: string, { tokenizer }: { tokenizer: boolean }): Promise<void> {
  const [L, V, D, P, F, H, K, d, R] = [4, 768, 32, 8, 64, 2, 1, 16, 4];
  const config = {
    model_type: 'gemma3n_text',
    architectures: ['Gemma3nForCausalLM'],
    vocab_size: V,
    vocab_size_per_layer_input: V,
    hidden_size: D,
    hidden_size_per_layer_input: P,
    intermediate_size: Array(L).fill(F),
    num_hidden_layers: L,
    num_attention_heads: H,
    num_key_value_heads: K,
    head_dim: d,
    layer_types: ['sliding_attention', 'full_attention', 'sliding_attention', 'full_attention'],
    sliding_window: 5,
    num_kv_shared_layers: 2,
    laurel_rank: R,
    altup_num_inputs: 4,
    altup_active_idx: 0,
    altup_coef_clip: 120,
    altup_correct_scale: true,
    activation_sparsity_pattern: [0.5, 0, 0, 0],
    rope_parameters: { full_attention: { rope_theta: 1e6, rope_type: 'default' }, sliding_attention: { rope_theta: 1e4, rope_type: 'default' } },
    rms_norm_eps: 1e-6,
    final_logit_softcapping: 30,
    max_position_embeddings: 128,
    hidden_activation: 'gelu_pytorch_tanh',
    tie_word_embeddings: true,
    pad_token_id: 0,
    bos_token_id: 2,
    eos_token_id: 1,
  };
  const shapes: Record<string, number[]> = {
    'embed_tokens.weight': [V, D],
    'embed_tokens_per_layer.weight': [V, L * P],
    'per_layer_model_projection.weight': [L * P, D],
    'per_layer_projection_norm.weight': [P],
    'norm.weight': [D],
  };
  for (let i = 0; i < 3; i++) for (const name of ['altup_projections', 'altup_unembed_projections']) shapes[`${name}.${i}.weight`] = [D, D];
  for (let l = 0; l < L; l++) {
    const layer: Record<string, number[]> = {
      'self_attn.q_proj.weight': [H * d, D],
      'self_attn.o_proj.weight': [D, H * d],
      'self_attn.k_proj.weight': [K * d, D],
      'self_attn.v_proj.weight': [K * d, D],
      'self_attn.q_norm.weight': [d],
      'self_attn.k_norm.weight': [d],
      'mlp.gate_proj.weight': [F, D],
      'mlp.up_proj.weight': [F, D],
      'mlp.down_proj.weight': [D, F],
      'laurel.linear_left.weight': [R, D],
      'laurel.linear_right.weight': [D, R],
      'laurel.post_laurel_norm.weight': [D],
      'altup.correct_output_scale': [D],
      'altup.correction_coefs.weight': [4, 4],
      'altup.prediction_coefs.weight': [16, 4],
      'altup.modality_router.weight': [4, D],
      'altup.router_norm.weight': [D],
      'per_layer_input_gate.weight': [P, D],
      'per_layer_projection.weight': [D, P],
    };
    for (const norm of [
      'input_layernorm',
      'post_attention_layernorm',
      'pre_feedforward_layernorm',
      'post_feedforward_layernorm',
      'post_per_layer_input_norm',
    ])
      layer[`${norm}.weight`] = [D];
    for (const [name, shape] of Object.entries(layer)) shapes[`layers.${l}.${name}`] = shape;
  }
  let state = 12345;
  const random = () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32 - 0.5;
  const header: Record<string, unknown> = {};
  const data: Buffer[] = [];
  let offset = 0;
  for (const [name, shape] of Object.entries(shapes)) {
    const values = Float32Array.from({ length: shape.reduce((a, b) => a * b) }, () => (shape.length === 1 ? 1 + 0.6 * random() : 0.9 * random()));
    header[`model.${name}`] = { dtype: 'F32', shape, data_offsets: [offset, (offset += values.byteLength)] };
    data.push(Buffer.from(values.buffer));
  }
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  await mkdir(path);
  await writeFile(join(path, 'config.json'), JSON.stringify(config));
  await writeFile(join(path, 'model.safetensors'), Buffer.concat([length, text, ...data]));
  if (tokenizer) await copyFile(TOKENIZER, join(path, 'tokenizer.json'));
}
