import { type CanActivate, type ExecutionContext } from '@nestjs/common';
import type { GraphQLResolveInfo } from 'graphql';
import { inTenant } from '../database/scope.js';
import { DomainError } from '../errors.js';
import type { DeviceViews } from '../fleet/device-views.js';
import { callerOf, requestOf } from './caller.js';
import { isOpen } from './gate.js';
import { permissionFor, refusal } from './permissions.js';

/** What a caller may do, before every handler of REST and every root field of GraphQL. What `permissions.ts` does not name is refused. */
export class AccessGuard implements CanActivate {
  constructor(private readonly devices: DeviceViews) {}

  async canActivate(context: ExecutionContext): Promise<boolean> {
    const request = requestOf(context);
    const { operation, argument } = asked(context);
    const caller = callerOf(request);
    if (!caller) {
      // The gate let it pass without asking: it stands open, or metrics are read from this machine.
      if (operation === 'GET /metrics' || isOpen(request.method, request.routeOptions.url ?? '/api')) return true;
      throw new DomainError('unauthenticated', `${operation} came by a route that the gate does not guard`);
    }
    const permission = permissionFor(operation);
    const refused = refusal(operation, permission, { ...caller, isScoped: caller.devices !== undefined });
    if (refused !== null) throw new DomainError('permission-denied', refused);
    if (caller.devices && typeof permission?.scoped === 'object') {
      const deviceId = argument(permission.scoped.device);
      // Refuses a device that the caller does not mean as one that is not there.
      await inTenant(caller.tenantId, () => this.devices.get(deviceId), caller.devices);
    }
    return true;
  }
}

function asked(context: ExecutionContext): { operation: string; argument: (name: string) => string } {
  if (context.getType<string>() === 'graphql') {
    const [args, info] = [context.getArgByIndex<Record<string, unknown>>(1), context.getArgByIndex<GraphQLResolveInfo>(3)];
    return { operation: `${info.parentType.name}.${info.fieldName}`, argument: (name) => String(args[name]) };
  }
  const request = requestOf(context);
  const params = request.params as Record<string, string>;
  return { operation: `${request.method === 'HEAD' ? 'GET' : request.method} ${request.routeOptions.url}`, argument: (name) => params[name] ?? '' };
}
