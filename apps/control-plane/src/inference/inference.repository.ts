import { Injectable } from '@nestjs/common';
import { PrismaService } from '../database/prisma.service.js';
import { overQuota, quotaHere } from '../tenancy/quota.repository.js';
import type { Prisma } from '../generated/prisma/client.js';
import type { Attempt, AttemptState, Inference, InferenceRequest, InferenceState } from './inference.js';

const LIST_MAX = 100;
/** Longer than any deadline: what is older has ended. */
const LONGEST_MS = 3_600_000;
const FORGOTTEN_MAX = 200;
const INCLUDE = {
  attempts: { orderBy: { ordinal: 'asc' }, include: { device: { select: { name: true } } } },
} as const satisfies Prisma.InferenceInclude;
type Row = Prisma.InferenceGetPayload<{ include: typeof INCLUDE }>;

export interface AttemptEnd {
  readonly state: AttemptState;
  readonly error: string | null;
  readonly ttftMs?: number | null;
  readonly outputTokens?: number | null;
}

/** Inferences and their attempts in PostgreSQL. */
@Injectable()
export class InferenceRepository {
  constructor(private readonly prisma: PrismaService) {}

  async create(row: { id: string; request: InferenceRequest; task: string | null; qualityFloor: number | null; deadlineAt: Date }): Promise<void> {
    await this.prisma.$transaction(async (tx) => {
      const most = await quotaHere(tx, 'queuedInferencesMax');
      if (most !== null) {
        const open = await tx.inference.count({
          where: { state: { in: ['queued', 'running'] }, createdAt: { gt: new Date(Date.now() - LONGEST_MS) } },
        });
        if (open >= most) throw overQuota('inferences that wait or run', open + 1, most);
      }
      await tx.inference.create({ data: { ...row, state: 'queued', request: row.request as unknown as Prisma.InputJsonValue } });
    });
  }

  /** Whose inference it is; undefined for an unknown one. */
  async tenantOf(id: string): Promise<string | undefined> {
    return (await this.prisma.system.inference.findUnique({ where: { id }, select: { tenantId: true } }))?.tenantId;
  }

  async find(id: string): Promise<Inference | null> {
    const row = await this.prisma.inference.findUnique({ where: { id }, include: INCLUDE });
    return row && inference(row);
  }

  async request(id: string): Promise<InferenceRequest | null> {
    const row = await this.prisma.inference.findUnique({ where: { id }, select: { request: true } });
    return row && (row.request as unknown as InferenceRequest);
  }

  /** Newest first, at most 100. */
  async list(): Promise<Inference[]> {
    return (await this.prisma.inference.findMany({ orderBy: { createdAt: 'desc' }, take: LIST_MAX, include: INCLUDE })).map(inference);
  }

  /** Those whose job may have been lost: nobody took them for a while, or the replica that did is gone. Oldest first, at most 200. */
  async forgotten(replicaIds: readonly string[], queuedBefore: Date): Promise<string[]> {
    const rows = await this.prisma.inference.findMany({
      where: {
        state: { in: ['queued', 'running'] },
        OR: [{ runner: null, createdAt: { lt: queuedBefore } }, { runner: { notIn: [...replicaIds], not: null } }],
      },
      select: { id: true },
      orderBy: { createdAt: 'asc' },
      take: FORGOTTEN_MAX,
    });
    return rows.map((row) => row.id);
  }

  /** Makes this replica the one that answers it; false when another living one does, or it has ended. */
  async claim(id: string, replicaId: string, otherReplicaIds: readonly string[]): Promise<boolean> {
    const { count } = await this.prisma.inference.updateMany({
      where: { id, state: { in: ['queued', 'running'] }, OR: [{ runner: null }, { runner: { notIn: [...otherReplicaIds] } }] },
      data: { runner: replicaId },
    });
    return count === 1;
  }

  async setRunning(id: string): Promise<void> {
    await this.prisma.inference.updateMany({ where: { id, state: 'queued' }, data: { state: 'running' } });
  }

  /** Attempts that a control plane which is no more was watching. */
  async loseRunning(inferenceId: string, error: string, now: Date): Promise<void> {
    await this.prisma.inferenceAttempt.updateMany({ where: { inferenceId, state: 'running' }, data: { state: 'lost', error, finishedAt: now } });
  }

  async addAttempt(attempt: {
    id: string;
    inferenceId: string;
    ordinal: number;
    deviceId: string;
    modelVersionId: string;
    sliceId: string;
    reason: string;
  }): Promise<void> {
    await this.prisma.inferenceAttempt.create({ data: { ...attempt, state: 'running' } });
  }

  async setAttemptSlice(id: string, modelVersionId: string, sliceId: string): Promise<void> {
    await this.prisma.inferenceAttempt.updateMany({ where: { id }, data: { modelVersionId, sliceId } });
  }

  async endAttempt(id: string, end: AttemptEnd, now: Date): Promise<void> {
    await this.prisma.inferenceAttempt.updateMany({ where: { id, state: 'running' }, data: { ...end, finishedAt: now } });
  }

  async ignoreAttempt(id: string): Promise<void> {
    await this.prisma.system.inferenceAttempt.updateMany({ where: { id, state: { in: ['failed', 'lost'] } }, data: { state: 'ignored' } });
  }

  /** Takes the answer if there is none yet: compare and set, so that an inference is answered exactly once. */
  async answer(id: string, attemptId: string, answer: string, end: AttemptEnd, now: Date): Promise<boolean> {
    return this.prisma.$transaction(async (tx) => {
      const { count } = await tx.inference.updateMany({
        where: { id, answeredBy: null, state: { in: ['queued', 'running'] } },
        data: { state: 'succeeded', answeredBy: attemptId, answer, finishedAt: now },
      });
      await tx.inferenceAttempt.updateMany({
        where: { id: attemptId, state: 'running' },
        data: { ...end, state: count === 1 ? 'succeeded' : 'ignored', finishedAt: now },
      });
      return count === 1;
    });
  }

  /** False when it has ended already. */
  async fail(id: string, error: string, now: Date): Promise<boolean> {
    const { count } = await this.prisma.inference.updateMany({
      where: { id, answeredBy: null, state: { in: ['queued', 'running'] } },
      data: { state: 'failed', error, finishedAt: now },
    });
    return count === 1;
  }
}

const inference = (row: Row): Inference => ({
  id: row.id,
  state: row.state as InferenceState,
  task: row.task,
  qualityFloor: row.qualityFloor,
  deadlineAt: row.deadlineAt,
  answer: row.answer,
  error: row.error,
  answeredBy: row.answeredBy,
  createdAt: row.createdAt,
  finishedAt: row.finishedAt,
  attempts: row.attempts.map((one): Attempt => ({
    id: one.id,
    ordinal: one.ordinal,
    deviceId: one.deviceId,
    deviceName: one.device.name,
    modelVersionId: one.modelVersionId,
    sliceId: one.sliceId,
    state: one.state as AttemptState,
    reason: one.reason,
    error: one.error,
    ttftMs: one.ttftMs,
    outputTokens: one.outputTokens,
    startedAt: one.startedAt,
    finishedAt: one.finishedAt,
  })),
});
