import { Injectable } from '@nestjs/common';
import type { Actor, AuditAction } from '../audit/audit.js';
import { appendAudit } from '../audit/audit.repository.js';
import { fenced, type Fence } from '../database/fence.js';
import { PrismaService } from '../database/prisma.service.js';
import type { GateVerdict } from '../domain/rollout-gates.js';
import { RolloutPlan } from '../domain/rollout-plan.js';
import type { Pace } from '../domain/rollout-rate.js';
import { isEnded, type RolloutState, type RolloutStep, type WaveSight, type WaveState } from '../domain/rollout-sight.js';
import { emptyTally, type Tally, type TargetState } from '../domain/rollout-target.js';
import { Prisma, type Rollout as Row, type RolloutWave as WaveRow } from '../generated/prisma/client.js';
import type { Rollout, RolloutEvent, RolloutWave } from './rollout.js';

const LIST_MAX = 100;
const EVENTS_MAX = 1_000;
const ACTIVE: RolloutState[] = ['running', 'paused', 'rolling-back'];
const NOT_WAIVED: WaveSight['waived'] = { failed: 0, gone: 0, outcome: false };
const JSON_NULL = Prisma.DbNull;
const json = (value: unknown): Prisma.InputJsonValue => value as Prisma.InputJsonValue;

/** The rollout was changed between the reading and the writing: nothing was written. */
export class Changed extends Error {}

export interface NewRollout {
  readonly id: string;
  readonly name: string | null;
  readonly modelVersionId: string;
  readonly state: RolloutState;
  readonly reason: string | null;
  readonly plan: RolloutPlan;
  readonly filter: string | null;
  readonly wholeFleet: boolean;
  readonly actor: Actor;
  /** By wave, in their order. */
  readonly members: readonly (readonly string[])[];
}

/** Rollouts, their waves and what happened to them, in PostgreSQL. */
@Injectable()
export class RolloutRepository {
  constructor(private readonly prisma: PrismaService) {}

  async create({ members, actor, ...row }: NewRollout): Promise<void> {
    const targets = members.flatMap((deviceIds, wave) => deviceIds.map((deviceId) => ({ deviceId, wave })));
    const input = JSON.stringify(targets.map((target, position) => ({ ...target, position })));
    const now = new Date();
    await this.prisma.$transaction(async (tx) => {
      await tx.rollout.create({ data: { ...row, plan: json(row.plan), createdAt: now } });
      await tx.rolloutWave.createMany({ data: members.map((_, ordinal) => ({ rolloutId: row.id, ordinal, state: 'pending' })) });
      await tx.$executeRaw`
        INSERT INTO rollout_targets (rollout_id, device_id, wave, position, state, changed_at)
        SELECT ${row.id}, t."deviceId", t.wave, t.position, 'waiting', ${now.toISOString()}::timestamptz AT TIME ZONE 'UTC'
        FROM jsonb_to_recordset(${input}::jsonb) AS t("deviceId" text, wave int, position int)`;
      await tx.rolloutEvent.create({ data: { rolloutId: row.id, at: now, state: row.state, reason: row.reason, actor } });
      const after = { name: row.name, modelVersionId: row.modelVersionId, filter: row.filter, devices: targets.length, waves: members.length };
      await appendAudit(tx, { actor, action: 'rollout.started', subject: `rollout:${row.id}`, after });
    });
  }

  /** Newest first; at most 100. */
  async list(): Promise<Rollout[]> {
    return this.views(await this.prisma.rollout.findMany({ orderBy: { createdAt: 'desc' }, take: LIST_MAX, include: { waves: true } }));
  }

  /** By id, or by name. */
  async find(idOrName: string): Promise<Rollout | undefined> {
    const rows = await this.prisma.rollout.findMany({ where: { OR: [{ id: idOrName }, { name: idOrName }] }, include: { waves: true }, take: 2 });
    return (await this.views(rows.filter(({ id }) => id === idOrName).concat(rows)))[0];
  }

  /** Whose rollout it is; undefined for an unknown one. */
  async tenantOf(id: string): Promise<string | undefined> {
    return (await this.prisma.system.rollout.findUnique({ where: { id }, select: { tenantId: true } }))?.tenantId;
  }

  /** Those to be looked at now, of all tenants. */
  async due(): Promise<string[]> {
    const rows = await this.prisma.system.rollout.findMany({
      where: { state: { in: ACTIVE }, OR: [{ wakeAt: null }, { wakeAt: { lte: new Date() } }] },
      select: { id: true },
    });
    return rows.map(({ id }) => id);
  }

  /** Those that run and take devices that come to match, of all tenants. */
  async dynamic(): Promise<{ id: string; tenantId: string }[]> {
    return this.prisma.system.$queryRaw`
      SELECT id, tenant_id AS "tenantId" FROM rollouts WHERE state = 'running' AND plan->'membership'->>'kind' = 'dynamic'`;
  }

  /** Oldest first. */
  async events(rolloutId: string): Promise<RolloutEvent[]> {
    const rows = await this.prisma.rolloutEvent.findMany({ where: { rolloutId }, orderBy: { id: 'desc' }, take: EVENTS_MAX });
    return rows.reverse().map(({ at, wave, state, reason, actor }) => ({ at, wave, state, reason, actor }));
  }

  /** Runs `write` while the rollout stays in this state and the fence holds; throws `Changed` when it is in another one by now. */
  whileIn<T>(id: string, state: RolloutState, fence: Fence, write: (tx: Prisma.TransactionClient) => Promise<T>): Promise<T> {
    return fenced(this.prisma, fence, async (tx) => {
      const [row] = await tx.$queryRaw<{ state: string }[]>`SELECT state FROM rollouts WHERE id = ${id} FOR UPDATE`;
      if (row?.state !== state) throw new Changed(`rollout ${id} is ${row?.state ?? 'gone'}, not ${state}`);
      return write(tx);
    });
  }

  /** What a step decided about the rollout itself and its waves. */
  async applyStep(rollout: Rollout, step: RolloutStep, wakeAt: Date | null, tx: Prisma.TransactionClient): Promise<void> {
    const now = new Date();
    const holds: Record<string, number> = {};
    for (const { kind } of step.holds) holds[kind] = (holds[kind] ?? 0) + 1;
    await tx.rollout.update({
      where: { id: rollout.id },
      data: {
        ...(step.state && { state: step.state.to, reason: step.state.reason, ...(isEnded(step.state.to) && { finishedAt: now }) }),
        pace: step.pace ? json(step.pace) : JSON_NULL,
        holds: json(holds),
        wakeAt,
      },
    });
    for (const { wave, state, reason, gates } of step.waves) {
      const before = rollout.waves[wave]!;
      await tx.rolloutWave.update({
        where: { rolloutId_ordinal: { rolloutId: rollout.id, ordinal: wave } },
        data: {
          ...{ state, reason, ...(gates && { gates: json(gates) }) },
          ...(state === 'running' && before.openedAt === null && { openedAt: now }),
          ...(state === 'observing' && before.observedSince === null && { observedSince: now }),
          ...((state === 'succeeded' || state === 'failed') && { endedAt: now }),
        },
      });
      if (state !== before.state) await this.tell(tx, { rolloutId: rollout.id, at: now, wave, state, reason });
    }
    if (step.state) await this.tell(tx, { rolloutId: rollout.id, at: now, state: step.state.to, reason: step.state.reason });
  }

  /** An operator's word. False when the rollout is in another state by now. */
  async command(
    rollout: Rollout,
    to: { state: RolloutState; reason: string | null; actor: Actor; action: AuditAction },
    wave?: { ordinal: number; approvedAt?: Date; waived?: WaveSight['waived']; failed?: string },
    also?: (tx: Prisma.TransactionClient) => Promise<void>,
  ): Promise<boolean> {
    const now = new Date();
    return this.prisma.$transaction(async (tx) => {
      const { count } = await tx.rollout.updateMany({
        where: { id: rollout.id, state: rollout.state },
        data: { state: to.state, reason: to.reason, wakeAt: null, finishedAt: isEnded(to.state) ? now : null },
      });
      if (count === 0) return false;
      if (wave)
        await tx.rolloutWave.update({
          where: { rolloutId_ordinal: { rolloutId: rollout.id, ordinal: wave.ordinal } },
          data: {
            ...(wave.approvedAt && { approvedAt: wave.approvedAt }),
            ...(wave.waived && { waived: json(wave.waived) }),
            ...(wave.failed !== undefined && { state: 'failed', reason: wave.failed, endedAt: now }),
          },
        });
      await this.tell(tx, {
        rolloutId: rollout.id,
        at: now,
        state: to.state,
        reason: to.reason,
        actor: to.actor,
        ...(wave && { wave: wave.ordinal }),
      });
      await also?.(tx);
      const [before, after] = [rollout, to].map(({ state, reason }) => ({ state, reason, ...(wave && { wave: wave.ordinal + 1 }) }));
      await appendAudit(tx, { actor: to.actor, action: to.action, subject: `rollout:${rollout.id}`, before, after });
      return true;
    });
  }

  /** Devices that came to match, at the end of the last wave. */
  async join(rollout: Rollout, deviceIds: readonly string[], fence: Fence): Promise<void> {
    const wave = rollout.waves.length - 1;
    await this.whileIn(rollout.id, rollout.state, fence, async (tx) => {
      await tx.$executeRaw`
        INSERT INTO rollout_targets (rollout_id, device_id, wave, position, state, changed_at)
        SELECT ${rollout.id}, id, ${wave}, 1000000000, 'waiting', ${new Date().toISOString()}::timestamptz AT TIME ZONE 'UTC' FROM unnest(${deviceIds}::text[]) AS id
        ON CONFLICT DO NOTHING`;
    });
  }

  private async tell(tx: Prisma.TransactionClient, event: Prisma.RolloutEventUncheckedCreateInput): Promise<void> {
    const { id } = await tx.rolloutEvent.create({ data: event });
    if (id % 100n === 0n)
      await tx.$executeRaw`
        DELETE FROM rollout_events WHERE rollout_id = ${event.rolloutId} AND id <
          (SELECT min(id) FROM (SELECT id FROM rollout_events WHERE rollout_id = ${event.rolloutId} ORDER BY id DESC LIMIT ${EVENTS_MAX}) AS kept)`;
  }

  private async views(rows: readonly (Row & { waves: WaveRow[] })[]): Promise<Rollout[]> {
    const counts = await this.prisma.$queryRaw<{ id: string; wave: number; state: TargetState; count: bigint }[]>`
      SELECT rollout_id AS id, wave, state, count(*) AS count FROM rollout_targets WHERE rollout_id = ANY(${rows.map(({ id }) => id)}) GROUP BY 1, 2, 3`;
    return rows.map((row) => {
      const plan = RolloutPlan.parse(row.plan);
      const tallies = row.waves.map(() => emptyTally());
      const tally = emptyTally();
      for (const { id, wave, state, count } of counts) {
        if (id !== row.id || !tallies[wave]) continue;
        tallies[wave][state] += Number(count);
        tally[state] += Number(count);
      }
      return {
        ...{ id: row.id, name: row.name, modelVersionId: row.modelVersionId, state: row.state as RolloutState, reason: row.reason },
        ...{
          plan,
          filter: row.filter,
          wholeFleet: row.wholeFleet,
          pace: row.pace as unknown as Pace | null,
          holds: (row.holds ?? {}) as Rollout['holds'],
          tally,
        },
        waves: [...row.waves].sort((a, b) => a.ordinal - b.ordinal).map((wave) => waveOf(wave, plan, tallies[wave.ordinal]!)),
        ...{ createdAt: row.createdAt, finishedAt: row.finishedAt },
      };
    });
  }
}

const waveOf = (row: WaveRow, plan: RolloutPlan, tally: Tally): RolloutWave => ({
  ...{ ordinal: row.ordinal, name: plan.waves[row.ordinal]?.name ?? null, state: row.state as WaveState, reason: row.reason, tally },
  ...{ openedAt: row.openedAt, observedSince: row.observedSince, endedAt: row.endedAt, approvedAt: row.approvedAt },
  waived: (row.waived as unknown as WaveSight['waived'] | null) ?? NOT_WAIVED,
  gates: (row.gates as unknown as GateVerdict[] | null) ?? [],
});
