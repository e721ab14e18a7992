import { Injectable } from '@nestjs/common';
import { Batcher } from '../database/batcher.js';
import { PrismaService } from '../database/prisma.service.js';
import type { FailureClass } from '../domain/rollout-plan.js';
import type { ChangeOver, TargetMove, TargetSight, TargetState } from '../domain/rollout-target.js';
import { Prisma } from '../generated/prisma/client.js';
import type { Rollout, RolloutTarget } from './rollout.js';

const PAGE_MAX = 1_000;
const time = (at: Date): Prisma.Sql => Prisma.sql`${at.toISOString()}::timestamptz AT TIME ZONE 'UTC'`;
/** States that end nothing. */
const OPEN = Prisma.sql`('waiting', 'fetching', 'fetched', 'pushed')`;

/** A target with what only the database knows of its device; presence and window are added by who knows the clock. */
export type TargetRow = Omit<TargetSight, 'isHere' | 'window'> & { readonly timeZone: string | null };

interface Row {
  deviceId: string;
  state: TargetState;
  attempts: number;
  changedAt: Date;
  retryAt: Date | null;
  spreadBy: string | null;
  timeZone: string | null;
  heldBy: string | null;
  generation: bigint | null;
  changeOver: ChangeOver | null;
  previousVersionId: string | null;
  desiredGeneration: bigint | null;
  desiredVersionId: string | null;
  observed: TargetSight['observed'];
  phase: string | null;
  phaseError: string | null;
  failure: FailureClass | null;
}

export interface TargetQuery {
  readonly state?: TargetState | undefined;
  readonly wave?: number | undefined;
  /** At most, and without it, 1000. */
  readonly limit?: number | undefined;
  /** Name of the last device of the page before. */
  readonly after?: string | undefined;
}

/** The devices of rollouts in PostgreSQL. */
@Injectable()
export class RolloutTargetRepository {
  private readonly generations = new Batcher<{ rolloutId: string; deviceId: string; generation: number }, void>(
    async (moves) => {
      await this.prisma.$executeRaw`
        UPDATE rollout_targets t SET generation = m.generation
        FROM jsonb_to_recordset(${JSON.stringify(moves)}::jsonb) AS m("rolloutId" text, "deviceId" text, generation bigint)
        WHERE t.rollout_id = m."rolloutId" AND t.device_id = m."deviceId" AND t.state IN ('fetching', 'pushed', 'reverting') AND t.generation IS NULL`;
      return moves.map(() => undefined);
    },
    ({ rolloutId, deviceId }) => `${rolloutId}/${deviceId}`,
  );

  constructor(private readonly prisma: PrismaService) {}

  /** Of a wave, in the rollout's order, those that have not ended. */
  open(rollout: Rollout, wave: number): Promise<TargetRow[]> {
    return this.read(rollout, Prisma.sql`t.wave = ${wave} AND t.state IN ${OPEN}`);
  }

  /** Those that have a document of the rollout, or are on their way back from it. */
  toRevert(rollout: Rollout): Promise<TargetRow[]> {
    return this.read(
      rollout,
      Prisma.sql`(t.state = 'reverting' OR (t.state IN ('waiting', 'fetching', 'fetched', 'pushed', 'succeeded', 'failed') AND t.attempts > 0))`,
    );
  }

  private async read({ id, plan, createdAt }: Rollout, where: Prisma.Sql): Promise<TargetRow[]> {
    // Of two rollouts the older one goes first, unless the newer one says that it does.
    const heldBy =
      plan.overlap === 'supersede'
        ? Prisma.sql`NULL::text`
        : Prisma.sql`CASE WHEN t.state IN ('waiting', 'fetched') THEN (
            SELECT COALESCE(r.name, r.id) FROM rollout_targets o JOIN rollouts r ON r.id = o.rollout_id
            WHERE o.device_id = t.device_id AND o.rollout_id <> t.rollout_id AND r.state IN ('running', 'paused', 'rolling-back')
              AND o.state IN ('waiting', 'fetching', 'fetched', 'pushed', 'reverting') AND (r.created_at, r.id) < (${time(createdAt)}, ${id}) LIMIT 1) END`;
    const rows = await this.prisma.$queryRaw<Row[]>`
      SELECT t.device_id AS "deviceId", t.state, t.attempts, t.changed_at AS "changedAt", t.retry_at AS "retryAt",
        d.labels->>${plan.spread?.label ?? ''} AS "spreadBy", COALESCE(d.labels->>'timezone', d.capabilities->>'timeZone') AS "timeZone", ${heldBy} AS "heldBy",
        t.generation, t.change_over AS "changeOver", t.previous_version_id AS "previousVersionId",
        a.generation AS "desiredGeneration", a.model_version_id AS "desiredVersionId", d.observed, d.phase, d.phase_error AS "phaseError", d.activation->>'failure' AS failure
      FROM rollout_targets t JOIN devices d ON d.id = t.device_id LEFT JOIN assignments a ON a.device_id = d.id AND a.generation = d.generation
      WHERE t.rollout_id = ${id} AND ${where} ORDER BY t.position, t.device_id`;
    return rows.map(({ changedAt, retryAt, desiredGeneration, desiredVersionId, ...row }) => ({
      ...row,
      sinceMs: changedAt.getTime(),
      retryAtMs: retryAt?.getTime() ?? null,
      generation: row.generation === null ? null : Number(row.generation),
      desired: desiredVersionId === null ? null : { generation: Number(desiredGeneration), modelVersionId: desiredVersionId },
    }));
  }

  /** Of a wave, those that were changed. */
  async changedIds(rolloutId: string, wave: number): Promise<string[]> {
    const rows = await this.prisma.rolloutTarget.findMany({
      where: { rolloutId, wave, state: { in: ['pushed', 'succeeded'] } },
      select: { deviceId: true },
    });
    return rows.map(({ deviceId }) => deviceId);
  }

  async ids(rolloutId: string): Promise<Set<string>> {
    return new Set((await this.prisma.rolloutTarget.findMany({ where: { rolloutId }, select: { deviceId: true } })).map(({ deviceId }) => deviceId));
  }

  /** Writes what a step decided about devices. Pushes and reverts are taken here; their documents are written afterwards, and again where that was cut short. */
  async apply({ id, plan }: Rollout, moves: readonly TargetMove[], tx: Prisma.TransactionClient): Promise<void> {
    const now = time(new Date());
    const settled = moves.flatMap((move) => (move.kind === 'settle' || move.kind === 'retry' ? [settledRow(move)] : []));
    if (settled.length > 0)
      await tx.$executeRaw`
        UPDATE rollout_targets t SET state = m.state, reason = m.reason, failure = m.failure, retry_at = m."retryAt"::timestamptz AT TIME ZONE 'UTC', changed_at = ${now}
        FROM jsonb_to_recordset(${JSON.stringify(settled)}::jsonb) AS m("deviceId" text, state text, reason text, failure text, "retryAt" text)
        WHERE t.rollout_id = ${id} AND t.device_id = m."deviceId"`;
    const begun = moves.flatMap((move) => (move.kind === 'push' ? [{ deviceId: move.deviceId, changeOver: move.changeOver }] : []));
    if (begun.length > 0)
      await tx.$executeRaw`
        UPDATE rollout_targets t
        SET state = CASE WHEN m."changeOver" = 'hold' THEN 'fetching' ELSE 'pushed' END, change_over = m."changeOver", generation = NULL, reason = NULL, failure = NULL,
          retry_at = NULL, attempts = t.attempts + CASE WHEN t.state = 'waiting' THEN 1 ELSE 0 END, pushed_at = ${now},
          changed_at = CASE WHEN t.state = 'pushed' THEN t.changed_at ELSE ${now} END,
          previous_version_id = COALESCE(t.previous_version_id, (
            SELECT a.model_version_id FROM devices d JOIN assignments a ON a.device_id = d.id AND a.generation = d.generation WHERE d.id = t.device_id))
        FROM jsonb_to_recordset(${JSON.stringify(begun)}::jsonb) AS m("deviceId" text, "changeOver" text)
        WHERE t.rollout_id = ${id} AND t.device_id = m."deviceId"`;
    if (begun.length > 0 && plan.overlap === 'supersede')
      await tx.$executeRaw`
        UPDATE rollout_targets t SET state = 'skipped', reason = ${`rollout ${id} took the device over`}, changed_at = ${now}
        WHERE t.device_id = ANY(${begun.map(({ deviceId }) => deviceId)}) AND t.rollout_id <> ${id} AND t.state IN ${OPEN}`;
    const reverted = moves.flatMap((move) => (move.kind === 'revert' ? [move.deviceId] : []));
    if (reverted.length > 0)
      await tx.$executeRaw`
        UPDATE rollout_targets SET state = 'reverting', generation = NULL, change_over = 'at-once', changed_at = CASE WHEN state = 'reverting' THEN changed_at ELSE ${now} END
        WHERE rollout_id = ${id} AND device_id = ANY(${reverted})`;
  }

  /** The rollout ends, or goes back: what has not begun is left out; of an aborted one also what is on its way. */
  async skipOpen(rolloutId: string, alsoBegun: boolean, reason: string, tx: Prisma.TransactionClient): Promise<void> {
    await tx.$executeRaw`
      UPDATE rollout_targets SET state = 'skipped', reason = ${reason}, changed_at = ${time(new Date())}
      WHERE rollout_id = ${rolloutId} AND state IN ${OPEN} AND (attempts = 0 OR ${alsoBegun})`;
  }

  /** The document that brings the version, or takes it back, is written. */
  setGeneration(rolloutId: string, deviceId: string, generation: number): Promise<void> {
    return this.generations.add({ rolloutId, deviceId, generation });
  }

  /** What the device was to run before the rollout; null when nothing. */
  async previousVersions(rolloutId: string, deviceIds: readonly string[]): Promise<Map<string, string>> {
    const rows = await this.prisma.rolloutTarget.findMany({
      where: { rolloutId, deviceId: { in: [...deviceIds] }, previousVersionId: { not: null } },
      select: { deviceId: true, previousVersionId: true },
    });
    return new Map(rows.map(({ deviceId, previousVersionId }) => [deviceId, previousVersionId!]));
  }

  /** By name of the device. */
  async page(rolloutId: string, { state, wave, limit = PAGE_MAX, after = '' }: TargetQuery): Promise<RolloutTarget[]> {
    const rows = await this.prisma.rolloutTarget.findMany({
      where: { rolloutId, ...(state && { state }), ...(wave !== undefined && { wave }), device: { name: { gt: after } } },
      include: { device: { select: { name: true } } },
      orderBy: { device: { name: 'asc' } },
      take: Math.max(1, Math.min(limit, PAGE_MAX)),
    });
    return rows.map(target);
  }

  /** Newest rollout first; at most 100. */
  async ofDevice(deviceId: string): Promise<RolloutTarget[]> {
    const rows = await this.prisma.rolloutTarget.findMany({
      where: { deviceId },
      include: { device: { select: { name: true } } },
      orderBy: { rollout: { createdAt: 'desc' } },
      take: 100,
    });
    return rows.map(target);
  }
}

const settledRow = (move: Extract<TargetMove, { kind: 'settle' | 'retry' }>) =>
  move.kind === 'settle'
    ? { deviceId: move.deviceId, state: move.state, reason: move.reason, failure: move.failure }
    : { deviceId: move.deviceId, state: 'waiting', reason: move.reason, failure: move.failure, retryAt: new Date(move.atMs).toISOString() };

type Found = Prisma.RolloutTargetGetPayload<{ include: { device: { select: { name: true } } } }>;

const target = (row: Found): RolloutTarget => ({
  ...{
    rolloutId: row.rolloutId,
    deviceId: row.deviceId,
    deviceName: row.device.name,
    wave: row.wave,
    state: row.state as TargetState,
    reason: row.reason,
  },
  ...{ failure: row.failure as FailureClass | null, attempts: row.attempts, generation: row.generation === null ? null : Number(row.generation) },
  ...{ changeOver: row.changeOver as ChangeOver | null, previousVersionId: row.previousVersionId, changedAt: row.changedAt },
});
