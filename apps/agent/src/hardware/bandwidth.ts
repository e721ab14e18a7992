import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const TIMEOUT_MS = 10_000;

/** Sequential read of main memory by one core, bytes per second, measured for about 300 ms in a process of its own. */
export function probeMemoryBandwidth(entry: URL = new URL('./bandwidth-process.js', import.meta.url)): Promise<number> {
  return new Promise((resolve, reject) =>
    execFile(process.execPath, [fileURLToPath(entry)], { timeout: TIMEOUT_MS, env: {} }, (error, stdout) => {
      const bytesPerSecond = Number(stdout);
      if (!error && bytesPerSecond > 0) resolve(bytesPerSecond);
      else
        reject(new Error(`memory bandwidth could not be measured: ${error?.message ?? `the probe said "${stdout}"`}`, { cause: error ?? undefined }));
    }),
  );
}
