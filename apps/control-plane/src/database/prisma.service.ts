import { type OnApplicationShutdown } from '@nestjs/common';
import { PrismaPg } from '@prisma/adapter-pg';
import { Prisma, PrismaClient } from '../generated/prisma/client.js';
import { currentScope, currentTenant, SYSTEM_OPTIONS } from './scope.js';

const CONNECTIONS_MAX = 10;
/** Of one statement's wait for a connection, and of its run: a statement in a tenant's scope is a transaction. */
const PATIENCE = { maxWait: 10_000, timeout: 60_000 };

type TransactionOptions = { readonly maxWait?: number; readonly timeout?: number };

/** What repositories may do: every model and raw SQL, and a transaction as a function. Prisma's list of promises would leave the scope. */
export type Scoped = Prisma.TransactionClient & {
  $transaction<T>(work: (tx: Prisma.TransactionClient) => Promise<T>, options?: TransactionOptions): Promise<T>;
};

/**
 * The one door to the database. Work in a tenant's scope runs in a transaction that PostgreSQL's row-level security binds to the tenant, and every
 * call of a model carries the tenant in its condition besides. Work in the system scope has connections of its own, which see all tenants, and
 * pays nothing for it. Work without a scope is refused.
 */
class Door implements OnApplicationShutdown {
  private readonly base: PrismaClient;
  private readonly filtered: PrismaClient;
  readonly system: PrismaClient;

  constructor(databaseUrl: string) {
    this.base = new PrismaClient({ adapter: adapter(databaseUrl), transactionOptions: PATIENCE });
    this.filtered = this.base.$extends(ownRows) as unknown as PrismaClient;
    this.system = new PrismaClient({ adapter: adapter(databaseUrl, SYSTEM_OPTIONS), transactionOptions: PATIENCE });
    return new Proxy(this, { get: (door, name) => (name in door ? bound(door, name) : door.scoped(name)) });
  }

  async $transaction<T>(work: (tx: Prisma.TransactionClient) => Promise<T>, options: TransactionOptions = {}): Promise<T> {
    const scope = currentScope();
    if (scope.kind === 'system') return this.system.$transaction(work, options);
    return this.filtered.$transaction(async (tx) => {
      await tx.$executeRaw`SELECT set_config('matfleet.tenant', ${scope.tenantId}, true)`;
      return work(tx);
    }, options);
  }

  async $disconnect(): Promise<void> {
    await Promise.all([this.base.$disconnect(), this.system.$disconnect()]);
  }

  async onApplicationShutdown(): Promise<void> {
    await this.$disconnect();
  }

  /** A model, or a method for raw SQL, in the scope of whoever calls it. */
  private scoped(name: string | symbol): unknown {
    if (name === 'then' || typeof name === 'symbol') return undefined;
    const part: unknown = Reflect.get(this.base, name);
    if (typeof part === 'function') return (...args: unknown[]) => this.run((client) => invoke(client, name, args));
    if (typeof part !== 'object' || part === null) return part;
    return new Proxy(part, {
      get: (_, method) => {
        if (typeof method === 'symbol' || typeof Reflect.get(part, method) !== 'function') return Reflect.get(part, method) as unknown;
        return (...args: unknown[]) => this.run((client) => invoke(Reflect.get(client, name) as object, method, args));
      },
    });
  }

  private async run(call: (client: Prisma.TransactionClient) => Promise<unknown>): Promise<unknown> {
    return currentScope().kind === 'system' ? call(this.system) : this.$transaction(call);
  }
}

const invoke = (target: object, method: string, args: unknown[]): Promise<unknown> =>
  (Reflect.get(target, method) as (...args: unknown[]) => Promise<unknown>).apply(target, args);

const bound = (door: Door, name: string | symbol): unknown => {
  const part: unknown = Reflect.get(door, name);
  return typeof part === 'function' ? part.bind(door) : part;
};

const adapter = (connectionString: string, options?: string): PrismaPg =>
  new PrismaPg({ connectionString, max: CONNECTIONS_MAX, connectionTimeoutMillis: 10_000, ...(options !== undefined && { options }) });

/** Models of all tenants: they have no column for it. */
const SHARED = new Set<string>([Prisma.ModelName.Replica, Prisma.ModelName.LeaderLease]);

/** The first wall: whatever reads or changes rows by a condition gets the tenant into it. New rows take it from their column's default. */
const ownRows = Prisma.defineExtension({
  name: 'own-rows',
  query: {
    $allModels: {
      $allOperations({ model, operation, args, query }) {
        if (SHARED.has(model) || operation.startsWith('create')) return query(args);
        const own = model === Prisma.ModelName.Tenant ? { id: currentTenant() } : { tenantId: currentTenant() };
        const given = args as { where?: Record<string, unknown> };
        return query({ ...given, where: { ...given.where, AND: [own, ...[given.where?.['AND'] ?? []].flat()] } } as typeof args);
      },
    },
  },
});

/** Only `*.repository.ts` files speak to it. */
export type PrismaService = Scoped & Pick<Door, '$disconnect' | 'onApplicationShutdown'> & { readonly system: PrismaClient };
export const PrismaService = Door as unknown as new (databaseUrl: string) => PrismaService;
