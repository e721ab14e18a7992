import { DomainError } from '../errors.js';
import { TokenBucket } from './token-bucket.js';

/** Sessions that are taken in a second. */
export const NEW_SESSIONS_PER_SECOND = 250;
const ENROLMENTS_PER_SECOND = 100;
/** Sessions that one device may open at once, and in a second after that: its own backoff stays far below. */
const DEVICE_BURST = 10;
const DEVICE_PER_SECOND = 0.5;
const DEVICES_REMEMBERED = 20_000;
/** The furthest moment that anybody is told to come back at. */
const WAIT_MAX_MS = 60_000;

export type Refusal = 'enrolments' | 'sessions' | 'device';

/** Says when to come back; the device's session waits so long. */
export class TooMany extends DomainError {
  constructor(
    readonly refusal: Refusal,
    message: string,
    readonly retryAfterMs: number,
  ) {
    super('resource-exhausted', `${message}: come back in ${retryAfterMs} ms`);
  }
}

/** Decides, before anything else costs something, whether a new session or an enrolment is taken now. Refuses by throwing. */
export class Admission {
  private readonly enrolments: TokenBucket;
  private readonly sessions: TokenBucket;
  /** By device, the most recent last. */
  private readonly devices = new Map<string, TokenBucket>();

  /** `share`: how much of both is taken now, in (0, 1]. */
  constructor(nowMs: number, share: () => number = () => 1) {
    this.enrolments = new TokenBucket(ENROLMENTS_PER_SECOND, 2 * ENROLMENTS_PER_SECOND, nowMs, WAIT_MAX_MS, share);
    this.sessions = new TokenBucket(NEW_SESSIONS_PER_SECOND, 2 * NEW_SESSIONS_PER_SECOND, nowMs, WAIT_MAX_MS, share);
  }

  enrol(nowMs: number): void {
    if (this.enrolments.take(nowMs)) return;
    throw new TooMany('enrolments', `more than ${ENROLMENTS_PER_SECOND} enrolments a second`, this.enrolments.retryAfterMs(nowMs));
  }

  /** `deviceName` is what its certificate says. */
  open(deviceName: string, nowMs: number): void {
    const device = this.devices.get(deviceName) ?? new TokenBucket(DEVICE_PER_SECOND, DEVICE_BURST, nowMs);
    this.devices.delete(deviceName);
    this.devices.set(deviceName, device);
    if (this.devices.size > DEVICES_REMEMBERED) this.devices.delete(this.devices.keys().next().value!);
    // First, so that one device that opens sessions without end takes nobody else's place.
    if (!device.take(nowMs)) throw new TooMany('device', `device ${deviceName.slice(0, 64)} opens sessions too often`, device.retryAfterMs(nowMs));
    if (this.sessions.take(nowMs)) return;
    throw new TooMany('sessions', `more than ${NEW_SESSIONS_PER_SECOND} new sessions a second`, this.sessions.retryAfterMs(nowMs));
  }
}
