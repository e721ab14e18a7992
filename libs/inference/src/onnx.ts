import { join } from 'node:path';
import { env, InferenceSession, Tensor } from 'onnxruntime-node';

// The only importer of onnxruntime-node.

export type { Tensor };
export type Feeds = Record<string, Tensor>;

/** What every session runs on: the version of ONNX Runtime, for example "1.30.0", and its execution providers in order of preference. */
export const runtime = { version: env.versions.node ?? '', executionProviders: ['cpu'] } as const;

/** Name of an output that the binding cannot hand over. */
export const UNREADABLE = 'unreadable';
const UNREADABLE_MESSAGE = 'Non tensor type is temporarily not supported.';

export interface SessionOptions {
  readonly threads: number;
  /** Folder that gets `graph.onnx` and its weights, packed for this processor, beside it. */
  readonly saveTo?: string;
  /** How an operator's threads wait for the next one; `pass` by default. */
  readonly spinning?: Spinning;
}

/** Busily never, inside a pass only, or between two passes too. */
export type Spinning = 'never' | 'pass' | 'always';

/** Loads a graph from its bytes, or from a file whose external data lies beside it. */
export async function createSession(graph: Uint8Array | string, { threads, saveTo, spinning = 'pass' }: SessionOptions): Promise<Session> {
  const options: InferenceSession.SessionOptions = {
    executionProviders: runtime.executionProviders,
    intraOpNumThreads: threads,
    interOpNumThreads: 1,
    executionMode: 'sequential',
    graphOptimizationLevel: 'all',
    logSeverityLevel: 3,
    // An arena keeps what the longest prompt once needed; without it decoding is as fast and the memory comes back.
    enableCpuMemArena: false,
    ...(saveTo !== undefined && { optimizedModelFilePath: join(saveTo, 'graph.onnx') }),
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
  const session = typeof graph === 'string' ? await InferenceSession.create(graph, options) : await InferenceSession.create(graph, options);
  return new Session(session);
}

/** A loaded graph. */
export class Session {
  constructor(private readonly session: InferenceSession) {}

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

  async close(): Promise<void> {
    await this.session.release();
  }
}

export const float32 = (values: Float32Array, shape: readonly number[]): Tensor => new Tensor('float32', values, shape);
export const int64 = (values: readonly number[]): Tensor => new Tensor('int64', BigInt64Array.from(values, BigInt), [values.length]);
/** A scalar, or a list of one. */
export const int32 = (value: number, shape: readonly number[]): Tensor => new Tensor('int32', Int32Array.of(value), shape);
export const floatsOf = (tensor: Tensor): Float32Array => tensor.data as Float32Array;
export const intsOf = (tensor: Tensor): number[] => Array.from(tensor.data as BigInt64Array, Number);
