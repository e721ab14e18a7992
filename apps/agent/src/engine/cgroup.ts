import { mkdir, readdir, readFile, rmdir, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';

/** Where a process stands in the memory controller's hierarchy. */
export interface CgroupPlace {
  readonly version: 1 | 2;
  /** Mount point of the hierarchy. */
  readonly mount: string;
  /** The process's own group, an absolute path under `mount`. */
  readonly group: string;
}

/** A group of one process, with a bound on the memory it may hold. */
export interface MemoryGroup {
  readonly version: 1 | 2;
  setLimit(bytes: number): Promise<void>;
  /** Times that the kernel killed a process of this group for its bound. */
  kills(): Promise<number>;
  /** Removes the group; its process must have ended. */
  remove(): Promise<void>;
}

const GROUP_PREFIX = 'matfleet-engine-';

/** Reads `/proc/<pid>/cgroup` and `/proc/<pid>/mountinfo` texts; undefined where no memory controller is mounted. */
export function memoryCgroup(cgroupText: string, mountinfoText: string): CgroupPlace | undefined {
  const mounts = mountinfoText.split('\n').flatMap((line) => {
    // `36 25 0:31 <root> <mount point> <options> … - <type> <source> <super options>`
    const [before, after] = line.split(' - ');
    if (!before || !after) return [];
    const fields = before.split(' ');
    const [type, , superOptions = ''] = after.split(' ');
    return [{ root: fields[3] ?? '/', point: unescapeMount(fields[4] ?? ''), type, options: superOptions.split(',') }];
  });
  for (const line of cgroupText.split('\n')) {
    const [id, controllers = '', ...rest] = line.split(':');
    const path = rest.join(':');
    if (!path) continue;
    if (controllers.split(',').includes('memory')) {
      const mount = mounts.find((m) => m.type === 'cgroup' && m.options.includes('memory'));
      if (mount) return { version: 1, mount: mount.point, group: join(mount.point, below(path, mount.root)) };
    }
    if (id === '0' && controllers === '') {
      const mount = mounts.find((m) => m.type === 'cgroup2');
      const v1 = mounts.some((m) => m.type === 'cgroup' && m.options.includes('memory'));
      if (mount && !v1) return { version: 2, mount: mount.point, group: join(mount.point, below(path, mount.root)) };
    }
  }
  return undefined;
}

/** In a container the hierarchy's root is the container's own group, while `/proc` may show the path as the host sees it. */
const below = (path: string, root: string): string =>
  root !== '/' && (path === root || path.startsWith(`${root}/`)) ? path.slice(root.length) || '/' : path;

const unescapeMount = (text: string): string => text.replace(/\\(\d{3})/g, (_, octal: string) => String.fromCharCode(parseInt(octal, 8)));

export async function ownMemoryCgroup(): Promise<CgroupPlace | undefined> {
  try {
    return memoryCgroup(await readFile('/proc/self/cgroup', 'utf8'), await readFile('/proc/self/mountinfo', 'utf8'));
  } catch {
    return undefined;
  }
}

/**
 * Makes a group below the agent's own (in version 2: beside it, or below after the agent moved into a leaf) and moves `pid` there. Rejects where
 * the hierarchy is not writable or not delegated.
 */
export async function createMemoryGroup(place: CgroupPlace, pid: number, bytes: number): Promise<MemoryGroup> {
  const parent = place.version === 1 ? place.group : await delegatedParent(place);
  await removeLeftovers(parent);
  const path = join(parent, `${GROUP_PREFIX}${process.pid}-${pid}`);
  await mkdir(path);
  const group: MemoryGroup = {
    version: place.version,
    setLimit: (limit) => setLimit(place.version, path, limit),
    kills: () => kills(place.version, path),
    remove: () => removeGroup(path),
  };
  try {
    await group.setLimit(bytes);
    await writeFile(join(path, 'cgroup.procs'), String(pid));
    const members = await readFile(join(path, 'cgroup.procs'), 'utf8');
    if (!members.split('\n').includes(String(pid))) throw new Error(`process ${pid} did not enter ${path}`);
    return group;
  } catch (error) {
    await removeGroup(path);
    throw error;
  }
}

async function setLimit(version: 1 | 2, path: string, bytes: number): Promise<void> {
  if (version === 1) return writeFile(join(path, 'memory.limit_in_bytes'), String(bytes));
  await writeFile(join(path, 'memory.max'), String(bytes));
  // Without this a device that swaps would let the engine grow into swap; where swap is not accounted the file is absent.
  await writeFile(join(path, 'memory.swap.max'), '0').catch(() => {});
}

async function kills(version: 1 | 2, path: string): Promise<number> {
  const text = await readFile(join(path, version === 1 ? 'memory.oom_control' : 'memory.events'), 'utf8').catch(() => '');
  return Number(/^oom_kill (\d+)$/m.exec(text)?.[1] ?? 0);
}

/** A group whose last process has just ended is busy for a moment. */
async function removeGroup(path: string): Promise<void> {
  for (let attempt = 0; attempt < 20; attempt++) {
    try {
      return await rmdir(path);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return;
      await new Promise((resolve) => setTimeout(resolve, 25));
    }
  }
}

/** Groups of agents that were killed before they could remove them. */
async function removeLeftovers(parent: string): Promise<void> {
  for (const name of await readdir(parent)) {
    const agentPid = Number(new RegExp(`^${GROUP_PREFIX}(\\d+)-\\d+$`).exec(name)?.[1] ?? 0);
    // The kernel refuses to remove a group that still has a process.
    if (agentPid > 0 && !isAlive(agentPid)) await rmdir(join(parent, name)).catch(() => {});
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

/**
 * Version 2 lets only groups without processes pass controllers on. Under systemd with `Delegate=yes` and `DelegateSubgroup=agent` the parent is such
 * a group already; else the agent, if it is alone in its group, moves into a leaf `agent` of it.
 */
async function delegatedParent({ group, mount }: CgroupPlace): Promise<string> {
  if (basename(group) === 'agent' && group !== mount) {
    await passMemoryOn(dirname(group));
    return dirname(group);
  }
  const members = (await readFile(join(group, 'cgroup.procs'), 'utf8')).split('\n').filter(Boolean);
  for (const pid of members) {
    const isOurs = Number(pid) === process.pid || (await parentOf(pid)) === process.pid;
    if (!isOurs) throw new Error(`process ${pid} shares the group ${group} with the agent`);
  }
  const leaf = join(group, 'agent');
  await mkdir(leaf).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'EEXIST') throw error;
  });
  for (const pid of members) await writeFile(join(leaf, 'cgroup.procs'), pid);
  await passMemoryOn(group);
  return group;
}

async function passMemoryOn(group: string): Promise<void> {
  const active = await readFile(join(group, 'cgroup.subtree_control'), 'utf8');
  if (!active.split(/\s+/).includes('memory')) await writeFile(join(group, 'cgroup.subtree_control'), '+memory');
}

/** The field after the command's name, which stands in parentheses and may hold anything. */
async function parentOf(pid: string): Promise<number> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
  return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1] ?? 0);
}
