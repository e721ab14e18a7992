import 'reflect-metadata';
import { stat } from 'node:fs/promises';
import { connect as connectHttp2 } from 'node:http2';
import { join } from 'node:path';
import { ChannelCredentials } from '@grpc/grpc-js';
import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { ArtifactServiceClient } from '@matfleet/protocol';
import { createTestCa, type FakeDevice } from '@matfleet/protocol/testing';
import { first, GatewayRig, until } from '../../../../test/support/gateway-rig.js';

describe('the device gateway', () => {
  let rig: GatewayRig;

  beforeAll(async () => {
    rig = await GatewayRig.start();
  });
  afterEach(() => rig.tidy());
  afterAll(() => rig?.stop());

  describe('enrolment', () => {
    it('keeps the key of its CA from everybody but the owner, and a session hears which slice its grant holds', async () => {
      expect((await stat(join(rig.dataDir, 'ca', 'key.pem'))).mode & 0o777).toBe(0o600);
      const { identity } = await rig.running('kiosk', 'middle');
      await until(
        () => rig.deviceOf(identity.deviceId),
        (device) => device.presence === 'online' && device.phase === 'active' && device.observed?.sliceId === 'middle',
      );
      const [assignment] = await rig.call<{ reason: string; explanation: { candidates: { sliceId: string; why: string }[] } }[]>(
        'GET',
        `/api/v1/devices/${identity.deviceId}/assignments`,
      );
      expect(assignment!.reason).toContain('is the best slice that fits');
      expect(assignment!.explanation.candidates.find((candidate) => candidate.sliceId === 'large')!.why).toMatch(/needs .* of memory, the grant is/);
    });

    it('gives the same key the same device without taking another use, and a second device nothing once the uses are gone', async () => {
      const joinToken = await rig.token(1);
      const { csrPem } = await rig.newKey();
      const once = await rig.enrolWith(joinToken, csrPem, 'kiosk');
      const again = await rig.enrolWith(joinToken, csrPem, 'another-name');
      expect(again).toMatchObject({ deviceId: once.deviceId, deviceName: 'kiosk' });
      await expect(rig.enrolWith(joinToken, (await rig.newKey()).csrPem, 'kiosk')).rejects.toThrow('has no uses left');
      const other = await rig.enrolWith(await rig.token(), (await rig.newKey()).csrPem, 'kiosk');
      expect(other.deviceName).toBe('kiosk-2');
    });

    it('refuses an unknown token and a request that its key did not sign', async () => {
      const { csrPem } = await rig.newKey();
      await expect(rig.enrolWith(`mf1.${'x'.repeat(32)}.${'0'.repeat(64)}`, csrPem, 'kiosk')).rejects.toThrow('unknown or has expired');
      const lines = csrPem.trim().split('\n');
      const der = Buffer.from(lines.slice(1, -1).join(''), 'base64');
      der[der.length - 1]! ^= 1;
      const forged = `${lines[0]}\n${der.toString('base64')}\n${lines.at(-1)}\n`;
      await expect(rig.enrolWith(await rig.token(), forged, 'kiosk')).rejects.toThrow('certificate request cannot be used');
    });
  });

  describe('identity', () => {
    const refused = async (device: FakeDevice): Promise<string> => {
      device.open(rig.hello('small'));
      await until(
        async () => device.ended,
        (ended) => ended !== undefined,
      );
      expect(device.received).toEqual([]);
      return device.ended!;
    };

    it('refuses a session without a certificate, and with one of another CA in the name of a real device', async () => {
      const { deviceId } = await rig.enrol('kiosk');
      expect(await refused(rig.connect())).toContain('enrol first');
      expect(await refused(rig.connect(await (await createTestCa()).device(deviceId)))).toContain('enrol first');
    });

    it('refuses a removed device, whose certificate is still valid, and ends its session', async () => {
      const { device, identity } = await rig.running('kiosk', 'small');
      await rig.call('DELETE', `/api/v1/devices/${identity.deviceId}`);
      await until(
        async () => device.ended,
        (ended) => ended !== undefined,
      );
      expect(await refused(rig.connect(identity))).toContain('is not part of this fleet');
    });

    it('answers a call with metadata of 10 KB, and refuses one of 20 KB before any of our code sees it', async () => {
      const session = connectHttp2(`https://${rig.target}`, { ca: rig.caPem });
      const outcome = (bytes: number): Promise<string> =>
        new Promise((resolve) => {
          const path = '/matfleet.device.v1.DeviceService/Sync';
          const stream = session.request({
            ':method': 'POST',
            ':path': path,
            'content-type': 'application/grpc',
            te: 'trailers',
            padding: 'x'.repeat(bytes),
          });
          stream.on('response', (headers) => resolve(`grpc-status ${String(headers['grpc-status'] ?? 'later')}`));
          stream.on('error', (error) => resolve(error.message));
          stream.end(Buffer.alloc(5));
        });
      expect(await outcome(10_000)).toMatch(/^grpc-status/);
      expect(await outcome(20_000)).toContain('ENHANCE_YOUR_CALM');
      session.destroy();
    });

    it('serves a range of a chunk to a device, and nothing to a stranger', async () => {
      const identity = await rig.enrol('kiosk');
      const chunk = first.manifest.chunks[1]!;
      const fetch = (credentials: ChannelCredentials): Promise<Buffer> =>
        new Promise((resolve, reject) => {
          const client = new ArtifactServiceClient(rig.target, credentials);
          const parts: Buffer[] = [];
          client
            .fetchChunk({ chunkId: chunk.id, offset: 100n, length: 2_000n })
            .on('data', ({ data }: { data: Buffer }) => parts.push(data))
            .on('error', (error) => (client.close(), reject(error)))
            .on('end', () => (client.close(), resolve(Buffer.concat(parts))));
        });
      const bytes = await fetch(
        ChannelCredentials.createSsl(Buffer.from(rig.caPem), Buffer.from(identity.keyPem), Buffer.from(identity.certificatePem)),
      );
      expect(bytes.equals(first.chunks.get(chunk.id)!.subarray(100, 2_100))).toBe(true);
      await expect(fetch(ChannelCredentials.createSsl(Buffer.from(rig.caPem)))).rejects.toThrow('client certificate');
    });
  });
});
