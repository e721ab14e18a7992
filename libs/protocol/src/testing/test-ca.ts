import 'reflect-metadata';
import { createHash, randomBytes, webcrypto } from 'node:crypto';
import {
  BasicConstraintsExtension,
  cryptoProvider,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  Pkcs10CertificateRequest,
  SubjectAlternativeNameExtension,
  X509CertificateGenerator,
  type X509Certificate,
} from '@peculiar/x509';

const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };

/** Issues certificates as a control plane does, in memory, for tests. */
export interface TestCa {
  readonly certificatePem: string;
  /** SHA-256 of the DER bytes, as a join token carries it. */
  readonly sha256: string;
  /** For localhost and 127.0.0.1; the chain ends in the CA. */
  server(): Promise<{ readonly keyPem: string; readonly chainPem: string }>;
  device(deviceId: string): Promise<{ readonly keyPem: string; readonly certificatePem: string }>;
  sign(csrPem: string, deviceId: string): Promise<string>;
}

export async function createTestCa(): Promise<TestCa> {
  cryptoProvider.set(webcrypto as never);
  const keys = await newKeys();
  const validity = { notBefore: new Date(Date.now() - 60_000), notAfter: new Date(Date.now() + 86_400_000) };
  const ca = await X509CertificateGenerator.createSelfSigned({
    serialNumber: serial(),
    name: 'CN=Test fleet CA',
    ...validity,
    signingAlgorithm: algorithm,
    keys: keys as never,
    extensions: [new BasicConstraintsExtension(true, 0, true)],
  });
  const certificatePem = `${ca.toString('pem')}\n`;

  const issue = (
    subject: string,
    publicKey: unknown,
    extensions: (ExtendedKeyUsageExtension | SubjectAlternativeNameExtension)[],
  ): Promise<X509Certificate> =>
    X509CertificateGenerator.create({
      serialNumber: serial(),
      subject,
      issuer: ca.subject,
      ...validity,
      signingAlgorithm: algorithm,
      publicKey: publicKey as never,
      signingKey: keys.privateKey as never,
      extensions,
    });

  return {
    certificatePem,
    sha256: createHash('sha256').update(new Uint8Array(ca.rawData)).digest('hex'),
    async server() {
      const own = await newKeys();
      const names = new SubjectAlternativeNameExtension([
        { type: 'dns', value: 'localhost' },
        { type: 'ip', value: '127.0.0.1' },
      ]);
      const leaf = await issue('CN=localhost', own.publicKey, [names, new ExtendedKeyUsageExtension([ExtendedKeyUsage.serverAuth])]);
      return { keyPem: await privatePem(own.privateKey), chainPem: `${leaf.toString('pem')}\n${certificatePem}` };
    },
    async device(deviceId) {
      const own = await newKeys();
      const leaf = await issue(`CN=${deviceId}`, own.publicKey, [new ExtendedKeyUsageExtension([ExtendedKeyUsage.clientAuth])]);
      return { keyPem: await privatePem(own.privateKey), certificatePem: `${leaf.toString('pem')}\n` };
    },
    async sign(csrPem, deviceId) {
      const request = new Pkcs10CertificateRequest(csrPem);
      if (!(await request.verify())) throw new Error('the certificate request is not signed by its key');
      const leaf = await issue(`CN=${deviceId}`, request.publicKey, [new ExtendedKeyUsageExtension([ExtendedKeyUsage.clientAuth])]);
      return `${leaf.toString('pem')}\n`;
    },
  };
}

const serial = (): string => `01${randomBytes(8).toString('hex')}`;

const newKeys = (): Promise<webcrypto.CryptoKeyPair> =>
  webcrypto.subtle.generateKey({ name: 'ECDSA', namedCurve: 'P-256' }, true, ['sign', 'verify']);

async function privatePem(key: webcrypto.CryptoKey): Promise<string> {
  const base64 = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', key)).toString('base64');
  return `-----BEGIN PRIVATE KEY-----\n${base64.replace(/.{64}/g, '$&\n').trim()}\n-----END PRIVATE KEY-----\n`;
}
