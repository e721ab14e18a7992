import { dirname } from 'node:path';
import type { DiskOperation } from './tap.js';

interface Inode {
  content: Buffer;
  /** What lies on the platter; undefined before the first fsync. */
  durable: Buffer | undefined;
}

type DirectoryChange = { readonly path: string; readonly inode: Inode | undefined };

/** What a power cut leaves of what was not flushed. */
export type Loss =
  /** Nothing. */
  | { readonly kind: 'all' }
  /** Names, but no content: files appear under their names and are empty, or as they were flushed last. */
  | { readonly kind: 'content' }
  /** Some: so many of each directory's changes in their order, and that share of each file's unflushed end. */
  | { readonly kind: 'some'; readonly random: () => number };

/**
 * A disk that promises only what POSIX does: a file's content survives from its fsync on, a name from the fsync of its directory on. What is left
 * after a power cut is computed, not hoped for.
 */
export class SimulatedDisk {
  private readonly names = new Map<string, Inode>();
  private readonly durableNames = new Map<string, Inode>();
  private readonly directories = new Set<string>();
  private readonly pending = new Map<string, DirectoryChange[]>();
  private readonly pendingDirectories = new Map<string, string[]>();
  private readonly durableDirectories = new Set<string>(['.']);

  /** A file that lay there, flushed, before everything. */
  place(path: string, content: Buffer): void {
    const inode = { content, durable: content };
    this.names.set(path, inode);
    this.durableNames.set(path, inode);
    for (let at = dirname(path); at !== '.'; at = dirname(at)) {
      this.directories.add(at);
      this.durableDirectories.add(at);
    }
  }

  apply(operation: DiskOperation): void {
    const { path } = operation;
    switch (operation.op) {
      case 'open': {
        const held = this.names.get(path);
        if (!held) this.link(path, { content: Buffer.alloc(0), durable: undefined });
        // Emptying a file is content: the old one may be gone at once, or come back.
        else if (operation.truncate) held.content = Buffer.alloc(0);
        return;
      }
      case 'write': {
        const inode = this.names.get(path);
        if (!inode) throw new Error(`a write to ${path}, which was not opened`);
        const { data, at = inode.content.length } = operation;
        const bytes = Buffer.from(data, 'base64');
        const grown = Buffer.concat([inode.content, Buffer.alloc(Math.max(0, at + bytes.length - inode.content.length))]);
        bytes.copy(grown, at);
        inode.content = grown;
        return;
      }
      case 'fsync': {
        const inode = this.names.get(path);
        if (inode) inode.durable = inode.content;
        else this.flushDirectory(path === '' ? '.' : path);
        return;
      }
      case 'rename': {
        const inode = this.names.get(path);
        if (!inode) throw new Error(`a rename of ${path}, which is not there`);
        this.link(operation.to, inode);
        this.link(path, undefined);
        return;
      }
      case 'mkdir':
        this.makeDirectory(path);
        return;
      case 'remove':
        for (const name of [...this.names.keys()]) if (name === path || name.startsWith(`${path}/`)) this.link(name, undefined);
        return;
    }
  }

  /** The files after a power cut now. */
  after(loss: Loss): Map<string, Buffer> {
    const names = new Map(this.durableNames);
    const directories = new Set(this.durableDirectories);
    if (loss.kind !== 'all') {
      const share = (count: number): number => (loss.kind === 'content' ? count : Math.floor(loss.random() * (count + 1)));
      for (const made of this.pendingDirectories.values()) for (const path of made.slice(0, share(made.length))) directories.add(path);
      for (const changes of this.pending.values())
        for (const { path, inode } of changes.slice(0, share(changes.length))) {
          if (inode) names.set(path, inode);
          else names.delete(path);
        }
    }
    const files = new Map<string, Buffer>();
    for (const [path, inode] of names) if (isThere(dirname(path), directories)) files.set(path, contentAfter(inode, loss));
    return files;
  }

  private link(path: string, inode: Inode | undefined): void {
    if (inode) this.names.set(path, inode);
    else this.names.delete(path);
    push(this.pending, dirname(path), { path, inode });
  }

  private makeDirectory(path: string): void {
    if (path === '' || path === '.' || this.directories.has(path)) return;
    this.makeDirectory(dirname(path));
    this.directories.add(path);
    push(this.pendingDirectories, dirname(path), path);
  }

  private flushDirectory(directory: string): void {
    for (const { path, inode } of this.pending.get(directory) ?? []) {
      if (inode) this.durableNames.set(path, inode);
      else this.durableNames.delete(path);
    }
    this.pending.delete(directory);
    for (const path of this.pendingDirectories.get(directory) ?? []) this.durableDirectories.add(path);
    this.pendingDirectories.delete(directory);
  }
}

/** A directory whose own name was lost takes what is in it along. */
function isThere(directory: string, directories: ReadonlySet<string>): boolean {
  for (let at = directory; at !== '.'; at = dirname(at)) if (!directories.has(at)) return false;
  return true;
}

function contentAfter({ content, durable }: Inode, loss: Loss): Buffer {
  const flushed = durable ?? Buffer.alloc(0);
  if (loss.kind !== 'some' || content === flushed) return flushed;
  return content.subarray(0, Math.floor(loss.random() * (content.length + 1)));
}

function push<T>(lists: Map<string, T[]>, key: string, value: T): void {
  const list = lists.get(key);
  if (list) list.push(value);
  else lists.set(key, [value]);
}
