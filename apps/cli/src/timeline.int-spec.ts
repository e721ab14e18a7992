import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';

const BIN = new URL('../bin/matfleet.mjs', import.meta.url).pathname;
const ID = '6f1c9a52-52a4-4a53-9b77-0d6a1c5e7f10';

/** A control plane whose device goes on living: with every question by `after` one more thing has happened. */
describe('matfleet device timeline', () => {
  let server: Server;
  let dir: string;
  let length = 7;
  const asked: string[] = [];
  const entry = (id: number) => ({ id, at: `2026-01-01T00:00:0${id}.000Z`, kind: 'presence', summary: `thing ${id}`, detail: {} });

  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), 'matfleet-timeline-'));
    await writeFile(join(dir, 'key'), 'secret-key\n');
    server = createServer((request, response) => {
      const { pathname, searchParams } = new URL(request.url!, 'http://x');
      if (pathname === '/api/v1/devices')
        return response.end(
          JSON.stringify([{ id: ID, name: 'kiosk', labels: {}, presence: 'online', desired: null, observed: null, phase: null, latency: null }]),
        );
      asked.push(`${pathname}?${searchParams.toString()}`);
      const [limit, before, after] = ['limit', 'before', 'after'].map((name) => Number(searchParams.get(name) ?? NaN));
      if (after! >= 0) {
        length = Math.min(length + 1, 9);
        const news = Array.from({ length: length - after! }, (_, at) => entry(after! + 1 + at));
        return response.end(JSON.stringify({ entries: news, next: null }));
      }
      const from = Number.isNaN(before) ? length : before! - 1;
      // A control plane gives as many as it likes: here three a page.
      const ids = Array.from({ length: Math.min(from, limit!, 3) }, (_, at) => from - at);
      return response.end(JSON.stringify({ entries: ids.map(entry), next: ids.at(-1)! > 1 ? ids.at(-1) : null }));
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
  });
  afterAll(async () => {
    server.closeAllConnections();
    server.close();
    await rm(dir, { recursive: true });
  });

  const matfleet = (...args: string[]) =>
    spawn(process.execPath, [
      ...[BIN, 'device', 'timeline', ...args],
      ...['--server', `http://127.0.0.1:${(server.address() as AddressInfo).port}`, '--api-key-file', join(dir, 'key')],
    ]);

  it('shows the newest so many, oldest first, from as many pages as it takes', async () => {
    const child = matfleet('kiosk', '--limit', '5', '--kind', 'presence');
    let text = '';
    child.stdout.on('data', (part: Buffer) => (text += part.toString()));
    expect(await once(child, 'exit')).toEqual([0, null]);
    expect(text.trim().split('\n')).toEqual([3, 4, 5, 6, 7].map((id) => `2026-01-01T00:00:0${id}.000Z  presence        thing ${id}`));
    expect(asked.splice(0)).toEqual([
      `/api/v1/devices/${ID}/timeline?limit=5&kind=presence`,
      `/api/v1/devices/${ID}/timeline?limit=2&before=5&kind=presence`,
    ]);
  });

  it('goes on with --watch, each thing once, a line of JSON each, until it is interrupted', async () => {
    const child = matfleet(ID, '--limit', '2', '--watch', '--json');
    const ids: number[] = [];
    let rest = '';
    child.stdout.on('data', (part: Buffer) => {
      const lines = (rest + part.toString()).split('\n');
      rest = lines.pop()!;
      for (const line of lines) ids.push((JSON.parse(line) as { id: number }).id);
      if (ids.length === 4) child.kill('SIGINT');
    });
    const [code] = (await once(child, 'exit')) as [number];
    expect(ids).toEqual([6, 7, 8, 9]);
    expect(code).toBe(130);
  }, 20_000);
});
