import { randomBytes, randomUUID } from 'node:crypto';
import type { INestApplication } from '@nestjs/common';
import { DEFAULT_TENANT, inTenant } from '../../apps/control-plane/src/database/scope.js';
import { NewDeviceRepository } from '../../apps/control-plane/src/identity/new-device.repository.js';

/** A device of this name in the control plane's database, as an enrolment leaves it. Answers its id. */
export async function enrolledDevice(app: INestApplication, name: string, tenantId = DEFAULT_TENANT): Promise<string> {
  const device = { id: randomUUID(), publicKeyHash: randomBytes(32).toString('hex'), name, labels: {} };
  await inTenant(tenantId, () => app.get(NewDeviceRepository, { strict: false }).create(device, null, 'control-plane'));
  return device.id;
}
