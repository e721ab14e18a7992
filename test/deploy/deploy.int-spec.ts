import { execFile, execFileSync } from 'node:child_process';
import { copyFileSync, cpSync, existsSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, describe, expect, it } from '@jest/globals';
import { repositoryRoot } from '@matfleet/harness';
import { parse } from 'yaml';

const deploy = join(repositoryRoot, 'deploy');
const read = (...path: string[]): string => readFileSync(join(repositoryRoot, ...path), 'utf8');
const dockerfiles = ['control-plane.Dockerfile', 'agent.Dockerfile'] as const;

interface Service {
  image: string;
  build?: { context: string; dockerfile: string };
  environment?: Record<string, string>;
  secrets?: string[];
  ports?: string[];
  volumes?: string[];
  networks?: string[] | Record<string, unknown>;
  depends_on?: Record<string, { condition: string }>;
  healthcheck?: { test: string[] };
  mem_limit?: string;
  security_opt?: string[];
}
const compose = parse(read('deploy/compose.yaml')) as {
  services: Record<'postgres' | 'redis' | 'control-plane' | 'agent', Service>;
  networks: Record<string, unknown>;
  volumes: Record<string, unknown>;
  secrets: Record<string, { file: string }>;
};
const services = Object.entries(compose.services);
/** Defaults by variable, as `.env.example` states them. */
const variables = new Map([...read('.env.example').matchAll(/^([A-Z][A-Z0-9_]*)=(.*)$/gm)].map(([, name, value]) => [name!, value!]));

const scratch = mkdtempSync(join(tmpdir(), 'matfleet-deploy-'));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

describe.each(dockerfiles)('%s', (file) => {
  const text = read('deploy', file).replaceAll(/\\\n\s*/g, ' ');
  const instructions = text.split('\n').filter((line) => /^[A-Z]+ /.test(line));
  const stages = [...text.matchAll(/^FROM \S+ AS (\S+)/gm)].map(([, name]) => name);
  const last = instructions.slice(instructions.findLastIndex((line) => line.startsWith('FROM ')));

  it('starts from a pinned slim image', () => {
    expect(text).toMatch(/^ARG NODE_IMAGE=node:\d+\.\d+\.\d+-\w+-slim$/m);
    expect(instructions.filter((line) => line.startsWith('FROM ')).every((line) => line.startsWith('FROM ${NODE_IMAGE}'))).toBe(true);
  });

  it('copies only what exists: in the repository, or out of a stage that is there', () => {
    const copies = instructions.filter((line) => line.startsWith('COPY '));
    expect(copies.length).toBeGreaterThan(5);
    for (const copy of copies) {
      const stage = /--from=(\S+)/.exec(copy)?.[1];
      const sources = copy
        .split(/\s+/)
        .filter((word) => word !== 'COPY' && !word.startsWith('--'))
        .slice(0, -1);
      if (stage) expect(stages).toContain(stage);
      // What a stage has built lies in a project of ours; what it has installed, anywhere.
      const paths =
        stage === 'build' ? sources.map((source) => source.replace(/^\/src\//, '').replace(/\/dist$/, '/package.json')) : stage ? [] : sources;
      for (const path of paths) expect([copy, existsSync(join(repositoryRoot, path))]).toEqual([copy, true]);
    }
  });

  it('copies the build output of every library that its app depends on', () => {
    const app = file === 'agent.Dockerfile' ? 'apps/agent' : 'apps/control-plane';
    for (const project of [app, ...librariesOf(app)]) expect(text).toContain(`COPY --from=build /src/${project}/dist ${project}/dist`);
  });

  it('runs as an ordinary user and is asked for its health', () => {
    expect(last).toContain('USER node');
    expect(last.filter((line) => line.startsWith('HEALTHCHECK '))).toHaveLength(1);
    expect(last.findIndex((line) => line.startsWith('USER'))).toBeLessThan(last.findIndex((line) => line.startsWith('ENTRYPOINT')));
  });
});

/** Our libraries below a project, as its package.json and theirs name them. */
function librariesOf(project: string): string[] {
  const { dependencies = {} } = JSON.parse(read(project, 'package.json')) as { dependencies?: Record<string, string> };
  const direct = Object.keys(dependencies).flatMap((name) => (name.startsWith('@matfleet/') ? [`libs/${name.slice('@matfleet/'.length)}`] : []));
  return [...new Set(direct.flatMap((library) => [library, ...librariesOf(library)]))];
}

describe('compose.yaml', () => {
  it('pins every image that is not built here', () => {
    for (const [name, { image, build }] of services)
      if (!build) expect([name, image]).toEqual([name, expect.stringMatching(/^[a-z]+:\d+\.\d+(\.\d+)?-[a-z]+$/)]);
  });

  it('builds with Dockerfiles that are there', () => {
    for (const [, { build }] of services) if (build) expect(existsSync(join(deploy, build.context, build.dockerfile))).toBe(true);
  });

  it('names only volumes, networks and secrets that it defines, and uses all of them', () => {
    const used = {
      volumes: services.flatMap(([, { volumes = [] }]) => volumes.map((volume) => volume.split(':')[0]!).filter((source) => !/^[./]/.test(source))),
      networks: services.flatMap(([, { networks = {} }]) => (Array.isArray(networks) ? networks : Object.keys(networks))),
      secrets: services.flatMap(([, { secrets = [] }]) => secrets),
    };
    for (const kind of ['volumes', 'networks', 'secrets'] as const)
      expect([...new Set(used[kind])].sort()).toEqual(Object.keys(compose[kind]).sort());
  });

  it('keeps secrets out of environment values', () => {
    for (const [, { environment = {} }] of services)
      for (const [name, value] of Object.entries(environment))
        if (/PASSWORD|SECRET|TOKEN|KEY|_URL/.test(name))
          expect([name, value]).toEqual([expect.stringMatching(/_FILE$/), expect.stringMatching(/^\/run\/secrets\//)]);
  });

  it('sets only variables that .env.example knows', () => {
    const set = Object.keys(compose.services['control-plane'].environment!).map((name) =>
      name.replace(/^((?:DATABASE|DATABASE_MIGRATION|REDIS)_URL)_FILE$/, '$1'),
    );
    expect(set.filter((name) => !variables.has(name))).toEqual([]);
  });

  it('publishes the ports that the control plane listens on by default, the operators’ one on loopback', () => {
    const http = variables.get('MATFLEET_HTTP_PORT');
    const device = variables.get('MATFLEET_DEVICE_PORT');
    expect(compose.services['control-plane'].ports).toEqual([`127.0.0.1:${http}:${http}`, `${device}:${device}`]);
    const image = read('deploy/control-plane.Dockerfile');
    expect(image).toContain(`EXPOSE ${http} ${device}\n`);
    expect(image).toContain(`http://127.0.0.1:${http}/readyz`);
  });

  it('lets only the operators’ and the devices’ ports out, and starts things in order of need', () => {
    const { postgres, redis, 'control-plane': controlPlane, agent } = compose.services;
    expect([postgres.ports, redis.ports, agent.ports]).toEqual([undefined, undefined, undefined]);
    expect(compose.networks['data']).toEqual({ internal: true });
    expect(controlPlane.depends_on).toEqual({ postgres: { condition: 'service_healthy' }, redis: { condition: 'service_healthy' } });
    expect(postgres.healthcheck && redis.healthcheck).toBeDefined();
    expect(agent.mem_limit).toBeDefined();
    for (const [name, { security_opt }] of services) expect([name, security_opt]).toEqual([name, ['no-new-privileges:true']]);
  });
});

describe('secrets', () => {
  const here = join(scratch, 'secrets-run');
  cpSync(deploy, here, { recursive: true, filter: (path) => !path.endsWith('/secrets') });

  it('are made once, kept after that, and closed to other users', () => {
    execFileSync(join(here, 'make-secrets.sh'));
    const made = Object.values(compose.secrets).map(({ file }) => readFileSync(join(here, file), 'utf8'));
    expect(new Set(made).size).toBe(Object.keys(compose.secrets).length);
    execFileSync(join(here, 'make-secrets.sh'));
    expect(Object.values(compose.secrets).map(({ file }) => readFileSync(join(here, file), 'utf8'))).toEqual(made);
    expect(statSync(join(here, 'secrets')).mode & 0o077).toBe(0);
    expect(made.every((secret) => /[0-9a-f]{48}/.test(secret))).toBe(true);
  });

  it('reach a command as variables', () => {
    const environment = { PATH: process.env.PATH!, DATABASE_URL_FILE: join(here, 'secrets/database_url') };
    const output = execFileSync(join(here, 'with-secrets.sh'), ['sh', '-c', 'echo "$DATABASE_URL|${DATABASE_URL_FILE-none}|${REDIS_URL-none}"'], {
      env: environment,
      encoding: 'utf8',
    });
    expect(output.trim()).toBe(`${readFileSync(join(here, 'secrets/database_url'), 'utf8')}|none|none`);
  });

  it('stop the start when a file is missing, with its name', async () => {
    const run = promisify(execFile)(join(here, 'with-secrets.sh'), ['true'], {
      env: { PATH: process.env.PATH!, REDIS_URL_FILE: '/nowhere/redis_url' },
    });
    await expect(run).rejects.toMatchObject({ code: 1, stderr: expect.stringContaining('/nowhere/redis_url') });
  });
});

describe('agent.service', () => {
  const unit = read('deploy/agent.service');

  it('limits memory, restarts for ever, and outlives its engine', () => {
    for (const line of [
      'MemoryMax=1G',
      'Restart=always',
      'StartLimitIntervalSec=0',
      'OOMPolicy=continue',
      'Delegate=memory',
      'NoNewPrivileges=yes',
      'ProtectSystem=strict',
    ])
      expect(unit.split('\n')).toContain(line);
  });

  const withSystemd = existsSync('/usr/bin/systemd-analyze') ? it : it.skip;
  withSystemd('is a unit that systemd accepts', () => {
    const copy = join(scratch, 'matfleet-agent.service');
    copyFileSync(join(deploy, 'agent.service'), copy);
    // The package that holds this program is not installed here.
    const text = readFileSync(copy, 'utf8').replace('/opt/matfleet/bin/matfleet-agent', process.execPath);
    execFileSync('sh', ['-c', 'cat > "$0"', copy], { input: text });
    const complaints = execFileSync('sh', ['-c', 'systemd-analyze verify "$0" 2>&1 || true', copy], { encoding: 'utf8' })
      .split('\n')
      .filter((line) => line.includes('matfleet-agent.service'));
    expect(complaints).toEqual([]);
  });
});
