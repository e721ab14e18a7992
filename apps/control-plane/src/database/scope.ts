import { AsyncLocalStorage } from 'node:async_hooks';
import type { DeviceFilter } from '@matfleet/filter';

/**
 * Whose rows a piece of work may touch. `tenant`: those of one tenant. `system`: those of all tenants, for what belongs to none of them: sweeps,
 * leader loops, who a key or certificate belongs to. Work that has neither reaches no row: the database's door refuses it.
 */
export type Scope =
  /** `devices`: of the tenant's devices the caller means these alone. */
  { readonly kind: 'tenant'; readonly tenantId: string; readonly devices?: DeviceFilter | undefined } | { readonly kind: 'system' };

/** The tenant of everything that was there before there were tenants, and of what names none. */
export const DEFAULT_TENANT = 'default';
/** What `matfleet.tenant` holds in the system scope; no tenant can be called so. */
const EVERY_TENANT = '*';
/** How a connection of the system scope begins. */
export const SYSTEM_OPTIONS = `-c matfleet.tenant=${EVERY_TENANT}`;

const SYSTEM: Scope = { kind: 'system' };
const storage = new AsyncLocalStorage<Scope | undefined>();

export const inTenant = <T>(tenantId: string, work: () => T, devices?: DeviceFilter): T => storage.run({ kind: 'tenant', tenantId, devices }, work);
export const inSystem = <T>(work: () => T): T => storage.run(SYSTEM, work);
/** Forgets the scope that the caller stands in: for what comes from outside and has proved nothing yet. */
export const inNone = <T>(work: () => T): T => storage.run(undefined, work);
export const inScope = <T>(scope: Scope, work: () => T): T => storage.run(scope, work);

/** The scope of the running work; throws where there is none. */
export function currentScope(): Scope {
  const scope = storage.getStore();
  if (!scope) throw new Error('this work has no tenant and is not the system’s: it must not reach the database');
  return scope;
}

/** The tenant of the running work, undefined in the system scope and outside of any. */
export function tenantHere(): string | undefined {
  const scope = storage.getStore();
  return scope?.kind === 'tenant' ? scope.tenantId : undefined;
}

/** The devices that the caller means alone; undefined: all of its tenant. */
export function devicesHere(): DeviceFilter | undefined {
  const scope = storage.getStore();
  return scope?.kind === 'tenant' ? scope.devices : undefined;
}

/** The tenant of the running work, where there must be one. */
export function currentTenant(): string {
  const tenantId = tenantHere();
  if (tenantId === undefined) throw new Error('this work belongs to one tenant, and none is known here');
  return tenantId;
}

/** Whether the running work reaches this thing. */
export const isHere = ({ tenantId }: { readonly tenantId: string }): boolean => tenantId === (tenantHere() ?? tenantId);

/** Keeps the scope that stands now for calls that come later from elsewhere: from events, timers, streams. */
export const keepScope = (): (<T>(work: () => T) => T) => AsyncLocalStorage.snapshot();
