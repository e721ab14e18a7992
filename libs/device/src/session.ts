import { performance } from 'node:perf_hooks';
import { Metadata, status, type ClientDuplexStream, type ServiceError } from '@grpc/grpc-js';
import {
  type DeviceServiceClient,
  type Desired,
  type Heartbeat,
  type Hello,
  type InferenceEvent,
  type LatencyReport,
  type Report,
  type SessionRequest,
  type SessionResponse,
  type StartInference,
  type SyncResponse,
  type Welcome,
} from '@matfleet/protocol';
import { failuresAfter, HEALTHY_MS, retryPlan } from './backoff.js';
import { sleep } from './sleep.js';
import { ReportSpool } from './spool.js';

const SYNC_TIMEOUT_MS = 15_000;
const REFUSED_RETRY_MS = 5 * 60_000;

/** What the device answers to the session's events. None may throw. */
export interface SessionHandlers {
  hello(): Hello | Promise<Hello>;
  /** Drains the latency measured since the last heartbeat. `roundTripMs` is what the last acknowledged one took; undefined before that. */
  heartbeat(roundTripMs: number | undefined): Omit<Heartbeat, 'sequence' | 'monotonicMs'>;
  /** Latency whose heartbeat was not acknowledged; it belongs into the next one. */
  restoreLatency(reports: readonly LatencyReport[]): void;
  desired(desired: Desired): void;
  startInference(start: StartInference): void;
  cancelInference(attemptId: string): void;
  /** The control plane can be reached, or not any more. */
  online(online: boolean, why: string): void;
  /** A session was opened. */
  welcomed?(welcome: Welcome): void;
  /** The control plane knows this device and refuses it, until an operator does something: dial again after a long wait, at once, or never. */
  refused?(refusal: Refusal): Promise<'later' | 'now' | 'never'>;
}

/** Why a device is refused. `standing` is the control plane's word for it, empty where it gave none. */
export interface Refusal {
  readonly standing: string;
  readonly message: string;
}

/** One channel to the control plane. */
export type SessionClient = Pick<DeviceServiceClient, 'session' | 'sync' | 'close'>;

export interface SessionOptions {
  /** Opens a channel of its own, which the session closes. Called again when the last one went silent: its connection may be dead without saying so. */
  readonly dial: () => SessionClient;
  readonly handlers: SessionHandlers;
  /** Uniform in [0, 1). */
  readonly random?: () => number;
  readonly welcomeTimeoutMs?: number;
  /** Streams in a row that got no Welcome before one round trip by Sync is tried. */
  readonly syncAfter?: number;
  /** How long Sync stands in before a stream is tried again. */
  readonly syncForMs?: number;
  /** The wait of a device that was refused, give or take a half. */
  readonly refusedRetryMs?: number;
}

type Link = { readonly send: (message: SessionRequest) => void };

/** How a stream ended; milliseconds. */
interface Ended {
  readonly welcome: Welcome | undefined;
  readonly healthyMs: number;
  readonly drainMs: number | undefined;
  /** When the control plane, which was full, has room. */
  readonly retryAfterMs: number | undefined;
  /** False when there was no connection to send it on. */
  readonly isReached: boolean;
}

const RETRY_AFTER_MAX_MS = 120_000;

function retryAfterOf({ code, metadata }: ServiceError): number | undefined {
  if (code !== status.RESOURCE_EXHAUSTED) return undefined;
  const ms = Number(metadata?.get('retry-after-ms')[0]);
  return ms > 0 ? Math.min(ms, RETRY_AFTER_MAX_MS) : undefined;
}

/** As grpc-js says it when no connection came about. Where its words change, Sync is tried as well. */
const foundNoConnection = ({ code, details }: ServiceError): boolean =>
  code === status.UNAVAILABLE && details.startsWith('No connection established');

/** The device's side of the session: dials, says Hello, beats, resumes and dials again until stopped. */
export class DeviceSession {
  private readonly spool = new ReportSpool();
  private readonly random: () => number;
  private dialled: SessionClient | undefined;
  private link: Link | undefined;
  private refusal: Refusal | undefined;
  private redial = false;
  private sequence = 0n;
  /** The youngest heartbeat, and how long the last acknowledged one took. */
  private sentAtMs = 0;
  private roundTripMs: number | undefined;
  /** Latency of heartbeats on their way, by sequence; at most a lease's worth. */
  private readonly unacknowledged = new Map<bigint, LatencyReport[]>();

  constructor(private readonly options: SessionOptions) {
    this.random = options.random ?? Math.random;
  }

  get online(): boolean {
    return this.link !== undefined;
  }

  /** Sent now or after the next Welcome, until it is acknowledged. */
  report(report: Omit<Report, 'sequence'>): void {
    const numbered = this.spool.add(report);
    this.link?.send({ message: { $case: 'report', value: numbered } });
  }

  /** False when there is no session: the attempt is lost then, since the router has given it up. */
  inferenceEvent(event: InferenceEvent): boolean {
    this.link?.send({ message: { $case: 'inferenceEvent', value: event } });
    return this.link !== undefined;
  }

  /** The next session, whenever it begins, is opened on a new channel: the device has a new certificate. */
  redialNext(): void {
    this.redial = true;
  }

  /** Runs until `signal` aborts, or until a refusal is for good. */
  async run(signal: AbortSignal): Promise<void> {
    try {
      await this.loop(signal);
    } finally {
      this.hangUp();
    }
  }

  private async loop(signal: AbortSignal): Promise<void> {
    const { syncAfter = 3 } = this.options;
    let failures = 0;
    let unwelcomed = 0;
    while (!signal.aborted) {
      const plan = retryPlan(failures, this.random());
      const startedAt = performance.now();
      if (failures > 0) await sleep(plan.beforeMs, signal);
      if (signal.aborted) return;
      const ended = await this.stream(signal);
      let { healthyMs } = ended;
      if (ended.isReached) unwelcomed = ended.welcome || ended.retryAfterMs !== undefined ? 0 : unwelcomed + 1;
      // Where nothing listens, another kind of call gets no further and costs as much.
      if (ended.isReached && unwelcomed >= syncAfter && !this.refusal) {
        healthyMs = await this.poll(signal);
        // One stream is tried between two spells of Sync; waiting for more of them would leave the device offline most of the time.
        if (healthyMs > 0) unwelcomed = syncAfter - 1;
      }
      if (signal.aborted) return;
      if (this.refusal) {
        if ((await this.afterRefusal(this.refusal, signal)) === 'never') return;
        failures = 0;
        continue;
      }
      failures = ended.drainMs === undefined ? failuresAfter(failures, healthyMs) : 0;
      // Everybody lost the session together when the server went away; come back spread out.
      const spread = ended.drainMs ?? ended.welcome?.reconnectJitterMs ?? 0;
      const restMs = failures > 1 ? plan.windowMs - (performance.now() - startedAt) : 0;
      if (ended.retryAfterMs === undefined) await sleep(Math.max(0, restMs) + this.random() * spread, signal);
      else {
        // The server answers and has promised a moment: nothing has failed, and no backoff comes on top.
        failures = 0;
        await sleep(ended.retryAfterMs, signal);
      }
    }
  }

  private async afterRefusal(refusal: Refusal, signal: AbortSignal): Promise<'later' | 'now' | 'never'> {
    const { handlers, refusedRetryMs = REFUSED_RETRY_MS } = this.options;
    this.refusal = undefined;
    this.hangUp();
    const next = (await handlers.refused?.(refusal)) ?? 'later';
    if (next === 'later') await sleep(refusedRetryMs * (0.5 + this.random()), signal);
    return next;
  }

  private async stream(signal: AbortSignal): Promise<Ended> {
    const { handlers, welcomeTimeoutMs = 10_000 } = this.options;
    const hello = await handlers.hello();
    if (signal.aborted) return { welcome: undefined, healthyMs: 0, drainMs: undefined, retryAfterMs: undefined, isReached: false };
    const call: ClientDuplexStream<SessionRequest, SessionResponse> = this.client.session();
    return new Promise((resolve) => {
      let welcome: Welcome | undefined;
      let welcomedAt = 0;
      let drainMs: number | undefined;
      let retryAfterMs: number | undefined;
      let why = 'the control plane closed the session';
      let beat: NodeJS.Timeout | undefined;
      let watch: NodeJS.Timeout | undefined;
      let isReached = true;
      let over = false;
      const give = (reason: string): void => {
        why = reason;
        call.cancel();
        // A peer that is gone does not confirm the cancellation.
        setTimeout(end, 500).unref();
      };
      const alive = (limitMs: number): void => {
        clearTimeout(watch);
        watch = setTimeout(() => {
          give(`nothing came from the control plane for ${limitMs} ms`);
          this.hangUp();
        }, limitMs);
      };
      const stop = (): void => give('the agent stops');
      const end = (): void => {
        if (over) return;
        over = true;
        clearInterval(beat);
        clearTimeout(watch);
        signal.removeEventListener('abort', stop);
        const healthyMs = welcome ? performance.now() - welcomedAt : 0;
        this.unlink(why);
        resolve({ welcome, healthyMs, drainMs, retryAfterMs, isReached });
      };
      call.on('data', (response: SessionResponse) => {
        if (over) return;
        const message = response.message;
        if (message?.$case === 'welcome') {
          welcome = message.value;
          welcomedAt = performance.now();
          this.connect({ send: (request) => void (over || call.write(request)) });
          handlers.welcomed?.(welcome);
          const beatMs = Math.max(100, welcome.heartbeatMs);
          clearInterval(beat);
          beat = setInterval(() => this.beat(), beatMs);
          this.beat();
        } else if (message?.$case === 'drain') {
          drainMs = message.value.withinMs;
          why = `the control plane asks to come back later: ${message.value.reason}`;
        } else if (message) this.receive(message);
        alive(welcome ? Math.max(1_000, welcome.leaseMs) : welcomeTimeoutMs);
      });
      call.on('error', (error: ServiceError) => {
        if (!over) this.refusal = refusalOf(error);
        if (why === 'the control plane closed the session') why = error.details || error.message;
        retryAfterMs = retryAfterOf(error);
        isReached = !foundNoConnection(error);
        end();
      });
      call.on('end', () => {
        call.end();
        end();
      });
      call.on('close', end);
      signal.addEventListener('abort', stop, { once: true });
      alive(welcomeTimeoutMs);
      call.write({ message: { $case: 'hello', value: hello } });
    });
  }

  /** Exchanges the same messages by unary calls while streams do not get through. Milliseconds for which that worked; a whole spell counts as healthy. */
  private async poll(signal: AbortSignal): Promise<number> {
    const { handlers } = this.options;
    const outbox: SessionRequest[] = [{ message: { $case: 'hello', value: await handlers.hello() } }];
    let epoch = 0n;
    let heartbeatMs = 5_000;
    let worked = false;
    const startedAt = performance.now();
    const until = startedAt + (this.options.syncForMs ?? 60_000);
    while (!signal.aborted && performance.now() < until) {
      let answer: SyncResponse;
      try {
        answer = await this.sync(epoch, outbox.splice(0), signal);
      } catch (error) {
        this.refusal = refusalOf(error as ServiceError);
        this.unlink((error as Error).message);
        return worked ? performance.now() - startedAt : 0;
      }
      worked = true;
      for (const { message } of answer.messages) {
        if (message?.$case === 'welcome') {
          epoch = message.value.epoch;
          heartbeatMs = Math.max(100, message.value.heartbeatMs);
          this.connect({ send: (request) => void outbox.push(request) });
          handlers.welcomed?.(message.value);
        } else if (message) this.receive(message);
      }
      if (epoch === 0n) return 0;
      if (outbox.length === 0) await sleep(heartbeatMs, signal);
      this.beat();
    }
    this.unlink('trying a stream again');
    return HEALTHY_MS;
  }

  private sync(epoch: bigint, messages: SessionRequest[], signal: AbortSignal): Promise<SyncResponse> {
    return new Promise((resolve, reject) => {
      const stop = (): void => call.cancel();
      const call = this.client.sync({ epoch, messages }, new Metadata(), { deadline: Date.now() + SYNC_TIMEOUT_MS }, (error, response) => {
        signal.removeEventListener('abort', stop);
        if (!error) return resolve(response);
        if (error.code === status.DEADLINE_EXCEEDED) this.hangUp();
        reject(error);
      });
      signal.addEventListener('abort', stop, { once: true });
    });
  }

  /** Asked where no call is under way. */
  private get client(): SessionClient {
    if (this.redial) this.hangUp();
    this.redial = false;
    return (this.dialled ??= this.options.dial());
  }

  private hangUp(): void {
    this.dialled?.close();
    this.dialled = undefined;
  }

  private connect(link: Link): void {
    this.link = link;
    this.options.handlers.online(true, 'welcome');
    for (const report of this.spool.pending()) link.send({ message: { $case: 'report', value: report } });
  }

  private unlink(why: string): void {
    const wasOnline = this.link !== undefined;
    this.link = undefined;
    this.roundTripMs = undefined;
    for (const reports of this.unacknowledged.values()) this.options.handlers.restoreLatency(reports);
    this.unacknowledged.clear();
    if (wasOnline || why !== '') this.options.handlers.online(false, why);
  }

  private beat(): void {
    if (!this.link) return;
    const body = this.options.handlers.heartbeat(this.roundTripMs);
    this.sentAtMs = performance.now();
    const sequence = ++this.sequence;
    if (body.latency.length > 0) this.unacknowledged.set(sequence, body.latency);
    this.link.send({ message: { $case: 'heartbeat', value: { ...body, sequence, monotonicMs: BigInt(Math.floor(performance.now())) } } });
  }

  private receive(message: NonNullable<SessionResponse['message']>): void {
    const { handlers } = this.options;
    switch (message.$case) {
      case 'desired':
        return handlers.desired(message.value);
      case 'heartbeatAck':
        if (message.value.sequence === this.sequence) this.roundTripMs = performance.now() - this.sentAtMs;
        for (const sequence of this.unacknowledged.keys()) if (sequence <= message.value.sequence) this.unacknowledged.delete(sequence);
        return;
      case 'reportAck':
        return this.spool.acknowledge(message.value.sequence);
      case 'startInference':
        return handlers.startInference(message.value);
      case 'cancelInference':
        return handlers.cancelInference(message.value.attemptId);
      case 'welcome':
      case 'drain':
        return;
    }
  }
}

function refusalOf({ code, details, metadata }: ServiceError): Refusal | undefined {
  if (code !== status.UNAUTHENTICATED) return undefined;
  return { standing: String(metadata?.get('matfleet-standing')[0] ?? ''), message: details };
}
