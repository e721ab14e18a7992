import { Injectable } from '@nestjs/common';
import { Histogram } from '@matfleet/model';
import type { Actor } from '../audit/audit.js';
import { appendAudit } from '../audit/audit.repository.js';
import { Batcher } from '../database/batcher.js';
import { fenced, type Fence } from '../database/fence.js';
import { PrismaService } from '../database/prisma.service.js';
import { Prisma, type Device } from '../generated/prisma/client.js';
import type { LabelPatch, Labels } from './device-labels.js';
import type { Standing } from '../identity/identity.js';
import type { NamePage } from './device-filter.repository.js';
import type { Activation, Capabilities, DeviceRecord, Hello, Observed, Phase, PhaseReport } from './device.js';
import type { LatencyReport, LatencyWindow } from './latency-windows.js';

type Row = Omit<Device, 'publicKeyHash' | 'createdAt' | 'bootId' | 'boots' | 'standingAt'>;

const COLUMNS = Prisma.raw(
  `d.id, d.tenant_id AS "tenantId", d.name, d.standing, d.standing_reason AS "standingReason", d.labels, d.agent_version AS "agentVersion", d.epoch, d.replica_id AS "replicaId", d.last_seen_at AS "lastSeenAt", d.capabilities, d.model_version_id AS "modelVersionId", d.generation, d.observed, d.phase, d.activation,
   d.phase_error AS "phaseError", d.fetched_bytes AS "fetchedBytes", d.total_bytes AS "totalBytes", d.latency_correction AS "latencyCorrection"`,
);
/** The newest desired document of device `d`, as `a`. */
const NEWEST = Prisma.raw('assignments a ON a.device_id = d.id AND a.generation = d.generation');
const PAGE = 1_000;
const time = (at: Date): Prisma.Sql => Prisma.sql`${at.toISOString()}::timestamptz AT TIME ZONE 'UTC'`;

/** Devices and their latency in PostgreSQL. What sessions ask for is answered in batches. */
@Injectable()
export class DeviceRepository {
  private readonly finds = new Batcher<string, Row | null>(async (ids) => {
    const rows = await this.prisma.$queryRaw<Row[]>`SELECT ${COLUMNS} FROM devices d WHERE d.id = ANY(${ids})`;
    const byId = new Map(rows.map((row) => [row.id, row]));
    return ids.map((id) => byId.get(id) ?? null);
  });
  private readonly hellos = new Batcher<Hello & { id: string; replicaId: string }, Row | null>(
    (hellos) => this.writeHellos(hellos),
    ({ id }) => id,
  );
  private readonly reports = new Batcher<PhaseReport & { id: string; epoch: bigint }, boolean>(
    (reports) => this.writeReports(reports),
    ({ id }) => id,
  );

  constructor(private readonly prisma: PrismaService) {}

  /** By name: all, or these. */
  async list(ids?: readonly string[]): Promise<DeviceRecord[]> {
    return (await this.prisma.device.findMany({ where: ids && { id: { in: [...ids] } }, orderBy: { name: 'asc' } })).map(record);
  }

  count(): Promise<number> {
    return this.prisma.device.count();
  }

  /** By name, those after `after`. */
  async page({ after, limit }: NamePage): Promise<DeviceRecord[]> {
    return (await this.prisma.device.findMany({ where: { name: { gt: after } }, orderBy: { name: 'asc' }, take: limit })).map(record);
  }

  /** Of every device that is not refused. */
  async ids(): Promise<string[]> {
    return (await this.prisma.device.findMany({ where: { standing: 'accepted' }, select: { id: true } })).map((row) => row.id);
  }

  async find(id: string): Promise<DeviceRecord | null> {
    const row = await this.finds.add(id);
    return row && record(row);
  }

  /** Raises the epoch, at this replica; null for an unknown device. */
  async hello(id: string, hello: Hello, replicaId: string): Promise<DeviceRecord | null> {
    const row = await this.hellos.add({ ...hello, id, replicaId });
    return row && record(row);
  }

  private async writeHellos(hellos: readonly (Hello & { id: string; replicaId: string })[]): Promise<(Row | null)[]> {
    const rows = await this.prisma.$queryRaw<Row[]>`
      UPDATE devices d
      SET epoch = d.epoch + 1, replica_id = h."replicaId", boot_id = h."bootId", agent_version = h."agentVersion", capabilities = h.capabilities,
          observed = COALESCE(h.observed, d.observed), last_seen_at = ${time(new Date())}
      FROM jsonb_to_recordset(${JSON.stringify(hellos)}::jsonb)
        AS h(id text, "replicaId" text, "bootId" text, "agentVersion" text, capabilities jsonb, observed jsonb)
      WHERE d.id = h.id
      RETURNING ${COLUMNS}`;
    const byId = new Map(rows.map((row) => [row.id, row]));
    return hellos.map(({ id }) => byId.get(id) ?? null);
  }

  /**
   * Only from the session that holds the epoch. What runs is always news; progress and failure count only for the newest generation. False when
   * nothing was written.
   */
  report(id: string, epoch: bigint, report: PhaseReport): Promise<boolean> {
    return this.reports.add({ ...report, id, epoch });
  }

  private async writeReports(reports: readonly (PhaseReport & { id: string; epoch: bigint })[]): Promise<boolean[]> {
    const input = JSON.stringify(reports.map((report) => ({ ...report, epoch: Number(report.epoch) })));
    const rows = await this.prisma.$queryRaw<{ id: string }[]>`
      UPDATE devices d
      SET observed = COALESCE(r.observed, d.observed),
          phase = CASE WHEN r.generation = d.generation THEN r.phase ELSE d.phase END,
          phase_error = CASE WHEN r.generation = d.generation THEN r.error ELSE d.phase_error END,
          activation = CASE WHEN r.generation = d.generation THEN r.activation ELSE d.activation END,
          fetched_bytes = CASE WHEN r.generation = d.generation THEN r."fetchedBytes" ELSE d.fetched_bytes END,
          total_bytes = CASE WHEN r.generation = d.generation THEN r."totalBytes" ELSE d.total_bytes END
      FROM jsonb_to_recordset(${input}::jsonb)
        AS r(id text, epoch bigint, generation bigint, phase text, observed jsonb, "fetchedBytes" bigint, "totalBytes" bigint, error text, activation jsonb)
      WHERE d.id = r.id AND d.epoch = r.epoch AND (r.generation = d.generation OR r.observed IS NOT NULL)
      RETURNING d.id`;
    const written = new Set(rows.map((row) => row.id));
    return reports.map(({ id }) => written.has(id));
  }

  /** The labels after it; reads under a lock, so that two patches at once both count. Null for an unknown device. */
  async patchLabels(id: string, patch: LabelPatch, max: number, actor: Actor): Promise<Labels | 'too-many' | null> {
    return this.prisma.$transaction(async (transaction) => {
      const [row] = await transaction.$queryRaw<{ labels: Labels }[]>`SELECT labels FROM devices WHERE id = ${id} FOR UPDATE`;
      if (!row) return null;
      const labels = Object.fromEntries(Object.entries({ ...row.labels, ...patch }).filter(([, value]) => value !== null)) as Record<string, string>;
      if (Object.keys(labels).length > max) return 'too-many';
      await transaction.device.update({ where: { id }, data: { labels } });
      await appendAudit(transaction, { actor, action: 'device.labelled', subject: `device:${id}`, before: row.labels, after: labels });
      return labels;
    });
  }

  async setProblem(id: string, message: string): Promise<void> {
    await this.prisma.device.updateMany({ where: { id }, data: { phase: 'failed', phaseError: message } });
  }

  async setLatencyCorrection(id: string, latencyCorrection: number): Promise<void> {
    await this.prisma.device.updateMany({ where: { id }, data: { latencyCorrection } });
  }

  /** A statement for a thousand devices that beat since the last flush. */
  async flushSeen(ids: readonly string[], at: Date): Promise<void> {
    for (let from = 0; from < ids.length; from += PAGE)
      await this.prisma.$executeRaw`UPDATE devices SET last_seen_at = ${time(at)} WHERE id = ANY(${ids.slice(from, from + PAGE)})`;
  }

  /** Devices that were seen in the last `withinMs` before the last time that any was, without those that these replicas hold. */
  async lastHere(withinMs: number, livingReplicaIds: readonly string[]): Promise<{ id: string; tenantId: string; epoch: bigint }[]> {
    return this.prisma.$queryRaw`
      SELECT id, tenant_id AS "tenantId", epoch FROM devices
      WHERE (replica_id IS NULL OR replica_id <> ALL(${[...livingReplicaIds]}::text[])) AND last_seen_at >= (SELECT max(last_seen_at) FROM devices) - make_interval(secs => ${withinMs / 1_000}::double precision)`;
  }

  async addWindows(windows: readonly LatencyWindow[]): Promise<void> {
    if (windows.length === 0) return;
    const rows = await this.prisma.device.findMany({
      where: { id: { in: windows.map((window) => window.deviceId) } },
      select: { id: true, tenantId: true },
    });
    const known = new Map(rows.map((row) => [row.id, row.tenantId]));
    await this.prisma.latencyWindow.createMany({
      skipDuplicates: true,
      data: windows
        .filter((window) => known.has(window.deviceId))
        .map((window) => ({
          tenantId: known.get(window.deviceId)!,
          deviceId: window.deviceId,
          windowStart: new Date(window.startMs),
          modelVersionId: window.modelVersionId,
          sliceId: window.sliceId,
          ttft: window.ttft,
          interToken: window.interToken,
          queue: window.queue,
          outputTokens: BigInt(window.outputTokens),
          failed: BigInt(window.failed),
        })),
    });
  }

  async dropWindowsBefore(before: Date, fence: Fence): Promise<void> {
    await fenced(this.prisma, fence, (tx) => tx.latencyWindow.deleteMany({ where: { windowStart: { lt: before } } }));
  }

  /** Of these devices, newest first; at most 2000 rows. */
  async windowsSince(since: Date, deviceIds: readonly string[]): Promise<Map<string, LatencyReport[]>> {
    const rows = await this.prisma.latencyWindow.findMany({
      where: { windowStart: { gte: since }, deviceId: { in: [...deviceIds] } },
      orderBy: { windowStart: 'desc' },
      take: 2_000,
    });
    const byDevice = new Map<string, LatencyReport[]>();
    for (const row of rows) {
      const window = {
        modelVersionId: row.modelVersionId,
        sliceId: row.sliceId,
        ttft: Histogram.parse(row.ttft),
        interToken: Histogram.parse(row.interToken),
        queue: Histogram.parse(row.queue),
        outputTokens: Number(row.outputTokens),
        failed: Number(row.failed),
      };
      byDevice.set(row.deviceId, [...(byDevice.get(row.deviceId) ?? []), window]);
    }
    return byDevice;
  }

  /** The newest desired document of each device. */
  async desired(deviceIds: readonly string[]): Promise<Map<string, Wanted>> {
    const rows = await this.prisma.$queryRaw<(Omit<Wanted, 'generation'> & { deviceId: string; generation: bigint })[]>`
      SELECT d.id AS "deviceId", a.generation, a.model_version_id AS "modelVersionId", m.name AS "modelName", a.slice_id AS "sliceId", a.reason
      FROM devices d JOIN ${NEWEST} JOIN model_versions m ON m.tenant_id = a.tenant_id AND m.id = a.model_version_id WHERE d.id = ANY(${deviceIds})`;
    return new Map(rows.map(({ deviceId, generation, ...row }) => [deviceId, { ...row, generation: Number(generation) }]));
  }

  /** Devices after `afterId`, by id, whose newest document they do not show yet, have not failed and are not held to; at most 1000. */
  async behind(afterId: string): Promise<string[]> {
    const rows = await this.prisma.$queryRaw<{ id: string }[]>`
      SELECT d.id FROM devices d
      WHERE d.id > ${afterId} AND d.generation > COALESCE((d.observed->>'generation')::bigint, 0) AND COALESCE(d.phase NOT IN ('failed', 'fetched'), TRUE)
      ORDER BY d.id LIMIT ${PAGE}`;
    return rows.map((row) => row.id);
  }

  /** Devices after `afterId`, by id, whose learned correction lies beyond `tolerance` of 1; at most 1000. */
  async corrected(tolerance: number, afterId: string): Promise<{ id: string; tenantId: string; latencyCorrection: number }[]> {
    return this.prisma.$queryRaw`
      SELECT id, tenant_id AS "tenantId", latency_correction AS "latencyCorrection" FROM devices
      WHERE id > ${afterId} AND abs(ln(latency_correction)) >= ${tolerance} ORDER BY id LIMIT ${PAGE}`;
  }

  /** Devices that never had a desired document, though they said what they can do. */
  async unassigned(): Promise<string[]> {
    return (await this.prisma.device.findMany({ where: { generation: 0n, epoch: { gt: 0n } }, select: { id: true } })).map((row) => row.id);
  }
}

interface Wanted {
  readonly generation: number;
  readonly modelVersionId: string;
  readonly modelName: string;
  readonly sliceId: string;
  readonly reason: string;
}

const record = (row: Row): DeviceRecord => ({
  id: row.id,
  tenantId: row.tenantId,
  name: row.name,
  labels: row.labels as unknown as Labels,
  agentVersion: row.agentVersion,
  standing: row.standing as Standing,
  standingReason: row.standingReason,
  epoch: row.epoch,
  replicaId: row.replicaId,
  lastSeenAt: row.lastSeenAt,
  capabilities: row.capabilities as unknown as Capabilities | null,
  modelVersionId: row.modelVersionId,
  generation: Number(row.generation),
  observed: row.observed as unknown as Observed | null,
  phase: row.phase as Phase | null,
  phaseError: row.phaseError,
  activation: row.activation as unknown as Activation | null,
  fetchedBytes: Number(row.fetchedBytes),
  totalBytes: Number(row.totalBytes),
  latencyCorrection: row.latencyCorrection,
});
