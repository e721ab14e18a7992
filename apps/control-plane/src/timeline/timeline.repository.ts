import { Injectable } from '@nestjs/common';
import { fenced, type Fence } from '../database/fence.js';
import { PrismaService } from '../database/prisma.service.js';
import type { DeviceEvent } from '../generated/prisma/client.js';
import { type NewEntry, summaryOf, type TimelineDetail, type TimelineEntry, type TimelineKind, type TimelineQuery } from './timeline.js';

/** Rows that one statement removes: a long deletion would hold the leader's fence. */
const SWEEP_MAX = 20_000;

/** What happened to devices, in PostgreSQL. A device's entries outlive the device, until they are old. */
@Injectable()
export class TimelineRepository {
  constructor(private readonly prisma: PrismaService) {}

  /** One statement for all tenants, in the order given. What a session says that was replaced meanwhile is left out. */
  async write(entries: readonly NewEntry[]): Promise<void> {
    const input = JSON.stringify(
      entries.map(({ deviceId, tenantId, atMs, kind, detail, epoch }, ordinal) => ({
        ordinal,
        deviceId,
        tenantId: tenantId ?? null,
        at: new Date(atMs).toISOString(),
        kind,
        detail,
        epoch: epoch === undefined ? null : Number(epoch),
      })),
    );
    await this.prisma.$executeRaw`
      INSERT INTO device_events (tenant_id, device_id, at, kind, detail)
      SELECT COALESCE(d.tenant_id, i."tenantId"), i."deviceId", i.at AT TIME ZONE 'UTC', i.kind, i.detail
      FROM jsonb_to_recordset(${input}::jsonb) AS i("deviceId" text, "tenantId" text, at timestamptz, kind text, detail jsonb, epoch bigint, ordinal bigint)
      LEFT JOIN devices d ON d.id = i."deviceId"
      WHERE (i.epoch IS NULL OR d.epoch = i.epoch) AND COALESCE(d.tenant_id, i."tenantId") IS NOT NULL
      ORDER BY i.ordinal`;
  }

  async page(deviceId: string, { limit, kind, before, after }: TimelineQuery): Promise<TimelineEntry[]> {
    const rows = await this.prisma.deviceEvent.findMany({
      where: {
        deviceId,
        ...(kind !== undefined && { kind }),
        id: { ...(before !== undefined && { lt: BigInt(before) }), ...(after !== undefined && { gt: BigInt(after) }) },
      },
      orderBy: { id: after === undefined ? 'desc' : 'asc' },
      take: limit,
    });
    return rows.map(entry);
  }

  /** Removes what is older than `before`, and of devices that got entries since `since` what is beyond their newest `keep`. */
  async sweep({ before, since, keep }: { before: Date; since: Date; keep: number }, fence: Fence): Promise<void> {
    await fenced(
      this.prisma,
      fence,
      (tx) => tx.$executeRaw`
        DELETE FROM device_events WHERE id IN (
          SELECT id FROM device_events WHERE at < ${before.toISOString()}::timestamptz AT TIME ZONE 'UTC' ORDER BY at LIMIT ${SWEEP_MAX})`,
    );
    await fenced(
      this.prisma,
      fence,
      (tx) => tx.$executeRaw`
        DELETE FROM device_events e
        USING (SELECT DISTINCT device_id FROM device_events WHERE at >= ${since.toISOString()}::timestamptz AT TIME ZONE 'UTC') d,
          LATERAL (SELECT id FROM device_events n WHERE n.device_id = d.device_id ORDER BY id DESC OFFSET ${keep} LIMIT 1) cut
        WHERE e.device_id = d.device_id AND e.id <= cut.id`,
    );
  }
}

const entry = (row: DeviceEvent): TimelineEntry => {
  const kind = row.kind as TimelineKind;
  const detail = row.detail as TimelineDetail;
  return { id: Number(row.id), at: row.at, kind, detail, summary: summaryOf(kind, detail) };
};
