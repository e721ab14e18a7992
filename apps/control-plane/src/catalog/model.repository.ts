import { Injectable } from '@nestjs/common';
import type { Actor } from '../audit/audit.js';
import { appendAudit } from '../audit/audit.repository.js';
import { Batcher } from '../database/batcher.js';
import { PrismaService } from '../database/prisma.service.js';
import { currentTenant } from '../database/scope.js';
import { overQuota, quotaHere } from '../tenancy/quota.repository.js';

export interface ModelRow {
  id: string;
  name: string;
  createdAt: Date;
  publishedAt: Date | null;
  pinnedAt: Date | null;
  retiredAt: Date | null;
}

const ROW = { id: true, name: true, createdAt: true, publishedAt: true, pinnedAt: true, retiredAt: true } as const;
const LIST_MAX = 200;

/** Versions and chunks of the tenant that asks: another may have the same ones. */
@Injectable()
export class ModelRepository {
  private readonly finds = new Batcher<string, ModelRow | null>(async (ids) => {
    const rows = await this.prisma.modelVersion.findMany({ where: { tenantId: currentTenant(), id: { in: [...new Set(ids)] } }, select: ROW });
    return ids.map((id) => rows.find((row) => row.id === id) ?? null);
  });
  private readonly currents = new Batcher<undefined, string | undefined>(async (asked) => {
    const id = await this.readCurrentId();
    return asked.map(() => id);
  });

  private readonly chunks = new Batcher<string, { bytes: bigint; arrivedAt: Date | null } | null>(async (ids) => {
    const where = { tenantId: currentTenant(), id: { in: [...new Set(ids)] } };
    const rows = await this.prisma.chunk.findMany({ where, select: { id: true, bytes: true, arrivedAt: true } });
    const byId = new Map(rows.map((row) => [row.id, row]));
    return ids.map((id) => byId.get(id) ?? null);
  });

  constructor(private readonly prisma: PrismaService) {}

  /** Newest first; at most 200. */
  async list(): Promise<ModelRow[]> {
    return this.prisma.modelVersion.findMany({ select: ROW, orderBy: { createdAt: 'desc' }, take: LIST_MAX });
  }

  find(id: string): Promise<ModelRow | null> {
    return this.finds.add(id);
  }

  async manifest(id: string): Promise<Uint8Array | undefined> {
    return (await this.prisma.modelVersion.findFirst({ where: { tenantId: currentTenant(), id }, select: { manifest: true } }))?.manifest;
  }

  /** Of several versions, in one statement. */
  async manifests(ids: readonly string[]): Promise<Map<string, Uint8Array>> {
    const rows = await this.prisma.modelVersion.findMany({
      where: { tenantId: currentTenant(), id: { in: [...ids] } },
      select: { id: true, manifest: true },
    });
    return new Map(rows.map(({ id, manifest }) => [id, manifest]));
  }

  /** Registers the version and the chunks it names. A version that is there stays as it is; a retired one is as if it were new. */
  async register(
    version: { id: string; name: string; manifest: Uint8Array },
    chunks: readonly { id: string; bytes: number }[],
    actor: Actor,
  ): Promise<void> {
    await this.prisma.$transaction(async (tx) => {
      const data = [{ ...version, manifest: new Uint8Array(version.manifest) }];
      const { count } = await tx.modelVersion.createMany({ data, skipDuplicates: true });
      const again = await tx.modelVersion.updateMany({
        where: { id: version.id, retiredAt: { not: null } },
        data: { retiredAt: null, createdAt: new Date() },
      });
      await tx.chunk.createMany({ data: chunks.map(({ id, bytes }) => ({ id, bytes: BigInt(bytes) })), skipDuplicates: true });
      const most = count > 0 ? await quotaHere(tx, 'modelBytesMax') : null;
      if (most !== null) {
        const { _sum: sum } = await tx.chunk.aggregate({ _sum: { bytes: true }, where: { tenantId: currentTenant() } });
        if (Number(sum.bytes ?? 0n) > most) throw overQuota('bytes of models', Number(sum.bytes), most);
      }
      const after = { name: version.name, chunks: chunks.length, bytes: chunks.reduce((sum, { bytes }) => sum + bytes, 0) };
      if (count + again.count > 0) await appendAudit(tx, { actor, action: 'model.registered', subject: `model:${version.id}`, after });
    });
  }

  /** A chunk that some version names: its size in bytes, and whether the tenant has sent it. */
  async chunk(id: string): Promise<{ bytes: number; arrived: boolean } | null> {
    const row = await this.chunks.add(id);
    return row && { bytes: Number(row.bytes), arrived: row.arrivedAt !== null };
  }

  /** Of these chunks the ones that the tenant has sent. */
  async arrived(ids: readonly string[]): Promise<Set<string>> {
    const where = { tenantId: currentTenant(), id: { in: [...ids] }, arrivedAt: { not: null } };
    return new Set((await this.prisma.chunk.findMany({ where, select: { id: true } })).map((row) => row.id));
  }

  async setArrived(id: string, now: Date): Promise<void> {
    await this.prisma.chunk.updateMany({ where: { tenantId: currentTenant(), id, arrivedAt: null }, data: { arrivedAt: now } });
  }

  /** Null for an unknown version. */
  async pin(id: string, pinnedAt: Date | null, actor: Actor): Promise<ModelRow | null> {
    return this.prisma.$transaction(async (tx) => {
      const where = { tenantId: currentTenant(), id };
      const before = await tx.modelVersion.findFirst({ where, select: ROW });
      if (!before || !before.pinnedAt === !pinnedAt) return before;
      await tx.modelVersion.updateMany({ where, data: { pinnedAt } });
      await appendAudit(tx, { actor, action: pinnedAt ? 'model.pinned' : 'model.unpinned', subject: `model:${id}`, after: { pinnedAt } });
      return { ...before, pinnedAt };
    });
  }

  /** The version that the last rollout to the whole fleet brought, else the first that was published. */
  currentId(): Promise<string | undefined> {
    return this.currents.add(undefined);
  }

  private async readCurrentId(): Promise<string | undefined> {
    const rollout = await this.prisma.rollout.findFirst({
      where: { tenantId: currentTenant(), wholeFleet: true, state: 'succeeded' },
      orderBy: { finishedAt: 'desc' },
      select: { modelVersionId: true },
    });
    if (rollout) return rollout.modelVersionId;
    const first = await this.prisma.modelVersion.findFirst({
      where: { tenantId: currentTenant(), publishedAt: { not: null } },
      orderBy: { publishedAt: 'asc' },
      select: { id: true },
    });
    return first?.id;
  }
}
