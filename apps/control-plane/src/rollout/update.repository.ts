import { Injectable } from '@nestjs/common';
import { PrismaService } from '../database/prisma.service.js';
import type { TargetSight, TargetState, UpdateState } from '../domain/update.js';
import type { UpdateView } from './update.js';

const LIST_MAX = 100;
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

@Injectable()
export class UpdateRepository {
  constructor(private readonly prisma: PrismaService) {}

  async create(update: { id: string; modelVersionId: string; wholeFleet: boolean; deadlineAt: Date; deviceIds: readonly string[] }): Promise<void> {
    const { deviceIds, ...row } = update;
    await this.prisma.update.create({
      data: { ...row, state: 'running', targets: { createMany: { data: deviceIds.map((deviceId) => ({ deviceId, state: 'pending' })) } } },
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

  /** Of all updates, of one device, or the single one of an update and a device; the oldest updates first. */
  async openTargets(of: { updateId?: string; deviceId?: string } = {}): Promise<OpenTarget[]> {
    const rows = await this.prisma.updateTarget.findMany({
      where: { ...of, state: { in: OPEN } },
      include: {
        update: { select: { modelVersionId: true, deadlineAt: true } },
        device: { include: { assignments: { orderBy: { generation: 'desc' }, take: 1, select: { generation: true, modelVersionId: true } } } },
      },
      orderBy: { update: { createdAt: 'asc' } },
    });
    return rows.map(({ device, update, ...target }) => {
      const newest = device.assignments[0];
      return {
        updateId: target.updateId,
        deviceId: target.deviceId,
        modelVersionId: update.modelVersionId,
        deadlineMs: update.deadlineAt.getTime(),
        sight: {
          state: target.state as TargetState,
          generation: target.generation === null ? null : Number(target.generation),
          desired: newest ? { generation: Number(newest.generation), modelVersionId: newest.modelVersionId } : null,
          observed: device.observed as unknown as TargetSight['observed'],
          phase: device.phase,
          phaseError: device.phaseError,
        },
      };
    });
  }

  /** Updates that run although none of their targets does: their process died in between, or all their devices were removed. */
  async endedButRunning(): Promise<string[]> {
    const rows = await this.prisma.update.findMany({ where: { state: 'running', targets: { none: { state: { in: OPEN } } } }, select: { id: true } });
    return rows.map((row) => row.id);
  }

  /** Moves a target that has not ended; false when it had. */
  async move(updateId: string, deviceId: string, to: { state: TargetState; generation?: number; error?: string }): Promise<boolean> {
    const { count } = await this.prisma.updateTarget.updateMany({
      where: { updateId, deviceId, state: { in: OPEN } },
      data: {
        state: to.state,
        changedAt: new Date(),
        ...(to.generation !== undefined && { generation: BigInt(to.generation) }),
        ...(to.error !== undefined && { error: to.error }),
      },
    });
    return count === 1;
  }

  async targetStates(updateId: string): Promise<TargetState[]> {
    const rows = await this.prisma.updateTarget.findMany({ where: { updateId }, select: { state: true } });
    return rows.map((row) => row.state as TargetState);
  }

  /** True when this call ended it. */
  async end(updateId: string, state: Exclude<UpdateState, 'running'>, now: Date): Promise<boolean> {
    const { count } = await this.prisma.update.updateMany({ where: { id: updateId, state: 'running' }, data: { state, finishedAt: now } });
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
