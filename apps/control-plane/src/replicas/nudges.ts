import { Inject, Injectable, Logger, type OnModuleDestroy } from '@nestjs/common';
import { Subject } from 'rxjs';
import { z } from 'zod';
import { CONFIG, type Config } from '../config.js';
import { inSystem } from '../database/scope.js';
import { FleetEvent, FleetEvents } from '../events/fleet-events.js';
import { Metrics } from '../telemetry.js';
import { NudgeStream } from './nudge-stream.js';
import { Replicas } from './replicas.service.js';

/** "Look again": what changed, never the change itself. The reader takes the truth from PostgreSQL. */
const Nudge = z.discriminatedUnion('kind', [
  /** The device has a new desired document. */
  z.object({ kind: z.literal('desired'), deviceId: z.string() }),
  /** The device's session of a lower epoch has been replaced, or the device was removed. */
  z.object({ kind: z.literal('session'), deviceId: z.string() }),
  /** The device is refused from now on: its session ends. */
  z.object({ kind: z.literal('standing'), deviceId: z.string() }),
  z.object({ kind: z.literal('event'), event: FleetEvent }),
]);
export type Nudge = z.infer<typeof Nudge>;
const Nudges = z.array(Nudge).max(10_000);

/** News is gathered for so long: one entry carries many, each once. */
const EVENTS_MS = 50;
const WAITING_MAX = 10_000;
const ERRORS_QUIET_MS = 60_000;

/** Tells the other replicas where to look. Without Redis, or while it is away, nobody is told: the sweeps of each replica find everything later. */
@Injectable()
export class NudgeService implements OnModuleDestroy {
  private readonly log = new Logger('nudges');
  private readonly heard = new Subject<Exclude<Nudge, { kind: 'event' }>>();
  private readonly stream: NudgeStream | undefined;
  private readonly waiting = new Set<string>();
  private timer: NodeJS.Timeout | undefined;
  private urgent = false;
  private quietUntil = 0;

  constructor(
    @Inject(CONFIG) config: Config,
    private readonly replicas: Replicas,
    private readonly events: FleetEvents,
    private readonly metrics: Metrics,
  ) {
    if (!config.redisUrl) return;
    this.stream = new NudgeStream(config.redisUrl, (error) => {
      if (Date.now() < this.quietUntil) return;
      this.quietUntil = Date.now() + ERRORS_QUIET_MS;
      this.log.warn(`other replicas are not told of changes: ${error.message}`);
    });
  }

  /** Called once this replica has joined. */
  start(): void {
    // What another replica tells is of any tenant: whoever hears it looks as the system, or keeps a scope of its own.
    this.stream?.read(this.replicas.id, (text) => inSystem(() => this.hear(text)));
    this.events.emitted.subscribe((event) => this.tell({ kind: 'event', event }));
  }

  async onModuleDestroy(): Promise<void> {
    clearTimeout(this.timer);
    await this.stream?.close(this.replicas.id);
  }

  on<K extends Exclude<Nudge['kind'], 'event'>>(kind: K, hear: (deviceId: string) => void): void {
    this.heard.subscribe((nudge) => {
      if (nudge.kind === kind) hear(nudge.deviceId);
    });
  }

  /** To every other replica: only the one that holds the device does anything. News waits a little, the rest goes at once. */
  tell(nudge: Nudge): void {
    if (!this.stream || this.replicas.peers().length === 0) return;
    if (this.waiting.size >= WAITING_MAX) return this.metrics.nudges.inc({ outcome: 'dropped' });
    this.waiting.add(JSON.stringify(nudge));
    const urgent = nudge.kind !== 'event';
    if (this.timer && (this.urgent || !urgent)) return;
    clearTimeout(this.timer);
    this.urgent = urgent;
    this.timer = setTimeout(() => void this.flush(), urgent ? 0 : EVENTS_MS);
  }

  private async flush(): Promise<void> {
    this.timer = undefined;
    const nudges = [...this.waiting];
    this.waiting.clear();
    const peers = this.replicas.peers().map((peer) => peer.id);
    if (peers.length === 0) return;
    const taken = await this.stream!.append(peers, `[${nudges.join(',')}]`);
    this.metrics.nudges.inc({ outcome: taken ? 'sent' : 'lost' }, nudges.length);
  }

  private hear(text: string): void {
    let nudges: Nudge[];
    try {
      nudges = Nudges.parse(JSON.parse(text));
    } catch {
      return void this.metrics.nudges.inc({ outcome: 'unknown' }); // Of another version.
    }
    for (const nudge of nudges) {
      if (nudge.kind === 'event') this.events.receive(nudge.event);
      else this.heard.next(nudge);
    }
  }
}
