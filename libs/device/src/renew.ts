import { join } from 'node:path';
import { Metadata, type ServiceError } from '@grpc/grpc-js';
import type { DeviceServiceClient, RenewResponse } from '@matfleet/protocol';
import { certificateRequest, type Identity, keptKey, NEXT_KEY_FILE, replaceKey, storeIdentity } from './enrol.js';

export interface RenewOptions {
  /** Holds the identity, as `enrol` left it. */
  readonly directory: string;
  readonly identity: Identity;
  readonly timeoutMs?: number;
}

/** The identity with a new key and certificate, and when that one should be renewed. */
export interface Renewed {
  readonly identity: Identity;
  readonly renewInMs: number;
}

/**
 * Asks for the next certificate, with a new key, over the session that the present one proves. May be cut off anywhere and repeated: the new
 * key is on disk before it is used, the certificate replaces the old one in one step, and until then the old key counts, here and there.
 */
export async function renewIdentity(client: Pick<DeviceServiceClient, 'renew'>, options: RenewOptions): Promise<Renewed> {
  const { directory, identity, timeoutMs = 15_000 } = options;
  const keyPem = await keptKey(join(directory, NEXT_KEY_FILE));
  const csrPem = await certificateRequest(keyPem, identity.deviceName);
  const answer = await new Promise<RenewResponse>((resolve, reject) =>
    client.renew({ csrPem }, new Metadata(), { deadline: Date.now() + timeoutMs }, (error: ServiceError | null, response) =>
      error ? reject(error) : resolve(response),
    ),
  );
  const next: Identity = { ...identity, certificatePem: answer.certificatePem, keyPem };
  storeIdentity(directory, next);
  replaceKey(directory);
  return { identity: next, renewInMs: Number(answer.renewInMs) };
}
