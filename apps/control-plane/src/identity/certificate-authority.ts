import 'reflect-metadata';
import { createHash, randomBytes, webcrypto } from 'node:crypto';
import { chmod, mkdir, open, readFile, rename } from 'node:fs/promises';
import { isIP } from 'node:net';
import { dirname, join } from 'node:path';
import {
  AuthorityKeyIdentifierExtension,
  BasicConstraintsExtension,
  cryptoProvider,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  KeyUsageFlags,
  KeyUsagesExtension,
  PemConverter,
  Pkcs10CertificateRequest,
  SubjectAlternativeNameExtension,
  SubjectKeyIdentifierExtension,
  X509Certificate,
  X509CertificateGenerator,
} from '@peculiar/x509';
import { DomainError } from '../errors.js';

cryptoProvider.set(webcrypto as Parameters<typeof cryptoProvider.set>[1]);

/** The library names the browser's types, which Node has under another name. */
type LibraryKeys = Parameters<typeof X509CertificateGenerator.createSelfSigned>[0]['keys'];
type LibraryKey = LibraryKeys['publicKey'];

/** The common name of a replica's certificate. Devices' are UUIDs of ours, so none can have it. */
export const REPLICA_NAME = 'matfleet-replica';
/** Before the tenant's id in a device's certificate. */
export const TENANT_URI = 'urn:matfleet:tenant:';
const ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;
const DAY_MS = 24 * 3_600_000;
const CA_DAYS = 3_650;
const SERVER_DAYS = 90;
/** Certificates begin this much earlier, for devices whose clock lags. */
const BACKDATE_MS = 24 * 3_600_000;
// Made once: encoding them costs as much as a signature.
const NO_AUTHORITY = new BasicConstraintsExtension(false, undefined, true);
const SIGNS = new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true);
const IS_CLIENT = new ExtendedKeyUsageExtension([ExtendedKeyUsage.clientAuth]);
const IS_SERVER = new ExtendedKeyUsageExtension([ExtendedKeyUsage.serverAuth]);

export interface ServerIdentity {
  readonly certificatePem: string;
  readonly keyPem: string;
  readonly expiresAt: Date;
}

/** The fleet's own certificate authority, made at first start and kept in a directory. Its key never leaves this file. */
export class CertificateAuthority {
  readonly certificatePem: string;

  private constructor(
    private readonly certificate: X509Certificate,
    private readonly key: webcrypto.CryptoKey,
    private readonly keyIdentifier: AuthorityKeyIdentifierExtension,
  ) {
    this.certificatePem = certificate.toString('pem');
  }

  private static async of(certificate: X509Certificate, key: webcrypto.CryptoKey): Promise<CertificateAuthority> {
    return new CertificateAuthority(certificate, key, await AuthorityKeyIdentifierExtension.create(certificate));
  }

  /** Reads the authority in `directory`, or makes it there. `key.pem` is readable by its owner alone. */
  static async open(directory: string, now: Date): Promise<CertificateAuthority> {
    await mkdir(directory, { recursive: true, mode: 0o700 });
    const [certificateFile, keyFile] = [join(directory, 'certificate.pem'), join(directory, 'key.pem')];
    const certificatePem = await readFile(certificateFile, 'utf8').catch(absent);
    if (certificatePem === null) return CertificateAuthority.create(certificateFile, keyFile, now);
    const der = PemConverter.decodeFirst(await readFile(keyFile, 'utf8'));
    const key = await webcrypto.subtle.importKey('pkcs8', der, ALGORITHM, false, ['sign']);
    await chmod(keyFile, 0o600);
    return CertificateAuthority.of(new X509Certificate(certificatePem), key);
  }

  private static async create(certificateFile: string, keyFile: string, now: Date): Promise<CertificateAuthority> {
    const keys = await webcrypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify']);
    const certificate = await X509CertificateGenerator.createSelfSigned({
      serialNumber: serialNumber(),
      name: 'CN=Matfleet CA',
      keys: keys as LibraryKeys,
      signingAlgorithm: ALGORITHM,
      ...validity(now, CA_DAYS * DAY_MS),
      extensions: [
        new BasicConstraintsExtension(true, 0, true),
        new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
        await SubjectKeyIdentifierExtension.create(keys.publicKey as LibraryKey),
      ],
    });
    // The key first: a certificate without its key could never be completed, a key without certificate is simply replaced.
    await writeWhole(keyFile, await privateKeyPem(keys.privateKey), 0o600);
    await writeWhole(certificateFile, certificate.toString('pem'), 0o644);
    return CertificateAuthority.of(certificate, keys.privateKey);
  }

  /** Lower-case hex SHA-256 of the certificate's DER bytes: what a join token carries. */
  get sha256(): string {
    return createHash('sha256').update(Buffer.from(this.certificate.rawData)).digest('hex');
  }

  /** A fresh key and certificate for the device port. `hosts` are the names and addresses by which devices reach it. */
  async issueServer(hosts: readonly string[], now: Date): Promise<ServerIdentity> {
    const keys = await webcrypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify']);
    const names = [...new Set(hosts)].map((host) => ({ type: isIP(host) ? ('ip' as const) : ('dns' as const), value: host }));
    const certificate = await this.sign('CN=Matfleet control plane', keys.publicKey, now, SERVER_DAYS * DAY_MS, ExtendedKeyUsage.serverAuth, [
      new SubjectAlternativeNameExtension(names),
    ]);
    return {
      certificatePem: certificate.toString('pem') + '\n' + this.certificatePem,
      keyPem: await privateKeyPem(keys.privateKey),
      expiresAt: certificate.notAfter,
    };
  }

  /** A fresh key and client certificate by which this replica shows itself to the others. */
  async issueReplica(now: Date): Promise<ServerIdentity> {
    const keys = await webcrypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify']);
    const certificate = await this.sign(`CN=${REPLICA_NAME}`, keys.publicKey, now, SERVER_DAYS * DAY_MS, ExtendedKeyUsage.clientAuth, []);
    return { certificatePem: certificate.toString('pem'), keyPem: await privateKeyPem(keys.privateKey), expiresAt: certificate.notAfter };
  }

  /** A client certificate with the device's id as its common name and its tenant as a URI. The request must be checked before. */
  async issueDevice(request: DeviceCertificateRequest, device: { deviceId: string; tenantId: string }, now: Date, lifeMs: number): Promise<string> {
    const key = await webcrypto.subtle.importKey('spki', request.spki, ALGORITHM, true, ['verify']);
    const certificate = await this.sign(`CN=${device.deviceId}`, key, now, lifeMs, ExtendedKeyUsage.clientAuth, [
      new SubjectAlternativeNameExtension([{ type: 'url', value: `${TENANT_URI}${device.tenantId}` }]),
    ]);
    return certificate.toString('pem');
  }

  private async sign(
    subject: string,
    publicKey: webcrypto.CryptoKey,
    now: Date,
    lifeMs: number,
    usage: ExtendedKeyUsage.clientAuth | ExtendedKeyUsage.serverAuth,
    extensions: SubjectAlternativeNameExtension[],
  ) {
    return X509CertificateGenerator.create({
      serialNumber: serialNumber(),
      subject,
      issuer: this.certificate.subject,
      publicKey: publicKey as LibraryKey,
      signingKey: this.key as LibraryKey,
      signingAlgorithm: ALGORITHM,
      ...validity(now, lifeMs),
      extensions: [NO_AUTHORITY, SIGNS, usage === ExtendedKeyUsage.clientAuth ? IS_CLIENT : IS_SERVER, this.keyIdentifier, ...extensions],
    });
  }
}

export interface DeviceCertificateRequest {
  /** DER of the public key. */
  readonly spki: Buffer<ArrayBuffer>;
  /** SHA-256 of `spki`, lower-case hex: the device's lasting mark. */
  readonly publicKeyHash: string;
}

/** Checks that the request is signed by its own ECDSA P-256 key. Nothing else of it is used. */
export async function readCertificateRequest(csrPem: string): Promise<DeviceCertificateRequest> {
  if (csrPem.length > 8_192)
    throw new DomainError('invalid-argument', `the certificate request has ${csrPem.length} characters, at most 8192 are taken`);
  try {
    const request = new Pkcs10CertificateRequest(csrPem);
    const algorithm = request.publicKey.algorithm as { name: string; namedCurve?: string };
    if (algorithm.name !== 'ECDSA' || algorithm.namedCurve !== 'P-256')
      throw new Error(`its key is ${algorithm.name} ${algorithm.namedCurve ?? ''}, not ECDSA P-256`);
    if (!(await request.verify())) throw new Error('its signature does not match its key');
    const spki = Buffer.from(request.publicKey.rawData) as Buffer<ArrayBuffer>;
    return { spki, publicKeyHash: createHash('sha256').update(spki).digest('hex') };
  } catch (error) {
    throw new DomainError('invalid-argument', `the certificate request cannot be used: ${error instanceof Error ? error.message : String(error)}`, {
      cause: error,
    });
  }
}

const serialNumber = (): string => '01' + randomBytes(15).toString('hex');

const validity = (now: Date, lifeMs: number) => ({
  notBefore: new Date(now.getTime() - BACKDATE_MS),
  notAfter: new Date(now.getTime() + lifeMs),
});

/** When two thirds of the life of a certificate that `issueDevice` made are over, milliseconds since 1970. */
export function renewalDueMs({ notBefore, notAfter }: { notBefore: Date; notAfter: Date }): number {
  const lifeMs = notAfter.getTime() - (notBefore.getTime() + BACKDATE_MS);
  return notAfter.getTime() - lifeMs / 3;
}

async function privateKeyPem(key: webcrypto.CryptoKey): Promise<string> {
  return PemConverter.encode(await webcrypto.subtle.exportKey('pkcs8', key), 'PRIVATE KEY');
}

/** A crash leaves the old file or the new one, never a part. */
async function writeWhole(file: string, text: string, mode: number): Promise<void> {
  const temporary = `${file}.${process.pid}.tmp`;
  const handle = await open(temporary, 'w', mode);
  try {
    await handle.writeFile(text);
    await handle.sync();
  } finally {
    await handle.close();
  }
  await rename(temporary, file);
  const directory = await open(dirname(file), 'r');
  await directory.sync().finally(() => directory.close());
}

function absent(error: NodeJS.ErrnoException): null {
  if (error.code === 'ENOENT') return null;
  throw error;
}
