import { spawnSync } from 'node:child_process';
import { mkdir, readdir, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from '@jest/globals';
import { ownerMark } from './owner.js';
import { makeDir } from './partial-dir.js';
import { withFolder } from './testing-fixture.js';

describe('a folder that appears complete or not at all', () => {
  it('has its name only after the work is done', () =>
    withFolder(async (dir) => {
      const answer = await makeDir(join(dir, 'out'), async (partial) => {
        await writeFile(join(partial, 'file'), '');
        expect(await readdir(dir)).toEqual([expect.stringMatching(/^out\.partial-/)]);
        return 7;
      });
      expect([answer, await readdir(dir), await readdir(join(dir, 'out'))]).toEqual([7, ['out'], ['file']]);
      await expect(makeDir(join(dir, 'out'), async () => 8)).rejects.toThrow('already exists');
    }));

  it('removes what ended processes left under its name, and nothing of running ones or under other names', () =>
    withFolder(async (dir) => {
      const { pid: ended } = spawnSync(process.execPath, ['-e', '0']);
      const [space, , start] = ownerMark().split('-') as [string, string, string];
      const name = (out: string, mark: string): string => `${out}.partial-${mark}-0123abcd`;
      const kept = [
        name('out', ownerMark()),
        name('other', `${space}-${ended}-1`),
        'out.partial-notes',
        `out.partial-of-x.partial-${space}-${ended}-1-0123abcd`,
      ];
      // The second one's process number was given to this process since.
      const left = [name('out', `${space}-${ended}-1`), name('out', `${space}-${process.pid}-${Number(start) - 1}`)];
      for (const folder of [...left, ...kept]) await mkdir(join(dir, folder));
      await makeDir(join(dir, 'out'), async () => undefined);
      expect((await readdir(dir)).sort()).toEqual([...kept, 'out'].sort());
    }));

  it('leaves what another machine or container makes under its name until it has not changed for a day', () =>
    withFolder(async (dir) => {
      const elsewhere = (n: number): string => `out.partial-0123456789ab-${process.pid}-${n}-0123abcd`;
      for (const n of [1, 2]) await mkdir(join(dir, elsewhere(n)));
      const dayAgo = Date.now() / 1000 - 25 * 3600;
      await utimes(join(dir, elsewhere(2)), dayAgo, dayAgo);
      await makeDir(join(dir, 'out'), async () => undefined);
      expect((await readdir(dir)).sort()).toEqual(['out', elsewhere(1)].sort());
    }));
});
