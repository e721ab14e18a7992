import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { checkHistoryFiles, HistoryFile } from './history-file.js';

describe('a history on disk', () => {
  let dir: string;

  beforeAll(async () => void (dir = await mkdtemp(join(tmpdir(), 'history-'))));
  afterAll(() => rm(dir, { recursive: true, force: true }));

  it('is read back as it was written, several files as one', async () => {
    const paths = [join(dir, 'devices.jsonl'), join(dir, 'operator.jsonl')];
    const [devices, operator] = paths.map((path) => new HistoryFile(path));
    for (let epoch = 1; epoch <= 3_000; epoch++) devices!.add({ kind: 'session-opened', device: 'd1', epoch });
    operator!.add({ kind: 'command-submitted', command: 'i1' });
    devices!.close();
    operator!.close();
    expect(await checkHistoryFiles(paths)).toMatchObject({ events: 3_001, sessions: 3_000, commands: 1, lost: 1, epochViolations: 0 });
  });

  it('ends the run rather than leave something out', () => {
    const history = new HistoryFile(join(dir, 'bounded.jsonl'), 100);
    for (let epoch = 1; epoch <= 3; epoch++) history.add({ kind: 'session-opened', device: 'd1', epoch });
    expect(() => history.flush()).toThrow(/bounded\.jsonl would grow beyond 100 bytes/);
  });

  it('refuses a line that is no event, naming it', async () => {
    const path = join(dir, 'torn.jsonl');
    await writeFile(path, '{"kind":"session-opened","device":"d1","epoch":1}\n{"kind":"session-op');
    await expect(checkHistoryFiles([path])).rejects.toThrow(/torn\.jsonl:2 is no event of a history/);
  });
});
