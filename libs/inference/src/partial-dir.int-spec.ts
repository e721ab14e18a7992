import { spawnSync } from 'node:child_process';
import { mkdir, readdir, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from '@jest/globals';
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

  it('removes what ended processes left under its name, and nothing else: not of running ones, other names or other machines', () =>
    withFolder(async (dir) => {
      const { pid: ended } = spawnSync(process.execPath, ['-e', '0']);
      const name = (out: string, host: string, pid: number): string => `${out}.partial-${host}-${pid}-0123abcd`;
      const kept = [
        name('out', hostname(), process.pid),
        name('out', `${hostname()}-2`, ended),
        name('other', hostname(), ended),
        'out.partial-notes',
      ];
      for (const folder of [name('out', hostname(), ended), ...kept]) await mkdir(join(dir, folder));
      await makeDir(join(dir, 'out'), async () => undefined);
      expect((await readdir(dir)).sort()).toEqual([...kept, 'out'].sort());
    }));
});
