import { join } from 'node:path';
import { Inject, Injectable, type OnModuleInit } from '@nestjs/common';
import { CONFIG, type Config } from '../config.js';
import { currentTenant } from '../database/scope.js';
import { CertificateAuthority, type DeviceCertificateRequest } from './certificate-authority.js';

/** The fleet's certificate authority, opened (at first start: made) while the application starts. */
@Injectable()
export class Authority implements OnModuleInit {
  private opened: CertificateAuthority | undefined;

  constructor(@Inject(CONFIG) private readonly config: Config) {}

  async onModuleInit(): Promise<void> {
    this.opened = await CertificateAuthority.open(join(this.config.dataDir, 'ca'), new Date());
  }

  get ca(): CertificateAuthority {
    if (!this.opened) throw new Error('the certificate authority is used before the application has started');
    return this.opened;
  }

  /** From issue to expiry of a device's certificate. */
  get deviceLifeMs(): number {
    return this.config.deviceCertificateSeconds * 1_000;
  }

  /** For a device of the caller's tenant. */
  issueDevice(request: DeviceCertificateRequest, deviceId: string): Promise<string> {
    return this.ca.issueDevice(request, { deviceId, tenantId: currentTenant() }, new Date(), this.deviceLifeMs);
  }
}
