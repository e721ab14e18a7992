import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { env, InferenceSession, Tensor } from 'onnxruntime-node';
import type { Provider } from './kernels.js';
import { placementOf, type Placement } from './placement.js';
import { isAboutProvider, ProviderUnavailable } from './provider-unavailable.js';

// The only importer of onnxruntime-node.

export type { Tensor };
export type Feeds = Record<string, Tensor>;

/** The version of ONNX Runtime, for example "1.30.0". */
export const runtime = { version: env.versions.node ?? '' } as const;

/** Name of an output that the binding cannot hand over. */
export const UNREADABLE = 'unreadable';
const UNREADABLE_MESSAGE = 'Non tensor type is temporarily not supported.';

export interface SessionOptions {
  readonly threads: number;
  /** Folder that gets `graph.onnx` and its weights, packed for this processor, beside it. */
  readonly saveTo?: string;
  /** How an operator's threads wait for the next one; `pass` by default. */
  readonly spinning?: Spinning;
  /** What the operators run on, as far as it has kernels for them; `cpu` by default. */
  readonly provider?: Provider;
  /** Note which provider computes what, until `placement` is asked for. */
  readonly observed?: boolean;
  /** Outputs that stay with WebGPU. */
  readonly kept?: readonly string[];
}

/** Busily never, inside a pass only, or between two passes too. */
export type Spinning = 'never' | 'pass' | 'always';

/** Loads a graph from its bytes, or from a file whose external data lies beside it. Throws `ProviderUnavailable` where the machine lacks the provider. */
export async function createSession(
  graph: Uint8Array | string,
  { threads, saveTo, spinning = 'pass', provider = 'cpu', observed = false, kept = [] }: SessionOptions,
): Promise<Session> {
  const profileDir = observed ? await mkdtemp(join(tmpdir(), 'matfleet-profile-')) : undefined;
  const options: InferenceSession.SessionOptions = {
    executionProviders: [provider],
    intraOpNumThreads: threads,
    interOpNumThreads: 1,
    executionMode: 'sequential',
    graphOptimizationLevel: 'all',
    logSeverityLevel: 3,
    // An arena keeps what the longest prompt once needed; without it decoding is as fast and the memory comes back.
    enableCpuMemArena: false,
    ...(kept.length > 0 && { preferredOutputLocation: Object.fromEntries(kept.map((name) => [name, 'gpu-buffer' as const])) }),
    ...(saveTo !== undefined && { optimizedModelFilePath: join(saveTo, 'graph.onnx') }),
    ...(profileDir !== undefined && { enableProfiling: true, profileFilePrefix: join(profileDir, 'pass') }),
    extra: {
      session: {
        // Threads that wait idly between two passes leave the cores to other slices' sessions and the box's own work.
        force_spinning_stop: spinning === 'always' ? '0' : '1',
        intra_op: { allow_spinning: spinning === 'never' ? '0' : '1' },
        ...(saveTo !== undefined && {
          save_external_prepacked_constant_initializers: '1',
          optimized_model_external_initializers_file_name: 'weights.bin',
        }),
      },
    },
  };
  try {
    const session = typeof graph === 'string' ? await InferenceSession.create(graph, options) : await InferenceSession.create(graph, options);
    return new Session(session, profileDir);
  } catch (error) {
    if (profileDir !== undefined) await rm(profileDir, { recursive: true, force: true });
    if (provider !== 'cpu' && isAboutProvider(String(error))) throw new ProviderUnavailable(provider, { cause: error });
    throw error;
  }
}

/** A loaded graph. */
export class Session {
  constructor(
    private readonly session: InferenceSession,
    private profileDir?: string,
  ) {}

  get inputNames(): readonly string[] {
    return this.session.inputNames;
  }

  get outputNames(): readonly string[] {
    return this.session.outputNames;
  }

  async run(feeds: Feeds): Promise<Record<string, Tensor>> {
    return (await this.session.run(feeds)) as Record<string, Tensor>;
  }

  /**
   * Writes every output into the caller's tensor of its name, which may be one of `feeds`. Only for graphs whose first output is `UNREADABLE`: the
   * binding for Node (1.30.0) copies each output into a new array after the pass, also those that the caller bound. At E2B that is up to 100 MB per
   * token. Here it stops at the first.
   */
  async runInto(feeds: Feeds, into: Feeds): Promise<void> {
    const [first, ...names] = this.session.outputNames;
    const unbound = names.find((name) => !into[name]);
    if (first !== UNREADABLE || unbound !== undefined) throw new Error(`output ${unbound ?? first} is bound to no tensor`);
    try {
      await this.session.run(feeds, { [UNREADABLE]: null, ...into });
    } catch (error) {
      if ((error as Error).message !== UNREADABLE_MESSAGE) throw error;
    }
  }

  /** Which provider computed what since the session was opened; ends the observation. Only where it was opened as `observed`. */
  async placement(): Promise<Placement> {
    const dir = this.profileDir;
    if (dir === undefined) throw new Error('the session is not observed');
    this.profileDir = undefined;
    try {
      this.session.endProfiling();
      const [file] = await readdir(dir);
      if (file === undefined) throw new Error(`ONNX Runtime wrote no profile into ${dir}`);
      return placementOf(await readFile(join(dir, file), 'utf8'));
    } finally {
      await rm(dir, { recursive: true, force: true });
    }
  }

  async close(): Promise<void> {
    if (this.profileDir !== undefined) await this.placement().catch(() => undefined);
    await this.session.release();
  }
}

export const float32 = (values: Float32Array, shape: readonly number[]): Tensor => new Tensor('float32', values, shape);
export const int64 = (values: readonly number[]): Tensor => new Tensor('int64', BigInt64Array.from(values, BigInt), [values.length]);
/** A scalar, or a list of one. */
export const int32 = (value: number, shape: readonly number[]): Tensor => new Tensor('int32', Int32Array.of(value), shape);
/** Whether it lies with the accelerator. */
export const isKept = (tensor: Tensor): boolean => tensor.location === 'gpu-buffer';
export const floatsOf = (tensor: Tensor): Float32Array => tensor.data as Float32Array;
export const intsOf = (tensor: Tensor): number[] => Array.from(tensor.data as BigInt64Array, Number);
