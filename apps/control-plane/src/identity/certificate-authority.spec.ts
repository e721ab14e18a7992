import 'reflect-metadata';
import { X509Certificate, webcrypto } from 'node:crypto';
import { mkdtemp, readFile, rm, stat, unlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { Pkcs10CertificateRequestGenerator } from '@peculiar/x509';
import { CertificateAuthority, readCertificateRequest, renewalDueMs } from './certificate-authority.js';

const NOW = new Date('2026-11-24T12:00:00Z');

async function csr(namedCurve = 'P-256'): Promise<string> {
  const algorithm = { name: 'ECDSA', namedCurve, hash: 'SHA-256' };
  const keys = (await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])) as webcrypto.CryptoKeyPair;
  return (await Pkcs10CertificateRequestGenerator.create({ name: 'CN=asked-for', keys: keys as never, signingAlgorithm: algorithm })).toString('pem');
}

describe('CertificateAuthority', () => {
  let directory: string;
  beforeEach(async () => void (directory = await mkdtemp(join(tmpdir(), 'matfleet-ca-'))));
  afterEach(() => rm(directory, { recursive: true, force: true }));

  it('is made once, with a key that only its owner can read, and is the same when opened again', async () => {
    const made = await CertificateAuthority.open(join(directory, 'ca'), NOW);
    const again = await CertificateAuthority.open(join(directory, 'ca'), NOW);
    expect(again.sha256).toBe(made.sha256);
    expect((await stat(join(directory, 'ca', 'key.pem'))).mode & 0o777).toBe(0o600);
    expect(new X509Certificate(made.certificatePem).ca).toBe(true);
  });

  it('refuses to go on with a certificate whose key is gone', async () => {
    await CertificateAuthority.open(directory, NOW);
    await unlink(join(directory, 'key.pem'));
    await expect(CertificateAuthority.open(directory, NOW)).rejects.toThrow('key.pem');
    expect(await readFile(join(directory, 'certificate.pem'), 'utf8')).toContain('BEGIN CERTIFICATE');
  });

  it('names a device by the id and the tenant it was given, not by what the request asks for, for as long as it is told', async () => {
    const ca = await CertificateAuthority.open(directory, NOW);
    const request = await readCertificateRequest(await csr());
    const certificate = new X509Certificate(await ca.issueDevice(request, { deviceId: 'device-1', tenantId: 'acme' }, NOW, 6 * 3_600_000));
    expect(certificate.subject).toBe('CN=device-1');
    expect(certificate.subjectAltName).toBe('URI:urn:matfleet:tenant:acme');
    expect(certificate.verify(new X509Certificate(ca.certificatePem).publicKey)).toBe(true);
    expect(certificate.ca).toBe(false);
    expect(new Date(certificate.validTo).getTime() - NOW.getTime()).toBe(6 * 3_600_000);
    expect(renewalDueMs({ notBefore: new Date(certificate.validFrom), notAfter: new Date(certificate.validTo) })).toBe(NOW.getTime() + 4 * 3_600_000);
    expect(certificate.keyUsage).toEqual(['1.3.6.1.5.5.7.3.2']);
  });

  it('signs a server certificate for every host, by name and by address', async () => {
    const ca = await CertificateAuthority.open(directory, NOW);
    const server = new X509Certificate((await ca.issueServer(['localhost', '127.0.0.1', 'fleet.example.org'], NOW)).certificatePem);
    expect(server.checkHost('fleet.example.org')).toBe('fleet.example.org');
    expect(server.checkIP('127.0.0.1')).toBe('127.0.0.1');
    expect(server.checkHost('other.example.org')).toBeUndefined();
  });

  it.each([
    ['of another curve', () => csr('P-384'), 'not ECDSA P-256'],
    ['that is no request', async () => 'nonsense', 'cannot be used'],
    ['of 9000 characters', async () => 'x'.repeat(9_000), 'at most 8192'],
  ])('refuses a request %s', async (_what, make, message) => {
    await expect(readCertificateRequest(await make())).rejects.toThrow(message);
  });
});
