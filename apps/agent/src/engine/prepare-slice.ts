import { execFile, type ExecFileException } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { limitMemory, type MemoryLimit } from './memory-limit.js';

/** What `prepare-process.ts` is given. */
export interface PrepareTask {
  readonly storeDir: string;
  /** The slice to prepare, then those whose prepared weights stay. All others are removed. */
  readonly slices: readonly { readonly manifestPath: string; readonly sliceId: string }[];
  readonly threads?: number;
  /** Compare logits with the unpacked slice's, in its memory. */
  readonly compareLogits?: boolean;
}

export interface PrepareLimits {
  /** Of the slice's mapped matrices. */
  readonly mappedBytes: number;
  readonly largestMatrixBytes: number;
  readonly availableBytes: number;
  readonly timeoutMs?: number;
  readonly memoryLimit?: 'cgroup' | 'watchdog';
  readonly entry?: URL;
  readonly signal?: AbortSignal;
}

export interface PrepareOutcome {
  readonly made: boolean;
  readonly bytes: number;
  readonly ms: number;
}

const DEFAULT_TIMEOUT_MS = 300_000;
/** Node and ONNX Runtime, and the matrices that are packed together. */
const BASE_BYTES = 384 * 2 ** 20;
/** A large matrix comes alone: packed, and being copied. */
const LARGEST_FACTOR = 3;
/** The unpacked slice, whose logits are compared, packs its matrices in private memory. */
const UNPACKED_FACTOR = 1.5;
/** Each matrix as it is and packed, mapped and evictable; a watchdog cannot tell these pages from private ones. */
const PACKED_FILE_FACTOR = 2.5;
const RESULT_BYTES = 64 * 1024;

/**
 * Prepares a slice in a process of its own, bounded in memory and time. Undefined when there is nothing to prepare: matrices too small to be mapped.
 * Throws, naming the reason, when memory, disk or time do not suffice; the slice runs without, in more private memory. Where memory allows it, logits
 * are compared with those of the unpacked slice; the products of every matrix always are.
 */
export async function prepareSlice(task: PrepareTask, limits: PrepareLimits): Promise<PrepareOutcome | undefined> {
  const { mappedBytes, largestMatrixBytes, availableBytes, timeoutMs = DEFAULT_TIMEOUT_MS, signal } = limits;
  if (mappedBytes === 0) return undefined;
  const needed = BASE_BYTES + LARGEST_FACTOR * largestMatrixBytes;
  if (availableBytes < needed)
    throw new Error(`packing ${mb(mappedBytes)} of weights takes ${mb(needed)} of memory once, ${mb(availableBytes)} are available`);
  const compareLogits = availableBytes >= needed + UNPACKED_FACTOR * mappedBytes;
  const bound = needed + (compareLogits ? UNPACKED_FACTOR * mappedBytes : 0);
  const entry = fileURLToPath(limits.entry ?? new URL('./prepare-process.js', import.meta.url));
  let limit: MemoryLimit | undefined;
  try {
    return await new Promise<PrepareOutcome>((resolve, reject) => {
      const child = execFile(
        process.execPath,
        [entry],
        { timeout: timeoutMs, killSignal: 'SIGKILL', maxBuffer: RESULT_BYTES, env: {}, ...(signal && { signal }) },
        (error, stdout, stderr) => void settle(error, stdout, stderr.trim()),
      );
      // The task comes once the bound stands.
      const begin = async (pid: number): Promise<void> => {
        limit = await limitMemory(pid, bound, { kill: () => child.kill('SIGKILL'), ...(limits.memoryLimit && { prefer: limits.memoryLimit }) });
        if (limit.by === 'watchdog') await limit.setBytes(bound + PACKED_FILE_FACTOR * mappedBytes);
        child.stdin?.on('error', () => {}).end(JSON.stringify({ ...task, compareLogits } satisfies PrepareTask));
      };
      if (child.pid !== undefined) begin(child.pid).catch(reject);

      async function settle(error: ExecFileException | null, stdout: string, said: string): Promise<void> {
        const overLimit = (await limit?.exceeded().catch(() => false)) ?? false;
        if (!error) return resolve(JSON.parse(stdout) as PrepareOutcome);
        const ended = overLimit
          ? `passed its memory limit of ${mb(limit!.bytes())} (${limit!.by})`
          : error.killed
            ? `was not done within ${timeoutMs} ms`
            : error.signal
              ? `was ended by ${error.signal}`
              : `ended with code ${error.code}`;
        reject(new Error(said && !overLimit ? said : `the prepare process ${ended}`, { cause: error }));
      }
    });
  } finally {
    await limit?.release().catch(() => {});
  }
}

const mb = (bytes: number): string => `${Math.round(bytes / 1e6)} MB`;
