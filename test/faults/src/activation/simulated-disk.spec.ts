import { describe, expect, it } from '@jest/globals';
import { SimulatedDisk } from './simulated-disk.js';
import type { DiskOperation } from './tap.js';

const write = (path: string, text: string): DiskOperation[] => [
  { op: 'open', path, truncate: true },
  { op: 'write', path, data: Buffer.from(text).toString('base64') },
];
const diskAfter = (...operations: DiskOperation[]): SimulatedDisk => {
  const disk = new SimulatedDisk();
  disk.place('journal', Buffer.from('old'));
  for (const operation of operations) disk.apply(operation);
  return disk;
};
const text = (disk: SimulatedDisk, kind: 'all' | 'content', path = 'journal'): string | undefined => disk.after({ kind }).get(path)?.toString();
const fsync = (path: string): DiskOperation => ({ op: 'fsync', path });
const rename: DiskOperation = { op: 'rename', path: 'journal.tmp', to: 'journal' };

describe('a simulated disk after a power cut', () => {
  it('has the old file or the whole new one, where content was flushed before its name and the name after it', () => {
    const steps = [...write('journal.tmp', 'new'), fsync('journal.tmp'), rename, fsync('')];
    for (let done = 0; done <= steps.length; done++) {
      const disk = diskAfter(...steps.slice(0, done));
      expect(['old', 'new']).toContain(text(disk, 'all'));
      expect(['old', 'new']).toContain(text(disk, 'content'));
    }
    expect(text(diskAfter(...steps.slice(0, -1)), 'all')).toBe('old');
    expect(text(diskAfter(...steps), 'all')).toBe('new');
  });

  it('has an empty file where a name was flushed whose content was not', () => {
    expect(text(diskAfter(...write('journal.tmp', 'new'), rename, fsync('')), 'all')).toBe('');
    expect(text(diskAfter(...write('journal.tmp', 'new'), rename), 'content')).toBe('');
  });

  it('has nothing of a directory whose own name was not flushed, however well what is in it was', () => {
    const inside = [...write('models/v1/manifest', 'm'), fsync('models/v1/manifest'), fsync('models/v1')];
    const made: DiskOperation[] = [
      { op: 'mkdir', path: 'models' },
      { op: 'mkdir', path: 'models/v1' },
    ];
    expect(text(diskAfter(...made, ...inside), 'all', 'models/v1/manifest')).toBeUndefined();
    expect(text(diskAfter(...made, ...inside, fsync('models')), 'all', 'models/v1/manifest')).toBeUndefined();
    expect(text(diskAfter(...made, ...inside, fsync('models'), fsync('')), 'all', 'models/v1/manifest')).toBe('m');
  });

  it('may have a file back that was removed', () => {
    const disk = diskAfter({ op: 'remove', path: 'journal' });
    expect(text(disk, 'all')).toBe('old');
    expect(text(disk, 'content')).toBeUndefined();
  });
});
