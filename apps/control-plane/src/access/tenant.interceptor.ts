import { type CallHandler, type ExecutionContext, Injectable, type NestInterceptor } from '@nestjs/common';
import { Observable } from 'rxjs';
import { inNone, inTenant } from '../database/scope.js';
import { callerOf, requestOf } from './caller.js';

/** Runs each call in its caller's tenant, also one that comes over a WebSocket, where no hook of the HTTP server runs. */
@Injectable()
export class TenantInterceptor implements NestInterceptor {
  intercept(context: ExecutionContext, next: CallHandler): Observable<unknown> {
    const caller = callerOf(requestOf(context));
    return new Observable((subscriber) => {
      const call = () => next.handle().subscribe(subscriber);
      return caller ? inTenant(caller.tenantId, call, caller.devices) : inNone(call);
    });
  }
}
