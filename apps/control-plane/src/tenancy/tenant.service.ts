import { Injectable, Logger } from '@nestjs/common';
import type { Actor } from '../audit/audit.js';
import { DomainError } from '../errors.js';
import { TokenBucket } from '../gateway/token-bucket.js';
import type { QuotaPatch } from './quota.js';
import type { TenantView } from './tenant.js';
import { TenantRepository } from './tenant.repository.js';

const LIMIT_KNOWN_MS = 5_000;
const CALLERS_MAX = 10_000;

interface CallLimit {
  readonly perMinute: number | null;
  readonly bucket: TokenBucket | null;
  readonly untilMs: number;
}

/** The organisations on this installation. */
@Injectable()
export class TenantService {
  private readonly log = new Logger('tenancy');
  /** Of the tenants that called lately. */
  private readonly calls = new Map<string, CallLimit>();

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

  /** Takes a limit, or takes it away. */
  async setQuotas(id: string, patch: QuotaPatch, actor: Actor): Promise<TenantView> {
    const tenant = await this.tenants.setQuotas(id, patch, actor);
    if (!tenant) throw new DomainError('not-found', `there is no tenant ${id.slice(0, 64)}`);
    this.calls.delete(id);
    return tenant;
  }

  /** Counts a call of the API against the tenant's limit; answers why it is one too many, or null. A new limit holds within seconds everywhere. */
  async countCall(id: string): Promise<DomainError | null> {
    const nowMs = performance.now();
    let limit = this.calls.get(id);
    if (!limit || nowMs > limit.untilMs) {
      const perMinute = (await this.tenants.find(id))?.apiCallsPerMinuteMax ?? null;
      const isSame = limit?.perMinute === perMinute;
      const bucket = isSame ? limit!.bucket : perMinute === null ? null : new TokenBucket(Math.max(perMinute, 0.001) / 60, perMinute, nowMs);
      if (this.calls.size >= CALLERS_MAX) this.calls.clear();
      limit = { perMinute, bucket, untilMs: nowMs + LIMIT_KNOWN_MS };
      this.calls.set(id, limit);
    }
    if (!limit.bucket || limit.bucket.take(nowMs)) return null;
    return new DomainError('resource-exhausted', `tenant ${id} may make ${limit.perMinute} API calls a minute at this replica, and has made them`);
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
