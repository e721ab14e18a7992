import { Injectable, Logger } from '@nestjs/common';
import type { Actor } from '../audit/audit.js';
import { DomainError } from '../errors.js';
import type { TenantView } from './tenant.js';
import { TenantRepository } from './tenant.repository.js';

/** The organisations on this installation. */
@Injectable()
export class TenantService {
  private readonly log = new Logger('tenancy');

  constructor(private readonly tenants: TenantRepository) {}

  async exists(id: string): Promise<boolean> {
    return (await this.tenants.find(id)) !== null;
  }

  async get(id: string): Promise<TenantView> {
    const tenant = await this.tenants.find(id);
    if (!tenant) throw new DomainError('not-found', `there is no tenant ${id.slice(0, 64)}`);
    return tenant;
  }

  /** By id; at most 1000. */
  list(): Promise<TenantView[]> {
    return this.tenants.list();
  }

  async create({ id, name = id }: { id: string; name?: string | undefined }, actor: Actor): Promise<TenantView> {
    const role = await this.tenants.roleBeyondRowSecurity();
    if (role !== null)
      throw new DomainError(
        'failed-precondition',
        `PostgreSQL's row-level security does not hold for the role ${role}: name a plain role in DATABASE_URL and this one in DATABASE_MIGRATION_URL, then make tenants`,
      );
    const tenant = await this.tenants.create({ id, name }, actor);
    if (!tenant) throw new DomainError('already-exists', `there is a tenant ${id} already`);
    this.log.log(`tenant ${id} was made`);
    return tenant;
  }
}
