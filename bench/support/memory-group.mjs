// A memory cgroup for one command, version 1 or 2, whichever is writable (Linux, as a user who may make one).
import { spawn } from 'node:child_process';
import { mkdir, readFile, rmdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

const FILES = {
  1: { limit: 'memory.limit_in_bytes', peak: 'memory.max_usage_in_bytes', events: 'memory.oom_control' },
  2: { limit: 'memory.max', peak: 'memory.peak', events: 'memory.events' },
};

/** Mount points of the memory controller, from `/proc/self/mountinfo`. */
async function places() {
  const mounts = (await readFile('/proc/self/mountinfo', 'utf8')).split('\n').filter(Boolean);
  return mounts.flatMap((line) => {
    const [before, after] = line.split(' - ');
    const point = before.split(' ')[4];
    const [type, , options] = after.split(' ');
    if (type === 'cgroup' && options.split(',').includes('memory')) return [{ version: 1, point }];
    return type === 'cgroup2' ? [{ version: 2, point }] : [];
  });
}

async function makeGroup(bytes) {
  const refused = [];
  for (const { version, point } of await places()) {
    const path = join(point, `matfleet-bench-${process.pid}`);
    try {
      if (version === 2 && !(await readFile(join(point, 'cgroup.subtree_control'), 'utf8')).split(/\s+/).includes('memory'))
        await writeFile(join(point, 'cgroup.subtree_control'), '+memory');
      await mkdir(path);
      await writeFile(join(path, FILES[version].limit), String(bytes));
      return { version, path };
    } catch (error) {
      await rmdir(path).catch(() => undefined);
      refused.push(`version ${version} at ${point}: ${error.message}`);
    }
  }
  throw new Error(`--memory-limit: no memory cgroup can be made here. ${refused.join('; ') || 'None is mounted'}`);
}

/** Runs a command inside a group of so many bytes, from its first instruction on. Throws, with the numbers, where it does not end well. */
export async function runInMemoryGroup(bytes, program, args, timeoutMs) {
  const { version, path } = await makeGroup(bytes);
  try {
    const child = spawn('sh', ['-c', 'echo $$ > "$0/cgroup.procs" && exec "$@"', path, program, ...args], {
      stdio: ['ignore', 'pipe', 'inherit'],
      timeout: timeoutMs,
      killSignal: 'SIGKILL',
    });
    let stdout = '';
    child.stdout.setEncoding('utf8').on('data', (text) => (stdout += text));
    const [code, signal] = await new Promise((resolve, reject) => child.on('error', reject).on('close', (...how) => resolve(how)));
    const read = async (name) => readFile(join(path, FILES[version][name]), 'utf8').catch(() => '');
    const kills = Number(/^oom_kill (\d+)$/m.exec(await read('events'))?.[1] ?? 0);
    if (code !== 0)
      throw new Error(
        `under a limit of ${(bytes / 1e6).toFixed(0)} MB the engine ended with ${signal ?? code}; the kernel killed ${kills} for memory`,
      );
    return { stdout, group: { version, limitBytes: bytes, peakBytes: Number(await read('peak')) || undefined, kills } };
  } finally {
    for (let attempt = 0; attempt < 20; attempt++)
      if (
        await rmdir(path).then(
          () => true,
          () => new Promise((resolve) => setTimeout(resolve, 50, false)),
        )
      )
        break;
  }
}
