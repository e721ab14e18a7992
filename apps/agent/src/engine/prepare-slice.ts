import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';

/** What `prepare-process.ts` is given. */
export interface PrepareTask {
  readonly storeDir: string;
  /** The slice to prepare, then those whose prepared weights stay. All others are removed. */
  readonly slices: readonly { readonly manifestPath: string; readonly sliceId: string }[];
  readonly threads?: number;
}

export interface PrepareLimits {
  /** Of the slice's mapped matrices. */
  readonly mappedBytes: number;
  readonly availableBytes: number;
  readonly timeoutMs?: number;
  readonly entry?: URL;
  readonly signal?: AbortSignal;
}

export interface PrepareOutcome {
  readonly made: boolean;
  readonly bytes: number;
  readonly ms: number;
}

const DEFAULT_TIMEOUT_MS = 300_000;
/** Packed weights in private memory, the raw ones beside them while they are read. */
const MEMORY_FACTOR = 1.5;
const RESULT_BYTES = 64 * 1024;

/**
 * Prepares a slice in a process of its own. Undefined when there is nothing to prepare: matrices too small to be mapped. Throws, naming the reason, when
 * memory, disk or time do not suffice; the slice runs without, in more private memory.
 */
export async function prepareSlice(task: PrepareTask, limits: PrepareLimits): Promise<PrepareOutcome | undefined> {
  const { mappedBytes, availableBytes, timeoutMs = DEFAULT_TIMEOUT_MS, signal } = limits;
  if (mappedBytes === 0) return undefined;
  const mb = (bytes: number): string => `${Math.round(bytes / 1e6)} MB`;
  if (availableBytes < MEMORY_FACTOR * mappedBytes)
    throw new Error(
      `packing ${mb(mappedBytes)} of weights takes ${mb(MEMORY_FACTOR * mappedBytes)} of memory once, ${mb(availableBytes)} are available`,
    );
  const entry = fileURLToPath(limits.entry ?? new URL('./prepare-process.js', import.meta.url));
  return new Promise((resolve, reject) =>
    execFile(
      process.execPath,
      [entry, JSON.stringify(task)],
      { timeout: timeoutMs, killSignal: 'SIGKILL', maxBuffer: RESULT_BYTES, env: {}, ...(signal && { signal }) },
      (error, stdout, stderr) => {
        if (!error) return resolve(JSON.parse(stdout) as PrepareOutcome);
        const ended = error.killed
          ? `was not done within ${timeoutMs} ms`
          : error.signal
            ? `was ended by ${error.signal}`
            : `ended with code ${error.code}`;
        const said = stderr.trim();
        reject(new Error(said ? said : `the prepare process ${ended}`, { cause: error }));
      },
    ),
  );
}
