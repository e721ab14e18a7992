// `npm run package:agent`: the agent as one artefact, with its own Node.js and ONNX Runtime: a tarball and a Debian package. Same sources, same bytes.
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  cpSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const root = fileURLToPath(new URL('..', import.meta.url));
const PREFIX = 'opt/matfleet';
const DEBIAN = { x64: 'amd64', arm64: 'arm64' };
const { values: options } = parseArgs({
  options: {
    out: { type: 'string', default: join(root, '.data/packages/agent') },
    // The Node.js that goes into the package; another architecture's cannot be asked for its version.
    node: { type: 'string', default: process.execPath },
    'node-version': { type: 'string' },
    arch: { type: 'string', default: process.arch },
    // Of gzip: 1 is quick, 9 is small.
    level: { type: 'string', default: '6' },
  },
});

const read = (...path) => JSON.parse(readFileSync(join(root, ...path), 'utf8'));
const sha256 = (file) => createHash('sha256').update(readFileSync(file)).digest('hex');
const run = (command, args, more = {}) => execFileSync(command, args, { encoding: 'utf8', maxBuffer: 2 ** 26, ...more });

const { arch } = options;
const debianArch = DEBIAN[arch];
if (process.platform !== 'linux' || !debianArch)
  throw new Error(`packages are made on Linux for ${Object.keys(DEBIAN).join(' and ')}, not for ${arch}`);
const version = read('apps/agent/package.json').version;
if (!existsSync(join(root, 'apps/agent/dist/main.js'))) throw new Error('the agent is not built: run `npm run build` first');
const nodeVersion = options['node-version'] ?? (arch === process.arch ? run(options.node, ['--version']).trim() : undefined);
if (!nodeVersion) throw new Error(`give --node-version: a Node.js for ${arch} does not run here`);

const stage = mkdtempSync(join(tmpdir(), 'matfleet-agent-package-'));
try {
  const home = join(stage, PREFIX);
  copyProgram(home);
  const onnxruntime = read('node_modules/onnxruntime-node/package.json').version;
  writeFileSync(
    join(home, 'release.json'),
    `${JSON.stringify({ name: 'matfleet-agent', version, arch, node: { version: nodeVersion, sha256: sha256(join(home, 'bin/node')) }, onnxruntime }, null, 2)}\n`,
  );
  const made = pack(home);
  for (const file of made) console.log(`${file}  ${(lstatSync(file).size / 1e6).toFixed(1)} MB  sha256 ${sha256(file)}`);
} finally {
  rmSync(stage, { recursive: true, force: true });
}

/** Our own built code, what it depends on at run time, and Node.js. */
function copyProgram(home) {
  const listed = run('npm', ['ls', '--workspace', '@matfleet/agent', '--omit=dev', '--all', '--parseable'], {
    cwd: root,
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  for (const path of listed
    .split('\n')
    .filter(Boolean)
    .map((line) => relative(root, line))) {
    if (path === '' || path.startsWith('node_modules/@types/')) continue;
    if (lstatSync(join(root, path)).isSymbolicLink()) copyOwn(relative(root, realpathSync(join(root, path))), path, home);
    else cpSync(join(root, path), join(home, path), { recursive: true, filter: (source) => wanted(source, join(root, path)) });
  }
  mkdirSync(join(home, 'bin'), { recursive: true });
  cpSync(options.node, join(home, 'bin/node'), { dereference: true });
  chmodSync(join(home, 'bin/node'), 0o755);
  writeFileSync(
    join(home, 'bin/matfleet-agent'),
    '#!/bin/sh\n# The Node.js of this package, whatever else is installed.\nhome=$(dirname -- "$(dirname -- "$(readlink -f -- "$0")")")\nexec "$home/bin/node" "$home/apps/agent/bin/matfleet-agent.mjs" "$@"\n',
    { mode: 0o755 },
  );
  cpSync(join(root, 'LICENSE'), join(home, 'LICENSE'));
  cpSync(join(root, 'deploy/agent.service'), join(home, 'matfleet-agent.service'));
  cpSync(join(root, 'deploy/agent.json.example'), join(home, 'agent.json.example'));
}

function copyOwn(project, link, home) {
  for (const part of ['package.json', 'dist', 'bin', 'proto'])
    if (existsSync(join(root, project, part)))
      cpSync(join(root, project, part), join(home, project, part), { recursive: true, filter: (source) => !/\.map$|\/testing$/.test(source) });
  if (link === project) return;
  mkdirSync(dirname(join(home, link)), { recursive: true });
  symlinkSync(relative(dirname(link), project), join(home, link));
}

/** Neither what nobody runs nor another platform's libraries; nested packages are listed by themselves. */
function wanted(source, packageDir) {
  const inside = relative(packageDir, source);
  if (/^(tests?|benchmarks?|docs|examples)$/.test(inside) || /(^|\/)node_modules$/.test(inside) || /\.(map|md|ts|cts|mts)$/.test(inside))
    return false;
  const platform = /(^|\/)onnxruntime-node\/bin\/napi-v\d+\/(\w+)(?:\/(\w+))?/.exec(source);
  return !platform || (platform[2] === 'linux' && (platform[3] === undefined || platform[3] === arch));
}

function pack(home) {
  const out = resolve(options.out);
  mkdirSync(out, { recursive: true });
  const epoch = process.env['SOURCE_DATE_EPOCH'] ?? run('git', ['log', '-1', '--format=%ct'], { cwd: root }).trim();
  const tarball = join(out, `matfleet-agent-${version}-linux-${arch}.tar.gz`);
  const name = basename(tarball, '.tar.gz');
  const sorted = ['--sort=name', `--mtime=@${epoch}`, '--owner=0', '--group=0', '--numeric-owner', '--mode=go-w'];
  run('sh', [
    '-c',
    `tar "$@" | gzip -n -${Number(options.level)} > "$0"`,
    tarball,
    ...sorted,
    '-C',
    home,
    `--transform=flags=r;s,^\\.,${name},`,
    '-c',
    '.',
  ]);

  const systemd = join(stage, 'lib/systemd/system');
  mkdirSync(systemd, { recursive: true });
  cpSync(join(root, 'deploy/agent.service'), join(systemd, 'matfleet-agent.service'));
  mkdirSync(join(stage, 'usr/bin'), { recursive: true });
  symlinkSync(`/${PREFIX}/bin/matfleet-agent`, join(stage, 'usr/bin/matfleet-agent'));
  mkdirSync(join(stage, 'etc/matfleet'), { recursive: true });
  chmodSync(join(stage, 'etc/matfleet'), 0o700);
  const documents = join(stage, 'usr/share/doc/matfleet-agent');
  mkdirSync(documents, { recursive: true });
  cpSync(join(root, 'LICENSE'), join(documents, 'copyright'));
  cpSync(join(root, 'deploy/agent.json.example'), join(documents, 'agent.json.example'));
  const control = join(stage, 'DEBIAN');
  mkdirSync(control);
  for (const file of readdirSync(join(root, 'deploy/debian'))) {
    const text = readFileSync(join(root, 'deploy/debian', file), 'utf8')
      .replace('@VERSION@', version)
      .replace('@ARCHITECTURE@', debianArch);
    writeFileSync(join(control, file), text, { mode: file === 'control' ? 0o644 : 0o755 });
  }
  const deb = join(out, `matfleet-agent_${version}_${debianArch}.deb`);
  run('dpkg-deb', ['--root-owner-group', '-Zgzip', `-z${Number(options.level)}`, '--build', stage, deb], {
    env: { ...process.env, SOURCE_DATE_EPOCH: epoch },
  });
  return [tarball, deb];
}
