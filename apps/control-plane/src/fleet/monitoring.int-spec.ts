import 'reflect-metadata';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { histogramOf } from '@matfleet/model';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import { parser } from '@prometheus-io/lezer-promql';
import { parse } from 'yaml';
import { enrolledDevice } from '../../../../test/support/enrolled-device.js';
import { asTenant } from '../../../../test/support/as-tenant.js';
import { createDatabase, type TestDatabase } from '../../../../test/support/database.js';
import { createApplication } from '../application.js';
import { parseConfig } from '../config.js';
import { migrate } from '../database/migrate.js';
import { createLogger, PinoNestLogger } from '../telemetry.js';
import type { Capabilities } from './device.js';
import { FleetService } from './fleet.service.js';

const deploy = new URL('../../../../deploy/monitoring/', import.meta.url);
const capabilities: Capabilities = {
  architecture: 'x64',
  platform: 'linux',
  cores: 2,
  cpuFeatures: [],
  totalMemoryBytes: 2 ** 30,
  availableMemoryBytes: 2 ** 30,
  modelMemoryBytes: 2 ** 28,
  runtimeMemoryBytes: 0,
  freeDiskBytes: 2 ** 30,
  memoryBandwidthBytesPerSecond: 10 ** 10,
  executionProviders: ['cpu'],
  nodeVersion: 'v22',
  runtimeVersion: '1',
};

/** The metric names of a query; throws where it is no PromQL. */
function metricsOf(query: string): string[] {
  const names: string[] = [];
  parser.parse(query).iterate({
    enter(node) {
      if (node.type.isError) throw new Error(`no PromQL at ${node.from} of: ${query}`);
      if (node.name === 'Identifier' && node.node.parent?.name === 'VectorSelector') names.push(query.slice(node.from, node.to));
    },
  });
  return names;
}

describe('monitoring', () => {
  let database: TestDatabase;
  let dataDir: string;
  let app: NestFastifyApplication;
  let exposition: string;

  beforeAll(async () => {
    database = await createDatabase();
    await migrate(database.url);
    dataDir = await mkdtemp(join(tmpdir(), 'matfleet-monitoring-'));
    const config = parseConfig({ MATFLEET_DATA_DIR: dataDir, MATFLEET_DEVICE_PORT: '0', MATFLEET_HEARTBEAT_MS: '100', MATFLEET_LEASE_MS: '60000' });
    app = await createApplication(config, database.url, new PinoNestLogger(createLogger('fatal')));
    await app.listen(0, '127.0.0.1');
    const fleet = asTenant(app.get(FleetService, { strict: false }));
    const here = await enrolledDevice(app, 'here');
    await enrolledDevice(app, 'away');
    const { epoch } = await fleet.hello(here, { bootId: 'b', agentVersion: '1', capabilities, observed: null });
    const beat = { queued: 0, engineReady: true, availableMemoryBytes: 0, memoryBandwidthBytesPerSecond: 0, condition: null };
    const latency = {
      modelVersionId: 'v',
      sliceId: 's',
      ttft: histogramOf([3, 100]),
      interToken: histogramOf([2, 4, 4, 90_000]),
      queue: histogramOf([]),
      outputTokens: 6,
      failed: 1,
    };
    fleet.beat(here, epoch, { ...beat, latency: [latency] });
    // A window is over after three heartbeats; the sweep of the next one closes it.
    const deadline = Date.now() + 10_000;
    do {
      await new Promise((resolve) => setTimeout(resolve, 100));
      exposition = await (await fetch(`${await app.getUrl()}/metrics`)).text();
    } while (!/^matfleet_output_tokens_total 6$/m.test(exposition) && Date.now() < deadline);
  });
  afterAll(async () => {
    await app?.close();
    await database?.drop();
    await rm(dataDir, { recursive: true, force: true });
  });

  const value = (series: string): number => {
    const line = exposition.split('\n').find((one) => one.startsWith(`${series} `));
    if (!line) throw new Error(`there is no ${series} in /metrics`);
    return Number(line.slice(series.length + 1));
  };

  it('tells who is here', () => {
    const devices = ['online', 'suspect', 'offline'].map((presence) => value(`matfleet_devices{presence="${presence}"}`));
    expect(devices[0]! + devices[1]!).toBe(1);
    expect(devices[2]).toBe(1);
    expect(value('matfleet_lease_brake')).toBe(0);
  });

  it('adds what devices measured into histograms that Prometheus reads', () => {
    const upTo = (le: string) => value(`matfleet_inter_token_seconds_bucket{le="${le}"}`);
    expect(['0.001', '0.002', '0.004', '65.536', '+Inf'].map(upTo)).toEqual([0, 1, 3, 3, 4]);
    expect([value('matfleet_first_token_seconds_count'), value('matfleet_first_token_seconds_sum')]).toEqual([2, 0.103]);
    expect(value('matfleet_device_inferences_failed_total')).toBe(1);
  });

  it('exposes every metric that the dashboard and the alerts ask for', async () => {
    const dashboard = JSON.parse(await readFile(new URL('dashboard.json', deploy), 'utf8')) as {
      panels: { title: string; targets: { expr: string }[] }[];
    };
    const alerts = parse(await readFile(new URL('alerts.yaml', deploy), 'utf8')) as { groups: { rules: { alert: string; expr: string }[] }[] };
    const queries = [
      ...dashboard.panels.flatMap(({ title, targets }) => targets.map(({ expr }) => [title, expr] as const)),
      ...alerts.groups.flatMap(({ rules }) => rules.map(({ alert, expr }) => [alert, expr] as const)),
    ];
    expect(queries.length).toBeGreaterThan(20);
    // `up` is Prometheus' own. A counter with labels has no series before it first counts, but its TYPE line stands.
    const exposed = new Set([
      'up',
      ...[...exposition.matchAll(/^# TYPE (\S+) (\S+)/gm)].flatMap(([, name, type]) =>
        type === 'histogram' ? [`${name}_bucket`, `${name}_sum`, `${name}_count`] : [name!],
      ),
    ]);
    for (const [where, query] of queries) {
      const names = metricsOf(query);
      expect([where, names.length > 0, names.filter((name) => !exposed.has(name))]).toEqual([where, true, []]);
    }
  });
});
