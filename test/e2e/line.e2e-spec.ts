import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { describe, expect, it } from '@jest/globals';
import { repositoryRoot } from '@matfleet/harness';

interface DemoDocument {
  ok: boolean;
  error: string | null;
  devices: { name: string; slice: string; reason: string; modelVersion: string }[];
  steps: { step: string; ok: boolean; detail: unknown }[];
}

describe('the demo', () => {
  it('shows the whole line and says so in one JSON document', async () => {
    const { code, stdout, stderr } = await run(['--once', '--json', '--seed', '7']);
    const document = JSON.parse(stdout) as DemoDocument;
    expect({ error: document.error, code, stderr: code === 0 ? '' : stderr.slice(-3000) }).toEqual({ error: null, code: 0, stderr: '' });
    expect(document.devices.map(({ name }) => name)).toEqual(['kiosk', 'gateway', 'server']);
    expect(new Set((document.steps[1]!.detail as { slice: string }[]).map(({ slice }) => slice)).size).toBe(3);
    expect(new Set(document.devices.map(({ modelVersion }) => modelVersion)).size).toBe(1);
    expect(document.steps).toHaveLength(8);
    expect(document.steps.filter(({ ok }) => !ok)).toEqual([]);
  }, 240_000);
});

function run(args: string[]): Promise<{ code: number | null; stdout: string; stderr: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [join(repositoryRoot, 'apps/demo/dist/main.js'), ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
    let stdout = '';
    let stderr = '';
    child.stdout.on('data', (data) => (stdout += data));
    child.stderr.on('data', (data) => (stderr += data));
    child.on('error', reject);
    child.on('close', (code) => resolve({ code, stdout, stderr }));
  });
}
