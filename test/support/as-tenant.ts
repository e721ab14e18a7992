import { DEFAULT_TENANT, inTenant } from '../../apps/control-plane/src/database/scope.js';

/** A service whose methods run in a tenant's scope, as a call that the gate or the gateway let in. */
export const asTenant = <T extends object>(service: T, tenantId = DEFAULT_TENANT): T =>
  new Proxy(service, {
    get: (target, name) => {
      const part: unknown = Reflect.get(target, name);
      return typeof part === 'function' ? (...args: unknown[]) => inTenant(tenantId, () => part.apply(target, args) as unknown) : part;
    },
  });
