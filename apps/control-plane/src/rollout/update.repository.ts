import { Injectable } from '@nestjs/common';
import { Batcher } from '../database/batcher.js';
import { fenced, type Fence } from '../database/fence.js';
import { PrismaService } from '../database/prisma.service.js';
import type { TargetSight, TargetState, UpdateState } from '../domain/update.js';
import { Prisma } from '../generated/prisma/client.js';
import type { UpdateView } from './update.js';

const LIST_MAX = 100;
const PAGE = 500;
const OPEN: TargetState[] = ['pending', 'pushed'];
const VIEW = { targets: { include: { device: { select: { name: true } } }, orderBy: { device: { name: 'asc' } } } } as const;

/** A target that has not ended, with what the fleet knows of its device. */
export interface OpenTarget {
  readonly updateId: string;
  readonly deviceId: string;
  readonly modelVersionId: string;
  readonly deadlineMs: number;
  readonly sight: TargetSight;
}

interface Move {
  readonly updateId: string;
  readonly deviceId: string;
  readonly state: TargetState;
  readonly generation?: number;
  readonly error?: string;
}

interface OpenRow {
  updateId: string;
  deviceId: string;
  modelVersionId: string;
  deadlineAt: Date;
  state: string;
  generation: bigint | null;
  desiredGeneration: bigint | null;
  desiredVersionId: string | null;
  observed: TargetSight['observed'];
  phase: string | null;
  phaseError: string | null;
}

/** Updates and their targets in PostgreSQL. What the reports of many devices ask for is answered in batches. */
@Injectable()
export class UpdateRepository {
  private readonly opens = new Batcher<string, OpenTarget[]>(async (deviceIds) => {
    const targets = await this.readOpen(Prisma.sql`t.device_id = ANY(${deviceIds})`, Prisma.sql`ORDER BY u.created_at`);
    const byDevice = new Map<string, OpenTarget[]>(deviceIds.map((id) => [id, []]));
    for (const target of targets) byDevice.get(target.deviceId)!.push(target);
    return deviceIds.map((id) => byDevice.get(id)!);
  });
  private readonly moves = new Batcher<Move, boolean>(
    (moves) => this.writeMoves(moves),
    ({ updateId, deviceId }) => `${updateId}/${deviceId}`,
  );
  private readonly states = new Batcher<string, TargetState[]>(async (updateIds) => {
    const rows = await this.prisma.$queryRaw<{ id: string; state: TargetState }[]>`
      SELECT DISTINCT update_id AS id, state FROM update_targets WHERE update_id = ANY(${[...new Set(updateIds)]})`;
    return updateIds.map((id) => rows.filter((row) => row.id === id).map((row) => row.state));
  });

  constructor(private readonly prisma: PrismaService) {}

  async create(update: { id: string; modelVersionId: string; wholeFleet: boolean; deadlineAt: Date; deviceIds: readonly string[] }): Promise<void> {
    const { deviceIds, ...row } = update;
    await this.prisma.$transaction(async (tx) => {
      await tx.update.create({ data: { ...row, state: 'running' } });
      await tx.$executeRaw`
        INSERT INTO update_targets (update_id, device_id, state, changed_at)
        SELECT ${row.id}, device_id, 'pending', ${new Date().toISOString()}::timestamptz AT TIME ZONE 'UTC' FROM unnest(${deviceIds}::text[]) AS device_id`;
    });
  }

  /** Newest first; at most 100. */
  async list(): Promise<UpdateView[]> {
    return (await this.prisma.update.findMany({ include: VIEW, orderBy: { createdAt: 'desc' }, take: LIST_MAX })).map(view);
  }

  async find(id: string): Promise<UpdateView | undefined> {
    const row = await this.prisma.update.findUnique({ where: { id }, include: VIEW });
    return row ? view(row) : undefined;
  }

  /** Of one device, the oldest updates first. */
  openTargets(deviceId: string): Promise<OpenTarget[]> {
    return this.opens.add(deviceId);
  }

  /** Of one update, by device id, those after `afterDeviceId` that wait for their push; at most 500. */
  pendingTargets(updateId: string, afterDeviceId: string): Promise<OpenTarget[]> {
    return this.readOpen(
      Prisma.sql`t.update_id = ${updateId} AND t.state = 'pending' AND t.device_id > ${afterDeviceId}`,
      Prisma.sql`ORDER BY t.device_id LIMIT ${PAGE}`,
    );
  }

  /** Of all updates, by update and device, those after the given one; at most 500. */
  allOpenTargets(after: { updateId: string; deviceId: string }): Promise<OpenTarget[]> {
    return this.readOpen(
      Prisma.sql`(t.update_id, t.device_id) > (${after.updateId}, ${after.deviceId})`,
      Prisma.sql`ORDER BY t.update_id, t.device_id LIMIT ${PAGE}`,
    );
  }

  private async readOpen(where: Prisma.Sql, order: Prisma.Sql): Promise<OpenTarget[]> {
    const rows = await this.prisma.$queryRaw<OpenRow[]>`
      SELECT t.update_id AS "updateId", t.device_id AS "deviceId", u.model_version_id AS "modelVersionId", u.deadline_at AS "deadlineAt", t.state,
        t.generation, a.generation AS "desiredGeneration", a.model_version_id AS "desiredVersionId", d.observed, d.phase, d.phase_error AS "phaseError"
      FROM update_targets t JOIN updates u ON u.id = t.update_id JOIN devices d ON d.id = t.device_id
        LEFT JOIN assignments a ON a.device_id = d.id AND a.generation = d.generation
      WHERE t.state IN ('pending', 'pushed') AND ${where} ${order}`;
    return rows.map((row) => ({
      updateId: row.updateId,
      deviceId: row.deviceId,
      modelVersionId: row.modelVersionId,
      deadlineMs: row.deadlineAt.getTime(),
      sight: {
        state: row.state as TargetState,
        generation: row.generation === null ? null : Number(row.generation),
        desired: row.desiredVersionId === null ? null : { generation: Number(row.desiredGeneration), modelVersionId: row.desiredVersionId },
        observed: row.observed,
        phase: row.phase,
        phaseError: row.phaseError,
      },
    }));
  }

  /** Updates that run although none of their targets does: their process died in between, or all their devices were removed. */
  async endedButRunning(): Promise<string[]> {
    const rows = await this.prisma.update.findMany({ where: { state: 'running', targets: { none: { state: { in: OPEN } } } }, select: { id: true } });
    return rows.map((row) => row.id);
  }

  /** Moves a target that has not ended; false when it had. */
  async move(updateId: string, deviceId: string, to: Omit<Move, 'updateId' | 'deviceId'>, fence?: Fence): Promise<boolean> {
    const move = { updateId, deviceId, ...to };
    if (fence) return (await fenced(this.prisma, fence, (tx) => this.writeMoves([move], tx)))[0]!;
    return this.moves.add(move);
  }

  private async writeMoves(moves: readonly Move[], tx: Prisma.TransactionClient = this.prisma): Promise<boolean[]> {
    const rows = await tx.$queryRaw<{ updateId: string; deviceId: string }[]>`
      UPDATE update_targets t
      SET state = m.state, generation = COALESCE(m.generation, t.generation), error = COALESCE(m.error, t.error),
          changed_at = ${new Date().toISOString()}::timestamptz AT TIME ZONE 'UTC'
      FROM jsonb_to_recordset(${JSON.stringify(moves)}::jsonb) AS m("updateId" text, "deviceId" text, state text, generation bigint, error text)
      WHERE t.update_id = m."updateId" AND t.device_id = m."deviceId" AND t.state IN ('pending', 'pushed')
      RETURNING t.update_id AS "updateId", t.device_id AS "deviceId"`;
    const moved = new Set(rows.map((row) => `${row.updateId}/${row.deviceId}`));
    return moves.map(({ updateId, deviceId }) => moved.has(`${updateId}/${deviceId}`));
  }

  /** The states that the update's targets are in, each once. */
  targetStates(updateId: string): Promise<TargetState[]> {
    return this.states.add(updateId);
  }

  /** Whose update it is; undefined for an unknown one. */
  async tenantOf(id: string): Promise<string | undefined> {
    return (await this.prisma.system.update.findUnique({ where: { id }, select: { tenantId: true } }))?.tenantId;
  }

  /** True when this call ended it. */
  async end(updateId: string, state: Exclude<UpdateState, 'running'>, now: Date, fence?: Fence): Promise<boolean> {
    const data = { state, finishedAt: now };
    const { count } = await fenced(this.prisma, fence, (tx) => tx.update.updateMany({ where: { id: updateId, state: 'running' }, data }));
    return count === 1;
  }
}

interface Row {
  id: string;
  modelVersionId: string;
  state: string;
  createdAt: Date;
  finishedAt: Date | null;
  targets: { deviceId: string; state: string; generation: bigint | null; error: string | null; device: { name: string } }[];
}

const view = (row: Row): UpdateView => ({
  id: row.id,
  modelVersionId: row.modelVersionId,
  state: row.state as UpdateState,
  createdAt: row.createdAt,
  finishedAt: row.finishedAt,
  targets: row.targets.map((target) => ({
    deviceId: target.deviceId,
    deviceName: target.device.name,
    state: target.state as TargetState,
    generation: target.generation === null ? null : Number(target.generation),
    error: target.error,
  })),
});
