import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { MAX_ATTEMPTS, RETRY_AFTER_MS, predictedMs, route, silenceDeadlines, type RoutableDevice, type RouteRequest, type Tried } from './routing.js';

const device = (id: string, quality: number | null, change: Partial<RoutableDevice> = {}): RoutableDevice => ({
  deviceId: id,
  name: id,
  presence: 'online',
  epoch: 1n,
  active: { modelVersionId: 'v1', sliceId: `${id}-slice`, sliceName: `slice of ${id}`, quality },
  engineReady: true,
  queued: 0,
  ttftMs: 20,
  interTokenMs: 5,
  breakerOpenUntilMs: 0,
  ...change,
});
const kiosk = device('kiosk', 0.7, { interTokenMs: 2 });
const gateway = device('gateway', 0.85, { interTokenMs: 4 });
const server = device('server', 0.96, { interTokenMs: 8 });
const fleet = [kiosk, gateway, server];
const request = (change: Partial<RouteRequest> = {}): RouteRequest => ({
  qualityFloor: null,
  remainingMs: 60_000,
  expectedTokens: 32,
  tried: [],
  nowMs: 1_000_000,
  ...change,
});
const failed = (of: RoutableDevice, change: Partial<Tried> = {}): Tried => ({
  deviceId: of.deviceId,
  epoch: of.epoch,
  quality: of.active?.quality ?? null,
  endedAtMs: 999_000,
  retryable: false,
  ...change,
});
const nameOf = (result: ReturnType<typeof route>): string | null => (result.kind === 'device' ? result.device.name : null);

describe('route', () => {
  it('takes the device that finishes first among those that meet the floor, and says who could not', () => {
    expect(nameOf(route(fleet, request()))).toBe('kiosk');
    const floored = route(fleet, request({ qualityFloor: 0.9 }));
    expect(nameOf(floored)).toBe('server');
    expect(floored.reason).toContain('kiosk 70.0 % with slice of kiosk is below the floor of 90.0 %');
  });

  it('prefers an idle slower device to a fast one behind a queue', () => {
    expect(nameOf(route([device('fast', 0.9, { interTokenMs: 2, queued: 9 }), device('slow', 0.9, { interTokenMs: 8 })], request()))).toBe('slow');
  });

  it('falls back from kiosk to a larger device, then to the largest', () => {
    expect(nameOf(route(fleet, request({ tried: [failed(kiosk)] })))).toBe('gateway');
    expect(nameOf(route(fleet, request({ tried: [failed(kiosk), failed(gateway)] })))).toBe('server');
  });

  it('takes any other device that meets the floor when none larger is left', () => {
    const result = route(fleet, request({ tried: [failed(server)], qualityFloor: 0.8 }));
    expect(nameOf(result)).toBe('gateway');
    expect(result.reason).toContain('no larger device is left');
  });

  it('names the floor and the best available quality when nobody meets it', () => {
    const result = route(fleet, request({ qualityFloor: 0.99 }));
    expect(result).toMatchObject({ kind: 'none', waitMayHelp: true });
    expect(result.reason).toContain('floor of 99.0 % now; best available: server with slice of server at 96.0 %');
  });

  it('gives a device that came back under a new epoch another try', () => {
    const tried = [failed(server)];
    expect(nameOf(route([server], request({ tried })))).toBeNull();
    expect(nameOf(route([{ ...server, epoch: 2n }], request({ tried })))).toBe('server');
  });

  it('asks a device that refused for the moment again after a second', () => {
    const tried = [failed(server, { retryable: true, endedAtMs: 1_000_000 })];
    expect(nameOf(route([server], request({ tried, nowMs: 1_000_000 + RETRY_AFTER_MS - 1 })))).toBeNull();
    expect(nameOf(route([server], request({ tried, nowMs: 1_000_000 + RETRY_AFTER_MS })))).toBe('server');
  });

  it('never returns a device that is not online, below the floor, resting or tried for good', () => {
    const anyDevice = fc.record({
      id: fc.constantFrom('a', 'b', 'c', 'd', 'e'),
      quality: fc.option(fc.double({ min: 0, max: 1, noNaN: true })),
      presence: fc.constantFrom('online' as const, 'suspect' as const, 'offline' as const),
      queued: fc.nat(5),
      open: fc.boolean(),
      ready: fc.boolean(),
      tried: fc.boolean(),
    });
    fc.assert(
      fc.property(
        fc.uniqueArray(anyDevice, { selector: (row) => row.id }),
        fc.option(fc.double({ min: 0, max: 1, noNaN: true })),
        (rows, qualityFloor) => {
          const devices = rows.map((row) =>
            device(row.id, row.quality, {
              presence: row.presence,
              queued: row.queued,
              engineReady: row.ready,
              breakerOpenUntilMs: row.open ? 2_000_000 : 0,
            }),
          );
          const tried = devices.filter((_, i) => rows[i]!.tried).map((one) => failed(one));
          const wanted = request({ qualityFloor, tried });
          const result = route(devices, wanted);
          expect(result.reason.length).toBeGreaterThan(0);
          const able = devices.filter(
            (one, i) =>
              one.presence === 'online' &&
              one.engineReady &&
              !rows[i]!.open &&
              !rows[i]!.tried &&
              (qualityFloor === null || (one.active!.quality ?? -1) >= qualityFloor),
          );
          if (result.kind === 'none') return expect(able).toEqual([]);
          expect(able).toContain(result.device);
          const last = tried.at(-1);
          const larger = able.filter((one) => last && (one.active!.quality ?? -1) > (last.quality ?? -1));
          const pool = larger.length > 0 ? larger : able;
          expect(predictedMs(result.device, wanted)).toBe(Math.min(...pool.map((one) => predictedMs(one, wanted))));
        },
      ),
    );
  });

  it('ends after the attempts that one inference may cost', () => {
    const tried = Array.from({ length: MAX_ATTEMPTS }, (_, i) => failed({ ...kiosk, epoch: BigInt(i + 10) }));
    expect(route(fleet, request({ tried }))).toMatchObject({ kind: 'none', waitMayHelp: false });
  });
});

describe('silenceDeadlines', () => {
  it('gives a silent device half of what remains while others could answer, all of it otherwise', () => {
    const terms = { firstTokenMs: 15_000, nextTokenMs: 5_000 };
    expect(silenceDeadlines(terms, 8_000, true)).toEqual({ firstTokenMs: 4_000, nextTokenMs: 5_000 });
    expect(silenceDeadlines(terms, 8_000, false)).toEqual({ firstTokenMs: 8_000, nextTokenMs: 5_000 });
    expect(silenceDeadlines(terms, 60_000, true)).toEqual(terms);
  });
});
