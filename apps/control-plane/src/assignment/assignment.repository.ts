import { Injectable } from '@nestjs/common';
import { PrismaService } from '../database/prisma.service.js';
import type { Explanation } from '../domain/assignment.js';
import type { Assignment, Prisma } from '../generated/prisma/client.js';

export interface AssignmentRecord {
  readonly deviceId: string;
  readonly generation: number;
  readonly modelVersionId: string;
  readonly sliceId: string;
  readonly contextTokens: number;
  readonly reason: string;
  readonly explanation: Explanation;
  readonly updateId: string | null;
  readonly createdAt: Date;
}

const HISTORY_MAX = 100;

/** Desired documents in PostgreSQL, every generation with its explanation. */
@Injectable()
export class AssignmentRepository {
  constructor(private readonly prisma: PrismaService) {}

  async newest(deviceId: string): Promise<AssignmentRecord | null> {
    const row = await this.prisma.assignment.findFirst({ where: { deviceId }, orderBy: { generation: 'desc' } });
    return row && record(row);
  }

  /** Newest first, at most 100. */
  async history(deviceId: string): Promise<AssignmentRecord[]> {
    return (await this.prisma.assignment.findMany({ where: { deviceId }, orderBy: { generation: 'desc' }, take: HISTORY_MAX })).map(record);
  }

  /** Writes the next generation. False when another writer was first: then nothing is written. */
  async append(next: Omit<AssignmentRecord, 'createdAt'>, expectedGeneration: number, pinVersion: boolean): Promise<boolean> {
    return this.prisma.$transaction(async (tx) => {
      const { count } = await tx.device.updateMany({
        where: { id: next.deviceId, generation: BigInt(expectedGeneration) },
        // What the device reported about the generation before says nothing about this one.
        data: { generation: BigInt(next.generation), phase: null, phaseError: null, ...(pinVersion && { modelVersionId: next.modelVersionId }) },
      });
      if (count === 0) return false;
      await tx.assignment.create({
        data: { ...next, generation: BigInt(next.generation), explanation: next.explanation as unknown as Prisma.InputJsonValue },
      });
      return true;
    });
  }

  async pinVersion(deviceId: string, modelVersionId: string): Promise<void> {
    await this.prisma.device.updateMany({ where: { id: deviceId }, data: { modelVersionId } });
  }
}

const record = (row: Assignment): AssignmentRecord => ({
  ...row,
  generation: Number(row.generation),
  explanation: row.explanation as unknown as Explanation,
});
