import { Injectable } from '@nestjs/common';
import { PrismaService } from '../database/prisma.service.js';
import { currentTenant } from '../database/scope.js';
import type { GarbageRoots } from '../domain/garbage.js';
import { ModelRepository, type ModelRow } from './model.repository.js';

const ROW = { id: true, name: true, createdAt: true, publishedAt: true, pinnedAt: true, retiredAt: true } as const;
const BATCH = 1_000;

/** What the tenant's fleet needs of its catalogue, and what of it nobody names any more. */
@Injectable()
export class GarbageRepository {
  constructor(
    private readonly prisma: PrismaService,
    private readonly models: ModelRepository,
  ) {}

  /** Every version that was not retired. */
  async versions(): Promise<ModelRow[]> {
    return this.prisma.modelVersion.findMany({ where: { tenantId: currentTenant(), retiredAt: null }, select: ROW });
  }

  async roots(): Promise<GarbageRoots> {
    const tenantId = currentTenant();
    const ids = (rows: readonly { id: string | null }[]): Set<string> => new Set(rows.flatMap(({ id }) => (id ? [id] : [])));
    const assigned = await this.prisma.$queryRaw<{ id: string | null }[]>`
      SELECT DISTINCT model_version_id AS id FROM devices WHERE tenant_id = ${tenantId}
      UNION SELECT DISTINCT observed->>'modelVersionId' FROM devices WHERE tenant_id = ${tenantId}
      UNION SELECT a.model_version_id FROM (
        SELECT DISTINCT ON (device_id) model_version_id FROM assignments WHERE tenant_id = ${tenantId} ORDER BY device_id, generation DESC) a`;
    const previous = await this.prisma.$queryRaw<{ id: string | null }[]>`
      SELECT DISTINCT before.model_version_id AS id FROM devices d CROSS JOIN LATERAL (
        SELECT a.model_version_id FROM assignments a
        WHERE a.device_id = d.id AND a.model_version_id IS DISTINCT FROM (
          SELECT last.model_version_id FROM assignments last WHERE last.device_id = d.id ORDER BY last.generation DESC LIMIT 1)
        ORDER BY a.generation DESC LIMIT 1) before
      WHERE d.tenant_id = ${tenantId}`;
    const running = await this.prisma.rollout.findMany({ where: { tenantId, finishedAt: null }, select: { id: true, modelVersionId: true } });
    const waysBack = await this.prisma.rolloutTarget.findMany({
      where: { tenantId, rolloutId: { in: running.map(({ id }) => id) }, previousVersionId: { not: null } },
      distinct: ['previousVersionId'],
      select: { previousVersionId: true },
    });
    return {
      fleetDefault: await this.models.currentId(),
      assigned: ids(assigned),
      previous: ids(previous),
      inFlight: new Set([...running.map(({ modelVersionId }) => modelVersionId), ...waysBack.map(({ previousVersionId }) => previousVersionId!)]),
    };
  }

  /** The tenant's chunks that are not among these and were not named lately. */
  async chunksBeside(named: ReadonlySet<string>, createdBefore: Date): Promise<{ id: string; bytes: number }[]> {
    const rows = await this.prisma.chunk.findMany({
      where: { tenantId: currentTenant(), createdAt: { lte: createdBefore } },
      select: { id: true, bytes: true, arrivedAt: true },
    });
    return rows.filter(({ id }) => !named.has(id)).map(({ id, bytes, arrivedAt }) => ({ id, bytes: arrivedAt ? Number(bytes) : 0 }));
  }

  async forgetChunks(ids: readonly string[]): Promise<void> {
    for (let at = 0; at < ids.length; at += BATCH)
      await this.prisma.chunk.deleteMany({ where: { tenantId: currentTenant(), id: { in: ids.slice(at, at + BATCH) } } });
  }

  /** Those of `ids` that some version names, whichever tenant's. */
  async stillNamed(ids: readonly string[]): Promise<Set<string>> {
    const rows = await this.prisma.system.chunk.findMany({ where: { id: { in: [...ids] } }, distinct: ['id'], select: { id: true } });
    return new Set(rows.map(({ id }) => id));
  }
}
