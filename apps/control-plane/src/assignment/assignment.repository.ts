import { Injectable } from '@nestjs/common';
import { Batcher } from '../database/batcher.js';
import { PrismaService } from '../database/prisma.service.js';
import type { Explanation, Steadiness } from '../domain/assignment.js';
import type { ChangeOver } from '../domain/rollout-target.js';
import type { Assignment } from '../generated/prisma/client.js';

/** A desired document, as the next decision needs it. */
export interface AssignmentRecord {
  readonly deviceId: string;
  readonly generation: number;
  readonly modelVersionId: string;
  readonly modelName: string;
  readonly sliceId: string;
  readonly contextTokens: number;
  readonly reason: string;
  readonly steadiness: Steadiness;
  readonly rolloutId: string | null;
  /** When the device may change over to it. */
  readonly changeOver: ChangeOver;
  /** W3C; of what caused it. Null where nobody traced. */
  readonly traceParent: string | null;
  readonly createdAt: Date;
}

/** With every candidate and why it won or lost. */
export interface ExplainedAssignment extends Omit<AssignmentRecord, 'modelName' | 'steadiness' | 'traceParent'> {
  readonly explanation: Explanation;
}

interface Append {
  readonly next: Omit<ExplainedAssignment, 'createdAt'> & Pick<AssignmentRecord, 'traceParent'>;
  readonly expectedGeneration: number;
  readonly pinVersion: boolean;
}

type Row = Omit<AssignmentRecord, 'generation'> & { generation: bigint };

const HISTORY_MAX = 100;

/** Desired documents in PostgreSQL, every generation with its explanation. What many devices need at once is answered in batches. */
@Injectable()
export class AssignmentRepository {
  private readonly newests = new Batcher<string, AssignmentRecord | null>((ids) => this.readNewest(ids));
  private readonly appends = new Batcher<Append, boolean>(
    (appends) => this.write(appends),
    ({ next }) => next.deviceId,
  );
  private readonly pins = new Batcher<{ deviceId: string; modelVersionId: string }, void>(
    async (pins) => {
      await this.prisma.$executeRaw`
        UPDATE devices d SET model_version_id = p."modelVersionId"
        FROM jsonb_to_recordset(${JSON.stringify(pins)}::jsonb) AS p("deviceId" text, "modelVersionId" text) WHERE d.id = p."deviceId"`;
      return pins.map(() => undefined);
    },
    ({ deviceId }) => deviceId,
  );

  constructor(private readonly prisma: PrismaService) {}

  newest(deviceId: string): Promise<AssignmentRecord | null> {
    return this.newests.add(deviceId);
  }

  private async readNewest(ids: readonly string[]): Promise<(AssignmentRecord | null)[]> {
    const rows = await this.prisma.$queryRaw<Row[]>`
      SELECT a.device_id AS "deviceId", a.generation, a.model_version_id AS "modelVersionId", m.name AS "modelName", a.slice_id AS "sliceId",
        a.context_tokens AS "contextTokens", a.reason, a.explanation->'steadiness' AS steadiness, a.rollout_id AS "rolloutId", a.change_over AS "changeOver",
        a.trace_parent AS "traceParent", a.created_at AS "createdAt"
      FROM devices d JOIN assignments a ON a.device_id = d.id AND a.generation = d.generation 
        JOIN model_versions m ON m.tenant_id = a.tenant_id AND m.id = a.model_version_id
      WHERE d.id = ANY(${ids})`;
    const byDevice = new Map(rows.map((row) => [row.deviceId, { ...row, generation: Number(row.generation) }]));
    return ids.map((id) => byDevice.get(id) ?? null);
  }

  /** Newest first, at most 100. */
  async history(deviceId: string): Promise<ExplainedAssignment[]> {
    return (await this.prisma.assignment.findMany({ where: { deviceId }, orderBy: { generation: 'desc' }, take: HISTORY_MAX })).map(explained);
  }

  /** Why the device's document of this generation is as it is. */
  async explanation(deviceId: string, generation: number): Promise<Explanation | null> {
    const row = await this.prisma.assignment.findUnique({
      where: { deviceId_generation: { deviceId, generation: BigInt(generation) } },
      select: { explanation: true },
    });
    return row && (row.explanation as unknown as Explanation);
  }

  /** Writes the next generation. False when another writer was first: then nothing is written. */
  append(next: Append['next'], expectedGeneration: number, pinVersion: boolean): Promise<boolean> {
    return this.appends.add({ next, expectedGeneration, pinVersion });
  }

  /** One statement: a device moves exactly when its document is written. */
  private async write(appends: readonly Append[]): Promise<boolean[]> {
    const input = JSON.stringify(appends.map(({ next, ...rest }) => ({ ...next, ...rest })));
    const rows = await this.prisma.$queryRaw<{ deviceId: string }[]>`
      WITH input AS (
        SELECT * FROM jsonb_to_recordset(${input}::jsonb) AS i("deviceId" text, generation bigint, "modelVersionId" text, "sliceId" text,
          "contextTokens" int, reason text, explanation jsonb, "rolloutId" text, "changeOver" text, "traceParent" text, "expectedGeneration" bigint, "pinVersion" boolean)
      ), moved AS (
        -- What the device reported about the generation before says nothing about this one.
        UPDATE devices d SET generation = i.generation, phase = NULL, phase_error = NULL, activation = NULL,
          model_version_id = CASE WHEN i."pinVersion" THEN i."modelVersionId" ELSE d.model_version_id END
        FROM input i WHERE d.id = i."deviceId" AND d.generation = i."expectedGeneration" RETURNING d.id, d.tenant_id
      )
      INSERT INTO assignments (tenant_id, device_id, generation, model_version_id, slice_id, context_tokens, reason, explanation, rollout_id, change_over, trace_parent, created_at)
      SELECT moved.tenant_id, i."deviceId", i.generation, i."modelVersionId", i."sliceId", i."contextTokens", i.reason, i.explanation, i."rolloutId", i."changeOver",
        i."traceParent", ${new Date().toISOString()}::timestamptz AT TIME ZONE 'UTC'
      FROM input i JOIN moved ON moved.id = i."deviceId"
      RETURNING device_id AS "deviceId"`;
    const written = new Set(rows.map((row) => row.deviceId));
    return appends.map(({ next }) => written.has(next.deviceId));
  }

  pinVersion(deviceId: string, modelVersionId: string): Promise<void> {
    return this.pins.add({ deviceId, modelVersionId });
  }
}

const explained = ({ traceParent: _traceParent, ...row }: Assignment): ExplainedAssignment => ({
  ...row,
  generation: Number(row.generation),
  changeOver: row.changeOver as ChangeOver,
  explanation: row.explanation as unknown as Explanation,
});
