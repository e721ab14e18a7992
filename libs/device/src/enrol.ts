import { createHash, createPrivateKey, createPublicKey, webcrypto, X509Certificate } from 'node:crypto';
import { chmodSync, existsSync, mkdirSync, readFileSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { connect, type DetailedPeerCertificate } from 'node:tls';
import { ChannelCredentials, Metadata, type ServiceError } from '@grpc/grpc-js';
import { DeviceServiceClient, parseJoinToken, type EnrollResponse } from '@matfleet/protocol';
import { z } from 'zod';
import { channelOptions, targetOf } from './channel.js';
import { readStateFile, syncDirectory, writeFileDurably } from './state-file.js';

/** Of the certificate in `identity.json`. */
export const KEY_FILE = 'device.key';
/** Of the certificate that is being asked for. */
export const NEXT_KEY_FILE = 'next.key';

const Stored = z.object({ deviceId: z.string().min(1), deviceName: z.string(), certificatePem: z.string(), caPem: z.string() });

/** Who this device is to its fleet. */
export type Identity = z.infer<typeof Stored> & { readonly keyPem: string };

export interface EnrolOptions {
  /** `https://host:port` of the control plane. */
  readonly joinUrl: string;
  readonly token: string;
  readonly deviceName: string;
  /** Holds `device.key` and `identity.json`, readable by the owner alone. */
  readonly directory: string;
  readonly timeoutMs?: number;
}

/** An operator has to accept this device first: ask again. */
export class EnrolmentPending extends Error {
  constructor(
    readonly deviceName: string,
    readonly publicKeyHash: string,
    readonly retryAfterMs: number,
  ) {
    super(`${deviceName} waits for an operator: matfleet device accept ${deviceName} (key ${publicKeyHash})`);
    this.name = 'EnrolmentPending';
  }
}

/**
 * The identity of an earlier enrolment, or undefined. The certificate says which key counts: a renewal that was cut off after it had
 * stored the certificate is completed here.
 */
export function loadIdentity(directory: string): Identity | undefined {
  const stored = readStateFile(join(directory, 'identity.json'), Stored);
  if (!stored) return undefined;
  const [keyPath, nextPath] = [join(directory, KEY_FILE), join(directory, NEXT_KEY_FILE)];
  const certificate = new X509Certificate(stored.certificatePem);
  for (const path of [keyPath, nextPath]) {
    const keyPem = existsSync(path) ? readFileSync(path, 'utf8') : undefined;
    if (keyPem === undefined || !certificate.checkPrivateKey(createPrivateKey(keyPem))) continue;
    if (path === nextPath) replaceKey(directory);
    return { ...stored, keyPem };
  }
  return undefined;
}

/** Keeps an identity: what `loadIdentity` answers next. */
export function storeIdentity(directory: string, { keyPem: _key, ...stored }: Identity): void {
  writeFileDurably(join(directory, 'identity.json'), `${JSON.stringify(stored, null, 2)}\n`);
}

/** The key of the next certificate takes the place of the last one's. */
export function replaceKey(directory: string): void {
  renameSync(join(directory, NEXT_KEY_FILE), join(directory, KEY_FILE));
  syncDirectory(directory);
}

/**
 * Trades the join token for a certificate. The private key is made here, is on disk before it is used, and never leaves; the same key asks again
 * after a lost answer, so a retry yields the same identity. Nothing is sent before the server has shown the CA that the token names.
 */
export async function enrol(options: EnrolOptions): Promise<Identity> {
  const { joinUrl, deviceName, directory, timeoutMs = 15_000 } = options;
  const { caSha256 } = parseJoinToken(options.token);
  const keyPem = await deviceKey(directory);
  const caPem = await pinnedCa(joinUrl, caSha256, timeoutMs);
  const client = enrolmentClient(joinUrl, caPem);
  try {
    const identity = await requestIdentity(client, { token: options.token, deviceName, keyPem, caPem, timeoutMs });
    storeIdentity(directory, identity);
    return identity;
  } catch (cause) {
    if (cause instanceof EnrolmentPending) throw cause;
    throw new Error(`${joinUrl} refused the enrolment: ${(cause as Error).message}`, { cause });
  } finally {
    client.close();
  }
}

/** A client without a certificate, to a server that shows the pinned CA. */
export const enrolmentClient = (joinUrl: string, caPem: string): DeviceServiceClient =>
  new DeviceServiceClient(targetOf(joinUrl), ChannelCredentials.createSsl(Buffer.from(caPem)), channelOptions);

export interface IdentityRequest {
  readonly token: string;
  readonly deviceName: string;
  readonly keyPem: string;
  /** What `pinnedCa` answered. */
  readonly caPem: string;
  readonly timeoutMs: number;
}

/** The exchange alone: nothing is kept. The same key gets the same identity. */
export async function requestIdentity(client: DeviceServiceClient, options: IdentityRequest): Promise<Identity> {
  const { deviceName, keyPem, caPem, timeoutMs } = options;
  const { secret } = parseJoinToken(options.token);
  const csrPem = await certificateRequest(keyPem, deviceName);
  const answer = await new Promise<EnrollResponse>((resolve, reject) =>
    client.enroll(
      { token: secret, csrPem, deviceName },
      new Metadata(),
      { deadline: Date.now() + timeoutMs },
      (error: ServiceError | null, response) => (error ? reject(new Error(error.details || error.message, { cause: error })) : resolve(response)),
    ),
  );
  if (answer.pending) throw new EnrolmentPending(answer.deviceName || deviceName, publicKeyHashOf(keyPem), answer.retryAfterMs);
  return { deviceId: answer.deviceId, deviceName: answer.deviceName || deviceName, certificatePem: answer.certificatePem, caPem, keyPem };
}

/** A new private key, P-256, PEM. */
export async function newDeviceKey(): Promise<string> {
  const { privateKey } = await webcrypto.subtle.generateKey({ name: 'ECDSA', namedCurve: 'P-256' }, true, ['sign', 'verify']);
  const pkcs8 = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', privateKey));
  return createPrivateKey({ key: pkcs8, format: 'der', type: 'pkcs8' }).export({ format: 'pem', type: 'pkcs8' }) as string;
}

/** SHA-256 of the public key (SPKI, DER), lower-case hex: how operators name a key. */
export const publicKeyHashOf = (keyPem: string): string =>
  createHash('sha256')
    .update(createPublicKey(createPrivateKey(keyPem)).export({ format: 'der', type: 'spki' }))
    .digest('hex');

/** This device's key, made at the first call. The directory is for the owner alone. */
export function deviceKey(directory: string): Promise<string> {
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  chmodSync(directory, 0o700);
  return keptKey(join(directory, KEY_FILE));
}

/** The key in this file, made and kept where there is none. */
export async function keptKey(path: string): Promise<string> {
  if (existsSync(path)) return readFileSync(path, 'utf8');
  const pem = await newDeviceKey();
  writeFileDurably(path, pem);
  return pem;
}

/** PEM, signed by its key. */
export async function certificateRequest(keyPem: string, deviceName: string): Promise<string> {
  // Loaded only while enrolling: it costs memory that a daemon does not need again.
  await import('reflect-metadata');
  const { Pkcs10CertificateRequestGenerator, cryptoProvider } = await import('@peculiar/x509');
  cryptoProvider.set(webcrypto as never);
  const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
  const key = createPrivateKey(keyPem);
  const privateKey = await webcrypto.subtle.importKey('pkcs8', key.export({ format: 'der', type: 'pkcs8' }), algorithm, true, ['sign']);
  const publicKey = await webcrypto.subtle.importKey('spki', createPublicKey(key).export({ format: 'der', type: 'spki' }), algorithm, true, [
    'verify',
  ]);
  const request = await Pkcs10CertificateRequestGenerator.create({
    name: [{ CN: [deviceName] }],
    keys: { privateKey, publicKey } as Parameters<typeof Pkcs10CertificateRequestGenerator.create>[0]['keys'],
    signingAlgorithm: algorithm,
  });
  return request.toString('pem');
}

/** The CA certificate at the end of the server's chain, when its SHA-256 is the expected one. The connection carries nothing else. */
export function pinnedCa(joinUrl: string, caSha256: string, timeoutMs: number): Promise<string> {
  const url = new URL(joinUrl);
  const host = url.hostname.replace(/^\[|\]$/g, '');
  return new Promise((resolve, reject) => {
    const socket = connect({ host, port: Number(url.port || 443), rejectUnauthorized: false, ALPNProtocols: ['h2'] });
    const end = (act: () => void): void => {
      clearTimeout(timer);
      socket.destroy();
      act();
    };
    const timer = setTimeout(() => end(() => reject(new Error(`${joinUrl} did not finish a TLS handshake within ${timeoutMs} ms`))), timeoutMs);
    socket.once('error', (cause) => end(() => reject(new Error(`cannot reach ${joinUrl}: ${cause.message}`, { cause }))));
    socket.once('secureConnect', () => {
      const ca = chainOf(socket.getPeerCertificate(true)).find((raw) => createHash('sha256').update(raw).digest('hex') === caSha256);
      end(() =>
        ca
          ? resolve(`-----BEGIN CERTIFICATE-----\n${ca.toString('base64').replace(/.{64}/g, '$&\n').trim()}\n-----END CERTIFICATE-----\n`)
          : reject(
              new Error(
                `${joinUrl} does not show the CA that the join token names (SHA-256 ${caSha256}): wrong control plane, or somebody in between`,
              ),
            ),
      );
    });
  });
}

function chainOf(leaf: DetailedPeerCertificate): Buffer[] {
  const chain: Buffer[] = [];
  for (
    let at: DetailedPeerCertificate | undefined = leaf;
    at?.raw && chain.length < 8;
    at = at.issuerCertificate === at ? undefined : at.issuerCertificate
  )
    chain.push(at.raw);
  return chain;
}
