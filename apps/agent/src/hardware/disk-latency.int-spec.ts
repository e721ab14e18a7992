import { mkdir, mkdtemp, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { repositoryRoot } from '@matfleet/harness';
import { probeDiskLatencyMs } from './disk-latency.js';

describe('the disk probe', () => {
  let dir: string;
  beforeEach(async () => {
    // Not in the system's temporary directory, which may be memory.
    await mkdir(join(repositoryRoot, '.data'), { recursive: true });
    dir = await mkdtemp(join(repositoryRoot, '.data', 'disk-probe-'));
  });
  afterEach(() => rm(dir, { recursive: true, force: true }));

  it('times random reads past the page cache, and leaves nothing behind', async () => {
    const milliseconds = await probeDiskLatencyMs(dir);
    // From the page cache a read takes about 5 µs through Node.js' thread pool; no disk takes a second.
    expect(milliseconds).toBeGreaterThan(0.005);
    expect(milliseconds).toBeLessThan(1_000);
    expect(await readdir(dir)).toEqual([]);
  });

  it('says nothing where it cannot write', async () => {
    expect(await probeDiskLatencyMs(join(dir, 'nowhere'))).toBeUndefined();
  });
});
