import { Injectable } from '@nestjs/common';
import { Histogram } from '@matfleet/model';
import { PrismaService } from '../database/prisma.service.js';
import type { Agreement, GateEvidence, Measured } from '../domain/rollout-gates.js';
import type { Prisma } from '../generated/prisma/client.js';
import type { Rollout, RolloutWave } from './rollout.js';

/** Newest windows that are read for one group. */
const WINDOWS_MAX = 20_000;
/** How far back the same devices are looked at where there is no control group. */
const BEFORE_MS = 24 * 3_600_000;

/** What devices measured, for the gates of a wave. */
@Injectable()
export class GateEvidenceRepository {
  constructor(private readonly prisma: PrismaService) {}

  async read(rollout: Rollout, wave: RolloutWave): Promise<GateEvidence> {
    const targets = await this.prisma.rolloutTarget.findMany({
      where: { rolloutId: rollout.id, wave: wave.ordinal, state: 'succeeded' },
      select: { deviceId: true, previousVersionId: true },
    });
    const changedIds = targets.map(({ deviceId }) => deviceId);
    const versions = [...new Set(targets.flatMap(({ previousVersionId }) => previousVersionId ?? []))].filter((id) => id !== rollout.modelVersionId);
    const since = wave.openedAt ?? rollout.createdAt;
    const [changed, control, before, agreement] = await Promise.all([
      this.measured({ deviceId: { in: changedIds }, modelVersionId: rollout.modelVersionId, windowStart: { gte: since } }),
      this.measured({ deviceId: { notIn: changedIds }, modelVersionId: { in: versions }, windowStart: { gte: since } }),
      this.measured({
        deviceId: { in: changedIds },
        modelVersionId: { in: versions },
        windowStart: { gte: new Date(since.getTime() - BEFORE_MS) },
      }),
      this.agreement(changedIds),
    ]);
    return { changed, control, before, agreement };
  }

  /** What the devices themselves found when they tried the version: of the golden tokens of the slice before, those that it gives too. */
  private async agreement(deviceIds: readonly string[]): Promise<Agreement | null> {
    const [sum] = await this.prisma.$queryRaw<{ equal: bigint | null; compared: bigint | null }[]>`
      SELECT sum((activation->>'previousTokensMatched')::bigint)::bigint AS equal, sum((activation->>'previousTokensTotal')::bigint)::bigint AS compared
      FROM devices WHERE id = ANY(${deviceIds})`;
    return sum?.compared ? { equal: Number(sum.equal), compared: Number(sum.compared) } : null;
  }

  private async measured(where: Prisma.LatencyWindowWhereInput): Promise<Measured[]> {
    const rows = await this.prisma.latencyWindow.findMany({
      where,
      select: { sliceId: true, ttft: true, interToken: true, failed: true },
      orderBy: { windowStart: 'desc' },
      take: WINDOWS_MAX,
    });
    return rows.map((row) => {
      const ttft = Histogram.parse(row.ttft);
      return { sliceId: row.sliceId, ttft, interToken: Histogram.parse(row.interToken), answered: ttft.count, failed: Number(row.failed) };
    });
  }
}
