import { copyFileSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { X509Certificate } from 'node:crypto';
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { DeviceServiceClient } from '@matfleet/protocol';
import { FakeControlPlane } from '@matfleet/protocol/testing';
import { channelOptions, deviceCredentials, targetOf } from './channel.js';
import { enrol, type Identity, loadIdentity, publicKeyHashOf } from './enrol.js';
import { renewIdentity } from './renew.js';

describe('renewIdentity', () => {
  const answers = { loseRenewals: false };
  let plane: FakeControlPlane;
  let directory: string;
  let identity: Identity;

  beforeEach(async () => {
    directory = mkdtempSync(join(tmpdir(), 'renew-'));
    plane = await FakeControlPlane.start(answers);
    identity = await enrol({ joinUrl: plane.url, token: plane.joinToken, deviceName: 'porch', directory });
  });
  afterEach(() => {
    answers.loseRenewals = false;
    plane.stop();
    rmSync(directory, { recursive: true, force: true });
  });

  const renew = () => {
    const client = new DeviceServiceClient(targetOf(plane.url), deviceCredentials(identity), channelOptions);
    return renewIdentity(client, { directory, identity }).finally(() => client.close());
  };

  it('leaves a new key and its certificate for the same device, and nothing of the old ones', async () => {
    const { identity: next, renewInMs } = await renew();
    expect(renewInMs).toBe(1_000);
    expect(next.deviceId).toBe(identity.deviceId);
    expect(publicKeyHashOf(next.keyPem)).not.toBe(publicKeyHashOf(identity.keyPem));
    expect(loadIdentity(directory)).toEqual(next);
    expect(existsSync(join(directory, 'next.key'))).toBe(false);
    expect(readFileSync(join(directory, 'device.key'), 'utf8')).toBe(next.keyPem);
  });

  it('whose answer was lost asks again with the same new key, and the old identity counts until then', async () => {
    answers.loseRenewals = true;
    await expect(renew()).rejects.toThrow('the answer is lost');
    expect(loadIdentity(directory)).toEqual(identity);
    answers.loseRenewals = false;
    await renew();
    expect(plane.renewals).toHaveLength(2);
    expect(new Set(plane.renewals).size).toBe(1);
  });

  it('that was killed once the certificate was stored is completed by the next start', async () => {
    const oldKey = join(directory, 'old.key');
    copyFileSync(join(directory, 'device.key'), oldKey);
    const { identity: next } = await renew();
    // As the disk is between the two steps: the new certificate, and the new key under its first name.
    copyFileSync(join(directory, 'device.key'), join(directory, 'next.key'));
    copyFileSync(oldKey, join(directory, 'device.key'));
    expect(loadIdentity(directory)).toEqual(next);
    expect(existsSync(join(directory, 'next.key'))).toBe(false);
    expect(loadIdentity(directory)).toEqual(next);
  });

  it('that was killed before anything was asked leaves the identity as it was', () => {
    writeFileSync(join(directory, 'next.key'), identity.keyPem.replace(/[A-Z]{4}/, 'AAAA'));
    expect(loadIdentity(directory)).toEqual(identity);
    expect(new X509Certificate(identity.certificatePem).subject).toBe(`CN=${identity.deviceId}`);
  });
});
