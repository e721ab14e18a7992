import { Injectable } from '@nestjs/common';
import { ONLINE_ROLES, type OnlineFiles, type OnlineRole, type Role, type TargetEntry } from '@matfleet/trust';
import type { Actor } from '../audit/audit.js';
import { appendAudit } from '../audit/audit.repository.js';
import { PrismaService } from '../database/prisma.service.js';
import { currentTenant } from '../database/scope.js';
import type { Prisma } from '../generated/prisma/client.js';

/** Any constant serves; it only has to be the same in every replica. */
const LOCK_KEY = 5_316_911_785n;
/** A device that has just read a timestamp still finds its snapshot and targets so many versions later. */
const KEPT_VERSIONS = 20;

export interface SignedFile {
  readonly role: Role;
  readonly version: number;
  readonly bytes: Uint8Array;
}

/** The signed metadata within one transaction that nobody else signs beside. */
export interface TrustTransaction {
  readonly root: Uint8Array | undefined;
  readonly current: OnlineFiles;
  /** Manifests of the published versions. */
  readonly entries: readonly TargetEntry[];
  put(files: readonly SignedFile[]): Promise<void>;
  /** What to list for it when this call published it; undefined when it was published before, or is not there. */
  publish(modelVersionId: string, now: Date): Promise<TargetEntry | undefined>;
  retire(modelVersionIds: readonly string[], now: Date, actor: Actor): Promise<void>;
  audit(actor: Actor, after: object): Promise<void>;
  auditPublished(actor: Actor, modelVersionId: string): Promise<void>;
}

/** Signed metadata in PostgreSQL, each tenant's its own. */
@Injectable()
export class TrustRepository {
  constructor(private readonly prisma: PrismaService) {}

  /** Every tenant, to be looked after. */
  async tenants(): Promise<string[]> {
    return (await this.prisma.system.tenant.findMany({ select: { id: true }, orderBy: { id: 'asc' } })).map(({ id }) => id);
  }

  async file(role: Role, version?: number): Promise<SignedFile | undefined> {
    const row = await this.prisma.trustMetadata.findFirst({
      where: { role, ...(version !== undefined && { version }) },
      orderBy: { version: 'desc' },
      select: { version: true, bytes: true },
    });
    return row ? { role, ...row } : undefined;
  }

  /** One at a time in the fleet: two signers at once would give one version number to two contents. */
  locked<T>(work: (tx: TrustTransaction) => Promise<T>): Promise<T> {
    return this.prisma.$transaction(async (tx) => {
      await tx.$executeRaw`SELECT pg_advisory_xact_lock(${LOCK_KEY})`;
      const newest = async (role: Role): Promise<Uint8Array | undefined> =>
        (await tx.trustMetadata.findFirst({ where: { role }, orderBy: { version: 'desc' }, select: { bytes: true } }))?.bytes;
      const current: Partial<Record<OnlineRole, Uint8Array>> = {};
      for (const role of ONLINE_ROLES) {
        const bytes = await newest(role);
        if (bytes) current[role] = bytes;
      }
      return work({
        root: await newest('root'),
        current,
        entries: await publishedEntries(tx),
        put: (files) => putFiles(tx, files),
        publish: async (id, now) => {
          const { count } = await tx.modelVersion.updateMany({ where: { id, publishedAt: null, retiredAt: null }, data: { publishedAt: now } });
          if (count === 0) return undefined;
          return (await publishedEntries(tx)).find(({ path }) => path === id);
        },
        retire: async (ids, now, actor) => {
          await tx.modelVersion.updateMany({ where: { id: { in: [...ids] } }, data: { retiredAt: now, publishedAt: null } });
          for (const id of ids) await appendAudit(tx, { actor, action: 'model.retired', subject: `model:${id}`, after: { retiredAt: now } });
        },
        auditPublished: (actor, id) =>
          appendAudit(tx, { actor, action: 'model.published', subject: `model:${id}`, before: { published: false }, after: { published: true } }),
        audit: (actor, after) => appendAudit(tx, { actor, action: 'trust.root-signed', subject: 'trust:root', after }),
      });
    });
  }
}

async function publishedEntries(tx: Prisma.TransactionClient): Promise<TargetEntry[]> {
  const rows = await tx.$queryRaw<{ id: string; bytes: number }[]>`
    SELECT id, octet_length(manifest) AS bytes FROM model_versions WHERE tenant_id = ${currentTenant()} AND published_at IS NOT NULL`;
  return rows.map(({ id, bytes }) => ({ path: id, bytes: Number(bytes), sha256: id }));
}

async function putFiles(tx: Prisma.TransactionClient, files: readonly SignedFile[]): Promise<void> {
  for (const { role, version, bytes } of files) {
    await tx.trustMetadata.create({ data: { role, version, bytes: new Uint8Array(bytes) } });
    if (role !== 'root') await tx.trustMetadata.deleteMany({ where: { role, version: { lte: version - KEPT_VERSIONS } } });
  }
}
