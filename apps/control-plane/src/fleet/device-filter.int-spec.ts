import 'reflect-metadata';
import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { asTenant } from '../../../../test/support/as-tenant.js';
import { createDatabase, type TestDatabase } from '../../../../test/support/database.js';
import { migrate } from '../database/migrate.js';
import { PrismaService } from '../database/prisma.service.js';
import { DEFAULT_TENANT } from '../database/scope.js';
import type { Presence } from '../domain/presence.js';
import type { Capabilities, DeviceView, Phase } from './device.js';
import { filterable, parseFilter } from './device-filter.js';
import { DeviceFilterRepository, type Present } from './device-filter.repository.js';

const GIB = 2 ** 30;
/** Few values, so that random conditions meet them. */
const sites = ['berlin', 'paris', '', "o'hare", 'ünïcode %_\\'];
const cores = [0, 1, 4, 8];
const memories = [0, GIB, 8 * GIB];

/** The same for every run: a device in each corner, some that never spoke. */
const devices: DeviceView[] = Array.from({ length: 60 }, (_, index) => {
  const told = index % 7 !== 3;
  const capabilities = {
    architecture: ['x64', 'arm64'][index % 2]!,
    platform: 'linux',
    cores: cores[index % 4]!,
    cpuFeatures: [[], ['avx2'], ['avx2', 'fma']][index % 3]!,
    totalMemoryBytes: memories[index % 3]!,
    availableMemoryBytes: GIB,
    modelMemoryBytes: index % 7 === 0 ? 0 : 3 * 10 ** 9 + index,
    runtimeMemoryBytes: 0,
    freeDiskBytes: index * 10 ** 9,
    memoryBandwidthBytesPerSecond: 10 ** 10,
    executionProviders: ['cpu'],
    nodeVersion: 'v22',
    runtimeVersion: '1',
  } satisfies Capabilities;
  return {
    id: randomUUID(),
    name: `device-${String(index).padStart(2, '0')}`,
    labels: { ...(index % 2 === 0 && { site: sites[(index / 2) % sites.length]! }), ...(index % 3 === 0 && { ring: 'canary' }) },
    standing: 'accepted' as const,
    standingReason: null,
    presence: (['online', 'suspect', 'offline'] as const)[index % 3]! satisfies Presence,
    agentVersion: told ? '0.1.0' : null,
    effective: null,
    capabilities: told ? capabilities : null,
    observed: index % 4 === 1 ? { generation: 1, modelVersionId: 'a'.repeat(64), sliceId: ['s-32', 's-128'][index % 2]! } : null,
    phase: told ? (['active', 'failed'] as Phase[])[index % 2]! : null,
    lastSeenAt: null,
    condition: null,
    desired: null,
    phaseError: null,
    activation: null,
    fetchedBytes: 0,
    totalBytes: 0,
    latency: null,
    latencyCorrection: 1,
  };
});
const present: Present = {
  online: devices.filter((device) => device.presence === 'online').map((device) => device.id),
  suspect: devices.filter((device) => device.presence === 'suspect').map((device) => device.id),
};

describe('a filter in PostgreSQL', () => {
  let database: TestDatabase;
  let prisma: PrismaService;
  let filters: DeviceFilterRepository;

  beforeAll(async () => {
    database = await createDatabase();
    await migrate(database.url);
    prisma = new PrismaService(database.url);
    filters = asTenant(new DeviceFilterRepository(prisma));
    await prisma.system.device.createMany({
      data: devices.map(({ id, name, labels, agentVersion, capabilities, observed, phase }) => ({
        tenantId: DEFAULT_TENANT,
        id,
        name,
        labels,
        agentVersion,
        phase,
        publicKeyHash: id,
        ...(capabilities && { capabilities: { ...capabilities } }),
        ...(observed && { observed: { ...observed } }),
      })),
    });
  });
  afterAll(async () => {
    await prisma?.$disconnect();
    await database?.drop();
  });

  const found = (text: string): Promise<string[]> => filters.matching(parseFilter(text).condition, present);
  const expected = (text: string): string[] => devices.filter((device) => parseFilter(text).matches(filterable(device))).map((device) => device.id);

  it('finds devices by label, presence and memory, by name', async () => {
    const ids = await found('labels.site == "berlin" && presence != "offline" && memoryBytes >= GiB(1)');
    expect(ids.length).toBeGreaterThan(0);
    expect(ids).toEqual(
      devices
        .filter(
          ({ labels, presence, capabilities }) =>
            labels['site'] === 'berlin' && presence !== 'offline' && (capabilities?.totalMemoryBytes ?? 0) >= GIB,
        )
        .map((device) => device.id),
    );
  });

  it('means the same as in memory, whatever the filter', async () => {
    const text = fc.constantFrom(...sites, 'canary', 'x64', 'online', 'device-1', 's-32', '0.1.0', 'a').map((value) => JSON.stringify(value));
    const operand = fc.constantFrom('name', 'labels.site', 'labels["ring"]', 'labels.none', 'architecture', 'agentVersion', 'slice', 'model', 'id');
    const number = fc.constantFrom('0', '1', '4', '-1', 'GiB(8)', 'GB(3)', 'GB(30)');
    const numberField = fc.constantFrom('cores', 'memoryBytes', 'grantBytes', 'freeDiskBytes', 'bandwidthBytesPerSecond');
    const leaf = fc.oneof(
      fc.tuple(operand, fc.constantFrom('==', '!='), text).map((parts) => parts.join(' ')),
      fc.tuple(operand, fc.constantFrom('startsWith', 'endsWith', 'contains'), text).map(([left, method, value]) => `${left}.${method}(${value})`),
      fc.tuple(operand, fc.array(text, { minLength: 1, maxLength: 3 })).map(([left, values]) => `${left} in [${values.join(', ')}]`),
      fc.tuple(numberField, fc.constantFrom('==', '!=', '<', '<=', '>', '>='), number).map((parts) => parts.join(' ')),
      fc.tuple(numberField, fc.array(number, { minLength: 1, maxLength: 3 })).map(([left, values]) => `${left} in [${values.join(', ')}]`),
      fc
        .constantFrom('presence', 'phase')
        .chain((field) =>
          fc
            .tuple(
              fc.constantFrom('==', '!='),
              fc.constantFrom(...(field === 'phase' ? ['active', 'failed', 'fetching'] : ['online', 'suspect', 'offline'])),
            )
            .map(([order, value]) => `${field} ${order} "${value}"`),
        ),
      fc.constantFrom('"site" in labels', '"none" in labels', '"avx2" in cpuFeatures', '"cpu" in executionProviders', 'true', 'false'),
    );
    const { tree } = fc.letrec<{ tree: string }>((tie) => ({
      tree: fc.oneof(
        { maxDepth: 4 },
        leaf,
        fc.tuple(tie('tree'), fc.constantFrom('&&', '||'), tie('tree')).map(([left, operator, right]) => `(${left} ${operator} ${right})`),
        tie('tree').map((of) => `!(${of})`),
      ),
    }));
    await fc.assert(
      fc.asyncProperty(tree, async (filter) => expect(await found(filter)).toEqual(expected(filter))),
      { numRuns: 400, endOnFailure: true },
    );
  });

  it('treats a value that looks like SQL as a value', async () => {
    expect(await found(`name == "'; DROP TABLE devices; --"`)).toEqual([]);
    expect(await found('labels["site\' OR true --"] == "x"')).toEqual([]);
    expect(await prisma.system.device.count()).toBe(devices.length);
  });
});
