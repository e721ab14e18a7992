import type { ServerDuplexStream } from '@grpc/grpc-js';
import type { SessionRequest, SessionResponse } from '@matfleet/protocol';
import { DomainError } from '../errors.js';
import type { Caller } from './device-auth.js';
import { DeviceSession, type Features, type Transport } from './device-session.js';
import { Outbox } from './outbox.js';

const HELLO_TIMEOUT_MS = 10_000;

export type SessionCall = ServerDuplexStream<SessionRequest, SessionResponse>;

/** One device's stream: reads message by message, writes as fast as the device reads. */
export class SessionStream implements Transport {
  private session: DeviceSession | undefined;
  private ending = false;
  /** Since when the device has not read what was written; undefined while it keeps up. */
  private blockedSinceMs: number | undefined;
  private readonly outbox = new Outbox();
  private lateHello: NodeJS.Timeout | undefined;

  constructor(
    private readonly call: SessionCall,
    private readonly features: Features,
    private readonly caller: Caller,
    /** Ends the call with an error. */
    private readonly fail: (error: unknown) => void,
  ) {}

  get isOver(): boolean {
    return this.ending;
  }

  start(): void {
    const { call } = this;
    const late = new DomainError('deadline-exceeded', `no Hello within ${HELLO_TIMEOUT_MS} ms`);
    this.lateHello = setTimeout(() => this.end(late), HELLO_TIMEOUT_MS);
    call.on('data', (request: SessionRequest) => this.read(request));
    call.on('drain', () => this.flush());
    call.once('end', () => this.over('the device ended the stream', true));
    call.once('cancelled', () => this.over('the stream was cut', false));
    call.once('error', () => this.over('the stream failed', false));
    call.once('close', () => this.over('the stream was closed', false));
    if (call.cancelled) this.over('the stream was cut', false);
  }

  write(message: SessionResponse): boolean {
    const { call, outbox } = this;
    if (this.ending || call.cancelled || call.writableEnded || call.destroyed) return false;
    if (this.blockedSinceMs === undefined) {
      if (!call.write(message)) this.blockedSinceMs = performance.now();
      return true;
    }
    const blockedMs = performance.now() - this.blockedSinceMs;
    if (blockedMs > this.features.config.leaseMs) {
      this.session?.close(`the device has read nothing for ${Math.round(blockedMs)} ms`);
      return false;
    }
    return outbox.add(message);
  }

  /** What waits is written first, as far as the device reads it. */
  close(refusal?: DomainError): void {
    if (this.ending) return;
    this.ending = true;
    if (refusal) return this.fail(refusal);
    for (const message of this.outbox.take()) this.call.write(message);
    this.call.end();
  }

  private flush(): void {
    this.blockedSinceMs = undefined;
    while (this.blockedSinceMs === undefined && !this.ending) {
      const message = this.outbox.next();
      if (!message) return;
      if (!this.call.write(message)) this.blockedSinceMs = performance.now();
    }
  }

  /** One message at a time: the device is not read while one is being worked on. */
  private read(request: SessionRequest): void {
    if (this.ending) return;
    try {
      const work = this.session ? this.session.accept(request) : this.open(request);
      if (!work) return;
      this.call.pause();
      work.then(
        () => void (this.ending || this.call.resume()),
        (error: unknown) => this.end(error),
      );
    } catch (error) {
      this.end(error);
    }
  }

  private async open({ message }: SessionRequest): Promise<void> {
    clearTimeout(this.lateHello);
    if (message?.$case !== 'hello')
      throw new DomainError('failed-precondition', `a session begins with Hello, not with ${message?.$case ?? 'an unknown message'}`);
    const session = await DeviceSession.open(this.features, this.caller, message.value, this);
    this.session = session;
    if (this.ending) session.finish('the stream was cut');
  }

  private end(error: unknown): void {
    if (this.ending) return;
    this.over(error instanceof Error ? error.message : 'the stream failed', false);
    if (!this.call.cancelled) this.fail(error);
  }

  private over(reason: string, answer: boolean): void {
    clearTimeout(this.lateHello);
    const answered = this.ending;
    this.ending = true;
    this.session?.finish(reason);
    if (answer && !answered) this.call.end();
  }
}
