import { type CanActivate, type ExecutionContext, Injectable } from '@nestjs/common';
import { DomainError } from '../errors.js';
import { callerOf, requestOf } from './caller.js';

/** Lets in keys of the installation alone. */
@Injectable()
export class InstallationGuard implements CanActivate {
  canActivate(context: ExecutionContext): boolean {
    if (callerOf(requestOf(context))?.installation) return true;
    throw new DomainError('permission-denied', 'this is for API keys of the installation');
  }
}
