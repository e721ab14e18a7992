import { randomUUID } from 'node:crypto';
import { Injectable } from '@nestjs/common';
import { Histogram } from '@matfleet/model';
import { PrismaService } from '../database/prisma.service.js';
import type { Device, Prisma } from '../generated/prisma/client.js';
import type { LabelPatch, Labels } from './device-labels.js';
import type { Capabilities, DeviceRecord, Observed, Phase, PhaseReport } from './device.js';
import type { LatencyReport, LatencyWindow } from './latency-windows.js';

/** Devices and their latency in PostgreSQL. */
@Injectable()
export class DeviceRepository {
  constructor(private readonly prisma: PrismaService) {}

  /** By name: all, or these. */
  async list(ids?: readonly string[]): Promise<DeviceRecord[]> {
    return (await this.prisma.device.findMany({ where: ids && { id: { in: [...ids] } }, orderBy: { name: 'asc' } })).map(record);
  }

  count(): Promise<number> {
    return this.prisma.device.count();
  }

  async find(id: string): Promise<DeviceRecord | null> {
    const row = await this.prisma.device.findUnique({ where: { id } });
    return row && record(row);
  }

  async findByKey(publicKeyHash: string): Promise<DeviceRecord | null> {
    const row = await this.prisma.device.findUnique({ where: { publicKeyHash } });
    return row && record(row);
  }

  /** The public key that a device's certificate must carry. */
  async keyHashOf(id: string): Promise<string | null> {
    return (await this.prisma.device.findUnique({ where: { id }, select: { publicKeyHash: true } }))?.publicKeyHash ?? null;
  }

  /** A taken name gets the first free number. */
  async create(publicKeyHash: string, wantedName: string): Promise<DeviceRecord> {
    for (let suffix = 1; ; suffix++) {
      const name = suffix === 1 ? wantedName : `${wantedName}-${suffix}`;
      if ((await this.prisma.device.count({ where: { name } })) > 0) continue;
      try {
        return record(await this.prisma.device.create({ data: { id: randomUUID(), name, publicKeyHash } }));
      } catch (error) {
        const existing = await this.findByKey(publicKeyHash);
        if (existing) return existing;
        if (!isUniqueViolation(error) || suffix > 10_000) throw error;
      }
    }
  }

  async remove(id: string): Promise<boolean> {
    return (await this.prisma.device.deleteMany({ where: { id } })).count === 1;
  }

  /** Raises the epoch; null for an unknown device. */
  async hello(
    id: string,
    hello: { bootId: string; agentVersion: string; capabilities: Capabilities; observed: Observed | null },
    now: Date,
  ): Promise<DeviceRecord | null> {
    const data = {
      epoch: { increment: 1 },
      bootId: hello.bootId,
      agentVersion: hello.agentVersion,
      capabilities: hello.capabilities as unknown as Prisma.InputJsonValue,
      lastSeenAt: now,
      ...(hello.observed && { observed: hello.observed as unknown as Prisma.InputJsonValue }),
    };
    if ((await this.prisma.device.count({ where: { id } })) === 0) return null;
    return record(await this.prisma.device.update({ where: { id }, data }));
  }

  /** Only from the session that holds the epoch. What runs is always news; progress and failure count only for the newest generation. */
  async report(id: string, epoch: bigint, report: PhaseReport): Promise<boolean> {
    const progress = {
      phase: report.phase,
      phaseError: report.error,
      fetchedBytes: BigInt(report.fetchedBytes),
      totalBytes: BigInt(report.totalBytes),
    };
    const [current, observed] = await this.prisma.$transaction([
      this.prisma.device.updateMany({ where: { id, epoch, generation: BigInt(report.generation) }, data: progress }),
      this.prisma.device.updateMany({
        where: { id, epoch },
        data: report.observed ? { observed: report.observed as unknown as Prisma.InputJsonValue } : { epoch },
      }),
    ]);
    return current.count === 1 || (observed.count === 1 && report.observed !== null);
  }

  /** The labels after it; reads under a lock, so that two patches at once both count. Null for an unknown device. */
  async patchLabels(id: string, patch: LabelPatch, max: number): Promise<Labels | 'too-many' | null> {
    return this.prisma.$transaction(async (transaction) => {
      const [row] = await transaction.$queryRaw<{ labels: Labels }[]>`SELECT labels FROM devices WHERE id = ${id} FOR UPDATE`;
      if (!row) return null;
      const labels = Object.fromEntries(Object.entries({ ...row.labels, ...patch }).filter(([, value]) => value !== null)) as Record<string, string>;
      if (Object.keys(labels).length > max) return 'too-many';
      await transaction.device.update({ where: { id }, data: { labels } });
      return labels;
    });
  }

  async setProblem(id: string, message: string): Promise<void> {
    await this.prisma.device.updateMany({ where: { id }, data: { phase: 'failed', phaseError: message } });
  }

  async setLatencyCorrection(id: string, latencyCorrection: number): Promise<void> {
    await this.prisma.device.updateMany({ where: { id }, data: { latencyCorrection } });
  }

  /** One statement for all devices that beat since the last flush. */
  async flushSeen(ids: readonly string[], at: Date): Promise<void> {
    if (ids.length > 0) await this.prisma.device.updateMany({ where: { id: { in: [...ids] } }, data: { lastSeenAt: at } });
  }

  async addWindows(windows: readonly LatencyWindow[]): Promise<void> {
    if (windows.length === 0) return;
    const known = new Set(
      (await this.prisma.device.findMany({ where: { id: { in: windows.map((window) => window.deviceId) } }, select: { id: true } })).map(
        (row) => row.id,
      ),
    );
    await this.prisma.latencyWindow.createMany({
      skipDuplicates: true,
      data: windows
        .filter((window) => known.has(window.deviceId))
        .map((window) => ({
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

  async dropWindowsBefore(before: Date): Promise<void> {
    await this.prisma.latencyWindow.deleteMany({ where: { windowStart: { lt: before } } });
  }

  /** By device, newest first, at most 2000 rows. */
  async windowsSince(since: Date, deviceId?: string): Promise<Map<string, LatencyReport[]>> {
    const rows = await this.prisma.latencyWindow.findMany({
      where: { windowStart: { gte: since }, ...(deviceId && { deviceId }) },
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
  async desired(
    deviceIds: readonly string[],
  ): Promise<Map<string, { generation: number; modelVersionId: string; modelName: string; sliceId: string; reason: string }>> {
    const rows = await this.prisma.assignment.findMany({
      where: { deviceId: { in: [...deviceIds] } },
      orderBy: [{ deviceId: 'asc' }, { generation: 'desc' }],
      distinct: ['deviceId'],
      select: { deviceId: true, generation: true, modelVersionId: true, sliceId: true, reason: true, modelVersion: { select: { name: true } } },
    });
    return new Map(
      rows.map((row) => [
        row.deviceId,
        {
          generation: Number(row.generation),
          modelVersionId: row.modelVersionId,
          modelName: row.modelVersion.name,
          sliceId: row.sliceId,
          reason: row.reason,
        },
      ]),
    );
  }
}

const record = (row: Device): DeviceRecord => ({
  id: row.id,
  name: row.name,
  labels: row.labels as unknown as Labels,
  agentVersion: row.agentVersion,
  epoch: row.epoch,
  lastSeenAt: row.lastSeenAt,
  capabilities: row.capabilities as unknown as Capabilities | null,
  modelVersionId: row.modelVersionId,
  generation: Number(row.generation),
  observed: row.observed as unknown as Observed | null,
  phase: row.phase as Phase | null,
  phaseError: row.phaseError,
  fetchedBytes: Number(row.fetchedBytes),
  totalBytes: Number(row.totalBytes),
  latencyCorrection: row.latencyCorrection,
});

const isUniqueViolation = (error: unknown): boolean => error instanceof Error && 'code' in error && error.code === 'P2002';
