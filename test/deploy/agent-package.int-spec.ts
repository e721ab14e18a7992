import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { nanoPackage, repositoryRoot, StandaloneAgent } from '@matfleet/harness';

// Needs Debian's tools, and root for an installation into a root of its own.
const here = process.platform === 'linux' && existsSync('/usr/bin/dpkg-deb') && process.getuid?.() === 0;

(here ? describe : describe.skip)("the agent's package", () => {
  const scratch = mkdtempSync(join(tmpdir(), 'matfleet-package-'));
  const installed = join(scratch, 'root');
  const home = join(installed, 'opt/matfleet');
  const run = (command: string, args: readonly string[]): string =>
    execFileSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'], maxBuffer: 2 ** 26 });
  let deb: string;
  let tarball: string;
  beforeAll(() => {
    run(process.execPath, [join(repositoryRoot, 'tools/package-agent.mjs'), '--out', scratch, '--level', '1']);
    const made = (end: string): string =>
      join(
        scratch,
        readdirSync(scratch).find((name) => name.endsWith(end))!,
      );
    [deb, tarball] = [made('.deb'), made('.tar.gz')];
    for (const dir of ['info', 'updates', 'triggers']) mkdirSync(join(installed, 'var/lib/dpkg', dir), { recursive: true });
    for (const file of ['status', 'available']) writeFileSync(join(installed, 'var/lib/dpkg', file), '');
    run('dpkg', [`--root=${installed}`, '--force-depends', '--force-script-chrootless', '--log=/dev/null', '-i', deb]);
  }, 180_000);
  afterAll(() => rmSync(scratch, { recursive: true, force: true }));

  it('is installed by dpkg, with its unit, and says what is in it', () => {
    expect(run('dpkg-query', [`--admindir=${installed}/var/lib/dpkg`, '-W', '-f', '${Status}', 'matfleet-agent'])).toBe('install ok installed');
    const unit = readFileSync(join(installed, 'lib/systemd/system/matfleet-agent.service'), 'utf8');
    const program = /^ExecStart=(\S+)/m.exec(unit)![1]!;
    expect(statSync(join(installed, program)).mode & 0o111).toBe(0o111);
    expect(readlinkSync(join(installed, 'usr/bin/matfleet-agent'))).toBe(program);
    const { version, node } = JSON.parse(readFileSync(join(home, 'release.json'), 'utf8')) as { version: string; node: { version: string } };
    expect(node.version).toBe(process.version);
    expect(deb).toContain(`_${version}_`);
  });

  it('holds neither test code, nor sources, nor libraries of other platforms, nor files that others may write', () => {
    const listed = run('tar', ['--numeric-owner', '-tvzf', tarball]).trim().split('\n');
    expect(listed.length).toBeGreaterThan(500);
    expect(listed.filter((line) => /\.(ts|map)$|\.spec\.|\/dist\/testing\/|\/bin\/.*\/(darwin|win32)|\.dll$/.test(line))).toEqual([]);
    expect(listed.filter((line) => !line.startsWith('l') && (line[8] === 'w' || line[5] === 'w'))).toEqual([]);
    expect(listed.filter((line) => !line.includes(' 0/0 '))).toEqual([]);
  });

  it('serves a slice with its own Node.js and ONNX Runtime', async () => {
    const model = await nanoPackage();
    const script = join(home, 'bin/matfleet-agent');
    const agent = await StandaloneAgent.start({
      model,
      modelName: 'nano',
      sliceId: 's-32',
      contextTokens: 128,
      script,
      env: { PATH: '/usr/bin:/bin' },
    });
    try {
      expect((await agent.app.ask({ prompt: 'lights off', maxTokens: 8 })).outputTokens).toBeGreaterThan(0);
      const { enginePid } = JSON.parse(readFileSync(join(dirname(agent.socket), 'ready.json'), 'utf8')) as { enginePid: number };
      for (const pid of [agent.process.pid, enginePid]) expect(readlinkSync(`/proc/${pid}/exe`)).toBe(join(home, 'bin/node'));
      const mapped = readFileSync(`/proc/${enginePid}/maps`, 'utf8')
        .split('\n')
        .filter((line) => line.includes('libonnxruntime'));
      expect(mapped.length).toBeGreaterThan(0);
      expect(mapped.every((line) => line.includes(home))).toBe(true);
    } finally {
      await agent.stop();
    }
  }, 60_000);
});
