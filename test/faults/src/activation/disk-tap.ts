// Preloaded into a real agent (`node --import`): counts what the agent does to its data directory, ends it by SIGKILL before one of these operations
// where told so, and writes them down where told so. The agent itself holds no code for it.
import fs from 'node:fs';
import fsPromises, { type FileHandle } from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';
import { join, relative, resolve } from 'node:path';
import type { DiskOperation, TapSettings } from './tap.js';

const settings =
  process.env['FAULT_TAP'] && process.argv[1]?.endsWith('matfleet-agent.mjs') ? (JSON.parse(process.env['FAULT_TAP']) as TapSettings) : undefined;
if (settings) tap(settings);

function tap({ dir, armAt, killAt, pointFile, recordFile }: TapSettings): void {
  const { appendFileSync, openSync, writeFileSync, fsyncSync, closeSync, renameSync, mkdirSync, rmSync } = fs;
  const { open, rename, rm, mkdir, writeFile, unlink } = fsPromises;
  const paths = new Map<number, string>();
  let armed = false;
  let points = 0;
  let step = 'desired';

  /** Inside the data directory, relative to it; undefined for all that is no part of the model store and the journal. */
  const inside = (path: unknown): string | undefined => {
    if (typeof path !== 'string') return undefined;
    const found = relative(dir, resolve(path));
    return found.startsWith('..') || /^(identity|agent\.sock)/.test(found) ? undefined : found;
  };
  const before = (operation: DiskOperation): void => {
    if (recordFile) appendFileSync(recordFile, `${JSON.stringify(operation)}\n`);
    if (operation.op === 'write' && operation.path.startsWith('journal.json')) readStep(operation.data);
    if (!armed) return;
    points += 1;
    if (points !== killAt) return;
    appendFileSync(pointFile, `${step}: before ${operation.op} of ${kindOf(operation.path)}\n`);
    process.kill(process.pid, 'SIGKILL');
    for (;;);
  };
  const readStep = (data: string): void => {
    const state = JSON.parse(Buffer.from(data, 'base64').toString()) as {
      desired?: { generation: number };
      activation?: { generation: number; step: string };
    };
    if (state.desired?.generation !== armAt) return;
    armed = true;
    step = state.activation?.generation === armAt ? state.activation.step : 'desired';
  };
  const base64 = (data: unknown): string => Buffer.from(data as Uint8Array).toString('base64');

  fs.openSync = ((path: string, flags: string, mode?: number) => {
    const found = inside(path);
    if (found !== undefined && flags !== 'r') before({ op: 'open', path: found, truncate: flags.startsWith('w') });
    const fd = openSync(path, flags, mode);
    if (found !== undefined) paths.set(fd, found);
    return fd;
  }) as typeof fs.openSync;
  fs.writeFileSync = ((file: number | string, data: string | Uint8Array, options?: fs.WriteFileOptions) => {
    const found = typeof file === 'number' ? paths.get(file) : inside(file);
    if (found !== undefined) {
      if (typeof file === 'string') before({ op: 'open', path: found, truncate: true });
      before({ op: 'write', path: found, data: base64(data) });
    }
    writeFileSync(file, data, options);
  }) as typeof fs.writeFileSync;
  fs.fsyncSync = (fd) => {
    const found = paths.get(fd);
    if (found !== undefined) before({ op: 'fsync', path: found });
    fsyncSync(fd);
  };
  fs.closeSync = (fd) => {
    paths.delete(fd);
    closeSync(fd);
  };
  fs.renameSync = (from, to) => {
    const [source, target] = [inside(from), inside(to)];
    if (source !== undefined && target !== undefined) before({ op: 'rename', path: source, to: target });
    renameSync(from, to);
  };
  fs.mkdirSync = ((path: string, options?: fs.MakeDirectoryOptions) => {
    const found = inside(path);
    if (found !== undefined && !fs.existsSync(path)) before({ op: 'mkdir', path: found });
    return mkdirSync(path, options);
  }) as typeof fs.mkdirSync;
  fs.rmSync = (path, options) => {
    const found = inside(path);
    if (found !== undefined && fs.existsSync(path)) before({ op: 'remove', path: found });
    rmSync(path, options);
  };

  fsPromises.open = async (path, flags, mode) => {
    const found = inside(path);
    const writes = found !== undefined && flags !== undefined && flags !== 'r';
    if (writes) before({ op: 'open', path: found, truncate: String(flags).startsWith('w') });
    const handle = await open(path, flags, mode);
    return found === undefined ? handle : tapHandle(handle, found);
  };
  const tapHandle = (handle: FileHandle, path: string): FileHandle => {
    const { writeFile: writeWhole, sync, datasync } = handle;
    const write = handle.write.bind(handle) as (data: Uint8Array, offset: number, length: number, at: number | null) => Promise<unknown>;
    return Object.assign(handle, {
      write: (data: Uint8Array, offset = 0, length = data.byteLength - offset, at: number | null = null) => {
        before({ op: 'write', path, data: base64(data.subarray(offset, offset + length)), ...(at !== null && { at }) });
        return write(data, offset, length, at);
      },
      writeFile: (data: Uint8Array) => {
        before({ op: 'write', path, data: base64(data) });
        return writeWhole.call(handle, data);
      },
      sync: () => {
        before({ op: 'fsync', path });
        return sync.call(handle);
      },
      datasync: () => {
        before({ op: 'fsync', path });
        return datasync.call(handle);
      },
    });
  };
  fsPromises.rename = async (from, to) => {
    const [source, target] = [inside(from), inside(to)];
    if (source !== undefined && target !== undefined) before({ op: 'rename', path: source, to: target });
    await rename(from, to);
  };
  fsPromises.rm = async (path, options) => {
    const found = inside(path);
    if (found !== undefined && fs.existsSync(path as string)) before({ op: 'remove', path: found });
    await rm(path, options);
  };
  fsPromises.unlink = async (path) => {
    const found = inside(path);
    if (found !== undefined) before({ op: 'remove', path: found });
    await unlink(path);
  };
  fsPromises.mkdir = (async (path: string, options?: fs.MakeDirectoryOptions) => {
    const found = inside(path);
    if (found !== undefined && !fs.existsSync(path)) before({ op: 'mkdir', path: found });
    return mkdir(path, options);
  }) as typeof fsPromises.mkdir;
  fsPromises.writeFile = (async (path: string, data: string | Uint8Array, options?: never) => {
    const found = inside(path);
    if (found !== undefined) {
      before({ op: 'open', path: found, truncate: true });
      before({ op: 'write', path: found, data: base64(data) });
    }
    await writeFile(path, data, options);
  }) as typeof fsPromises.writeFile;
  syncBuiltinESMExports();
}

/** Hashes and version ids would make every point a kind of its own. */
const kindOf = (path: string): string => join('.', path).replace(/[0-9a-f]{64}/g, '<hash>');
