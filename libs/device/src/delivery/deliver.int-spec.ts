import { execFileSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { credentials, Server, ServerCredentials, status, type ServerWritableStream } from '@grpc/grpc-js';
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { ArtifactServiceClient, ArtifactServiceService, type FetchChunkRequest, type FetchChunkResponse } from '@matfleet/protocol';
import { deliver, type Delivery } from './deliver.js';
import { DiskFull } from './disk-room.js';
import { Pace } from './pace.js';

const MESSAGE_BYTES = 16 * 1024;
const CHUNK_BYTES = 200_000;
const contents = Array.from({ length: 8 }, () => randomBytes(CHUNK_BYTES));
const chunks = contents.map((bytes) => ({ id: createHash('sha256').update(bytes).digest('hex'), bytes: bytes.length }));
type Call = ServerWritableStream<FetchChunkRequest, FetchChunkResponse>;

describe('a delivery', () => {
  let dir: string;
  let server: Server;
  let client: ArtifactServiceClient;
  let served: Map<string, Buffer>;
  let asked: { id: string; offset: number }[];
  let running: number;
  let mostRunning: number;
  /** Answers a call instead of the usual stream, where it says so. */
  let odd: (call: Call) => boolean;
  let pauseMs: number;

  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), 'deliver-'));
    served = new Map(chunks.map(({ id }, i) => [id, contents[i]!]));
    [asked, running, mostRunning, pauseMs] = [[], 0, 0, 0];
    odd = () => false;
    server = new Server();
    server.addService(ArtifactServiceService, {
      fetchChunk: (call: Call) => {
        asked.push({ id: call.request.chunkId, offset: Number(call.request.offset) });
        if (!odd(call)) void stream(call);
      },
    });
    const port = await new Promise<number>((resolve, reject) =>
      server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) => (error ? reject(error) : resolve(bound))),
    );
    client = new ArtifactServiceClient(`127.0.0.1:${port}`, credentials.createInsecure());
  });
  afterEach(async () => {
    client.close();
    server.forceShutdown();
    await rm(dir, { recursive: true, force: true });
  });

  async function stream(call: Call, end = Infinity): Promise<void> {
    const bytes = served.get(call.request.chunkId);
    if (!bytes) return void call.emit('error', { code: status.NOT_FOUND, details: `no chunk ${call.request.chunkId}` });
    mostRunning = Math.max(mostRunning, ++running);
    for (let at = Number(call.request.offset); at < Math.min(bytes.length, end) && !call.cancelled; at += MESSAGE_BYTES) {
      const data = bytes.subarray(at, Math.min(at + MESSAGE_BYTES, end));
      call.write({ data });
      if (pauseMs > 0) await sleep(pauseMs);
    }
    running -= 1;
    call.end();
  }

  const bring = (wanted = chunks, options: Partial<Delivery> = {}) =>
    deliver(client, wanted, {
      what: 'slice e2b',
      directory: dir,
      pathOf: (id) => join(dir, id),
      signal: AbortSignal.timeout(30_000),
      ...options,
    });
  const whole = async (): Promise<string[]> => (await readdir(dir)).filter((name) => !name.endsWith('.part')).sort();
  const ids = (some = chunks): string[] => some.map(({ id }) => id).sort();

  it('brings every chunk, several at a time and each once', async () => {
    pauseMs = 2;
    await bring([...chunks, chunks[0]!], { parallel: 3 });
    expect(await readdir(dir)).toEqual(expect.arrayContaining(ids()));
    for (const [i, { id }] of chunks.entries()) expect((await readFile(join(dir, id))).equals(contents[i]!)).toBe(true);
    expect(asked).toHaveLength(chunks.length);
    expect(mostRunning).toBe(3);
  });

  describe('of bytes that are wrong', () => {
    it.each([
      ['flipped', (bytes: Buffer) => Buffer.from(bytes).fill(bytes[77]! ^ 1, 77, 78), /received have SHA-256/],
      ['swapped for another of the same size', () => contents[1]!, /received have SHA-256/],
      ['longer than its manifest says', (bytes: Buffer) => Buffer.concat([bytes, Buffer.from('!')]), /more than its 200000 bytes were sent/],
    ])('%s: refuses the chunk by name, asks once, and gives no file its name', async (_how, damage, why) => {
      served.set(chunks[0]!.id, damage(contents[0]!));
      await expect(bring(chunks.slice(0, 1))).rejects.toThrow(why);
      await expect(bring(chunks.slice(0, 1))).rejects.toThrow(chunks[0]!.id);
      expect(await whole()).toEqual([]);
      expect(asked).toHaveLength(2);
    });

    it('truncated: says where the stream ended, after as many tries as it has', async () => {
      served.set(chunks[0]!.id, contents[0]!.subarray(0, 150_000));
      await expect(bring(chunks.slice(0, 1), { retries: 2 })).rejects.toThrow(
        `chunk ${chunks[0]!.id} at byte 150000 of 200000: the stream ended at byte 150000`,
      );
      expect(asked.map(({ offset }) => offset)).toEqual([0, 150_000, 150_000, 150_000]);
      expect(await whole()).toEqual([]);
    });

    it('missing: asks once, since that answer will not change, and keeps what else came', async () => {
      served.delete(chunks[0]!.id);
      await expect(bring(chunks.slice(0, 2), { parallel: 1 })).rejects.toThrow(`no chunk ${chunks[0]!.id}`);
      expect(asked).toHaveLength(1);
    });

    it('left behind damaged by an earlier attempt: finds out, deletes it, and the next delivery is whole', async () => {
      await writeFile(join(dir, `${chunks[0]!.id}.part`), randomBytes(1_000));
      await expect(bring(chunks.slice(0, 1))).rejects.toThrow('received have SHA-256');
      await bring(chunks.slice(0, 1));
      expect(await readdir(dir)).toEqual(ids(chunks.slice(0, 1)));
    });
  });

  describe('over a bad network', () => {
    it('gives a silent stream up and goes on from the byte it holds', async () => {
      let silent = true;
      odd = (call) => {
        if (!silent) return false;
        silent = false;
        call.write({ data: contents[0]!.subarray(0, 50_000) });
        return true;
      };
      await bring(chunks.slice(0, 1), { stallMs: 200 });
      expect(asked.map(({ offset }) => offset)).toEqual([0, 50_000]);
    });

    it('ends when its retry budget is spent, though every attempt brought a little', async () => {
      odd = (call) => {
        const from = Number(call.request.offset);
        call.write({ data: contents[0]!.subarray(from, from + 1) });
        call.end();
        return true;
      };
      await expect(bring(chunks.slice(0, 1), { retryBudget: 3 })).rejects.toThrow(/at byte 4 of 200000: the stream ended/);
      expect(asked).toHaveLength(4);
    });

    it.each([status.PERMISSION_DENIED, status.UNAUTHENTICATED, status.INVALID_ARGUMENT, status.OUT_OF_RANGE])(
      'does not repeat what is refused for good (code %i)',
      async (code) => {
        odd = (call) => call.emit('error', { code, details: 'no' });
        await expect(bring(chunks.slice(0, 1))).rejects.toThrow('no');
        expect(asked).toHaveLength(1);
      },
    );
  });

  describe('at its pace', () => {
    it('takes no more bytes a second than it may, over all chunks together', async () => {
      const startMs = performance.now();
      await bring(chunks.slice(0, 4), { pace: new Pace({ bytesPerSecond: 1_000_000 }) });
      expect(performance.now() - startMs).toBeGreaterThan(500);
    });

    it('stops in the middle of a chunk when quiet hours begin, and goes on from there when they end', async () => {
      let minute = 7 * 60 + 59;
      const pace = new Pace({ quietHours: [{ fromMinute: 8 * 60, toMinute: 20 * 60 }], now: () => new Date(2031, 0, 1, 0, minute, 59, 900) });
      pauseMs = 20;
      const done = bring(chunks.slice(0, 1), { pace, onBytes: () => (minute = Math.max(minute, 8 * 60)) });
      await sleep(300);
      expect(asked).toHaveLength(1);
      expect(running).toBe(0);
      const held = (await stat(join(dir, `${chunks[0]!.id}.part`))).size;
      expect(held).toBeGreaterThan(0);
      minute = 20 * 60;
      pauseMs = 0;
      await done;
      expect(asked.map(({ offset }) => offset)).toEqual([0, held]);
      expect(await whole()).toEqual(ids(chunks.slice(0, 1)));
    });

    it('is at rest within a second of a newer document, and what was fetched is not fetched again', async () => {
      pauseMs = 15;
      const superseded = new AbortController();
      const first = bring(chunks.slice(0, 6), { signal: superseded.signal, parallel: 3 });
      await sleep(400);
      const abortedMs = performance.now();
      superseded.abort(new Error('a newer document'));
      await expect(first).rejects.toThrow('a newer document');
      expect(performance.now() - abortedMs).toBeLessThan(1_000);
      await sleep(100);
      expect(running).toBe(0);
      const here = await whole();
      const parts = new Map(
        await Promise.all(
          ids().map(
            async (id) =>
              [
                id,
                await stat(join(dir, `${id}.part`)).then(
                  ({ size }) => size,
                  () => 0,
                ),
              ] as const,
          ),
        ),
      );
      expect([...parts.values()].some((size) => size > 0)).toBe(true);
      expect(here.length).toBeGreaterThan(0);

      // The next slice shares all but two chunks with the one that was given up.
      asked = [];
      pauseMs = 0;
      const next = chunks.slice(2);
      await bring(next.filter(({ id }) => !here.includes(id)));
      expect(await whole()).toEqual(expect.arrayContaining(ids(next)));
      // One whose last byte had just come needs no more than its name.
      const isWhole = (id: string): boolean => next.some((chunk) => chunk.id === id && parts.get(id) === chunk.bytes);
      expect(asked.map(({ id }) => id).sort()).toEqual(ids(next).filter((id) => !here.includes(id) && !isWhole(id)));
      for (const { id, offset } of asked) expect(offset).toBe(parts.get(id));
    });
  });

  const asRoot = process.platform === 'linux' && process.getuid?.() === 0 ? describe : describe.skip;
  asRoot('onto a real small disk', () => {
    let disk: string;
    beforeEach(async () => {
      disk = await mkdtemp(join(tmpdir(), 'deliver-disk-'));
      execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', disk]);
    });
    afterEach(async () => {
      execFileSync('umount', [disk]);
      await rm(disk, { recursive: true });
    });
    const onDisk = (wanted: typeof chunks, options: Partial<Delivery> = {}) =>
      bring(wanted, { directory: disk, pathOf: (id) => join(disk, id), ...options });

    it('asks for nothing when there is no room, and names what is lacking', async () => {
      const error = await onDisk(chunks).catch((thrown: unknown) => thrown);
      expect(error).toBeInstanceOf(DiskFull);
      expect((error as Error).message).toMatch(/slice e2b needs 1.60 MB more in .* and 0.08 MB to spare; 1.05 MB are free, so 0.63 MB are lacking/);
      expect(asked).toEqual([]);
    });

    it('says so when the disk fills on the way, and leaves room for the journal', async () => {
      const filling = () => execFileSync('sh', ['-c', `head -c 2000000 /dev/zero > ${disk}/others 2>/dev/null || true`]);
      let filled = false;
      const error = await onDisk(chunks.slice(0, 1), { onBytes: () => (filled ||= (filling(), true)) }).catch((thrown: unknown) => thrown);
      expect(error).toBeInstanceOf(DiskFull);
      expect((error as Error).message).toContain(`is full: chunk ${chunks[0]!.id} could not be written`);
      expect(await readdir(disk)).toEqual(['others']);
      await writeFile(join(disk, 'journal'), 'x'.repeat(10_000));
    });

    it('says so when the disk can only be read', async () => {
      execFileSync('mount', ['-o', 'remount,ro', disk]);
      await expect(onDisk(chunks.slice(0, 1))).rejects.toThrow(`${disk} cannot be written (EROFS): chunk ${chunks[0]!.id} was not fetched`);
      expect(asked).toEqual([]);
    });
  });
});
