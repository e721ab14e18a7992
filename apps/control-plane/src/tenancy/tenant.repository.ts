import { Injectable } from '@nestjs/common';
import type { Actor } from '../audit/audit.js';
import { appendAudit } from '../audit/audit.repository.js';
import { PrismaService } from '../database/prisma.service.js';
import { DEFAULT_TENANT, inTenant } from '../database/scope.js';
import type { TenantView } from './tenant.js';

const SHOWN_MAX = 1_000;

/** Tenants belong to none: everything here is the system's. */
@Injectable()
export class TenantRepository {
  constructor(private readonly prisma: PrismaService) {}

  find(id: string): Promise<TenantView | null> {
    return this.prisma.system.tenant.findUnique({ where: { id } });
  }

  /** By id; at most 1000. */
  list(): Promise<TenantView[]> {
    return this.prisma.system.tenant.findMany({ orderBy: { id: 'asc' }, take: SHOWN_MAX });
  }

  /** Its own audit log begins with its making, which stands in the installation's log too. Null when there is one of this id. */
  create(tenant: { id: string; name: string }, actor: Actor): Promise<TenantView | null> {
    return this.prisma.system.$transaction(async (tx) => {
      const { count } = await tx.tenant.createMany({ data: [tenant], skipDuplicates: true });
      if (count === 0) return null;
      const entry = { actor, action: 'tenant.created', subject: `tenant:${tenant.id}`, after: { name: tenant.name } } as const;
      for (const log of [DEFAULT_TENANT, tenant.id]) await inTenant(log, () => appendAudit(tx, entry));
      return tx.tenant.findUnique({ where: { id: tenant.id } });
    });
  }

  /** The name of the role that this service connects as, if row-level security does not hold for it. */
  async roleBeyondRowSecurity(): Promise<string | null> {
    const rows = await this.prisma.system.$queryRaw<{ name: string }[]>`
      SELECT rolname::text AS name FROM pg_roles WHERE rolname = current_user AND (rolsuper OR rolbypassrls)`;
    return rows[0]?.name ?? null;
  }
}
