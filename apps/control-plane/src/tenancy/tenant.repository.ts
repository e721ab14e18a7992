import { Injectable } from '@nestjs/common';
import type { Actor } from '../audit/audit.js';
import { appendAudit } from '../audit/audit.repository.js';
import { PrismaService } from '../database/prisma.service.js';
import { DEFAULT_TENANT, inTenant } from '../database/scope.js';
import type { Tenant as Row } from '../generated/prisma/client.js';
import type { QuotaPatch, Quotas } from './quota.js';
import type { TenantView } from './tenant.js';

const SHOWN_MAX = 1_000;

const view = (row: Row): TenantView => ({ ...row, modelBytesMax: row.modelBytesMax === null ? null : Number(row.modelBytesMax) });
const quotasOf = ({ devicesMax, modelBytesMax, queuedInferencesMax, apiCallsPerMinuteMax }: TenantView): Quotas => ({
  ...{ devicesMax, modelBytesMax, queuedInferencesMax, apiCallsPerMinuteMax },
});

/** Tenants belong to none: everything here is the system's. */
@Injectable()
export class TenantRepository {
  constructor(private readonly prisma: PrismaService) {}

  async find(id: string): Promise<TenantView | null> {
    const row = await this.prisma.system.tenant.findUnique({ where: { id } });
    return row && view(row);
  }

  /** By id; at most 1000. */
  async list(): Promise<TenantView[]> {
    return (await this.prisma.system.tenant.findMany({ orderBy: { id: 'asc' }, take: SHOWN_MAX })).map(view);
  }

  /** Its own audit log begins with its making, which stands in the installation's log too. Null when there is one of this id. */
  create(tenant: { id: string; name: string }, actor: Actor): Promise<TenantView | null> {
    return this.prisma.system.$transaction(async (tx) => {
      const { count } = await tx.tenant.createMany({ data: [tenant], skipDuplicates: true });
      if (count === 0) return null;
      const entry = { actor, action: 'tenant.created', subject: `tenant:${tenant.id}`, after: { name: tenant.name } } as const;
      for (const log of [DEFAULT_TENANT, tenant.id]) await inTenant(log, () => appendAudit(tx, entry));
      const row = await tx.tenant.findUnique({ where: { id: tenant.id } });
      return row && view(row);
    });
  }

  /** Null for an unknown one. */
  setQuotas(id: string, { modelBytesMax, ...patch }: QuotaPatch, actor: Actor): Promise<TenantView | null> {
    return this.prisma.system.$transaction(async (tx) => {
      await tx.$queryRaw`SELECT id FROM tenants WHERE id = ${id} FOR UPDATE`;
      const before = await tx.tenant.findUnique({ where: { id } });
      if (!before) return null;
      const bytes = modelBytesMax === undefined ? {} : { modelBytesMax: modelBytesMax === null ? null : BigInt(modelBytesMax) };
      const given = Object.fromEntries(Object.entries(patch).filter(([, value]) => value !== undefined));
      const after = view(await tx.tenant.update({ where: { id }, data: { ...given, ...bytes } }));
      const entry = { actor, action: 'tenant.limited', subject: `tenant:${id}`, before: quotasOf(view(before)), after: quotasOf(after) } as const;
      for (const log of new Set([DEFAULT_TENANT, id])) await inTenant(log, () => appendAudit(tx, entry));
      return after;
    });
  }

  /** The name of the role that this service connects as, if row-level security does not hold for it. */
  async roleBeyondRowSecurity(): Promise<string | null> {
    const rows = await this.prisma.system.$queryRaw<{ name: string }[]>`
      SELECT rolname::text AS name FROM pg_roles WHERE rolname = current_user AND (rolsuper OR rolbypassrls)`;
    return rows[0]?.name ?? null;
  }
}
