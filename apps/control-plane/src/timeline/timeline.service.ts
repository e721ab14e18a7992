import { Injectable, Logger, type OnModuleDestroy, type OnModuleInit } from '@nestjs/common';
import { inSystem, keepScope, tenantHere } from '../database/scope.js';
import { FleetEvents } from '../events/fleet-events.js';
import { Leadership } from '../replicas/leadership.js';
import { Metrics } from '../telemetry.js';
import type { NewEntry, TimelineDetail, TimelineEntry, TimelineKind, TimelinePage, TimelineQuery } from './timeline.js';
import { TimelineRepository } from './timeline.repository.js';

/** What happens is gathered for so long: one statement carries it all. */
const FLUSH_MS = 250;
const BATCH_MAX = 1_000;
const WAITING_MAX = 50_000;
const SWEEP_MS = 10 * 60_000;
export const TIMELINE_KEPT_MS = 30 * 24 * 3_600_000;
export const TIMELINE_KEPT_PER_DEVICE = 1_000;
/** News of a change by an operator, and of another replica, may not come: a follower looks by itself too. */
const LOOK_MS = 2_000;
/** So far back, in ids, a follower looks for what was committed late. */
const OVERLAP = 1_000;

/** What happened to each device. Nobody waits for it to be written, and a database that does not keep up loses entries, counted, before it holds up a session. */
@Injectable()
export class Timeline implements OnModuleInit, OnModuleDestroy {
  private readonly log = new Logger('timeline');
  private waiting: NewEntry[] = [];
  private timer: NodeJS.Timeout | undefined;
  private writing = Promise.resolve();
  private stopped = false;

  constructor(
    private readonly entries: TimelineRepository,
    private readonly events: FleetEvents,
    private readonly leadership: Leadership,
    private readonly metrics: Metrics,
  ) {}

  onModuleInit(): void {
    this.leadership.every(
      SWEEP_MS,
      (fence) => {
        const nowMs = Date.now();
        const span = { before: new Date(nowMs - TIMELINE_KEPT_MS), since: new Date(nowMs - 2 * SWEEP_MS) };
        return this.entries.sweep({ ...span, keep: TIMELINE_KEPT_PER_DEVICE }, fence);
      },
      (error) => this.log.error(error),
    );
  }

  /** What comes later is not noted: the next process sees every session open again. */
  async onModuleDestroy(): Promise<void> {
    this.stopped = true;
    this.flush();
    await this.writing;
  }

  /** With `epoch` only while that session is the device's newest. */
  note(deviceId: string, kind: TimelineKind, detail: TimelineDetail, epoch?: bigint): void {
    if (this.stopped) return;
    if (this.waiting.length >= WAITING_MAX) return this.metrics.timelineEntries.inc({ outcome: 'dropped' });
    this.waiting.push({ deviceId, tenantId: tenantHere(), atMs: Date.now(), kind, detail, epoch });
    this.timer ??= setTimeout(() => this.flush(), FLUSH_MS);
  }

  async page(deviceId: string, query: TimelineQuery): Promise<TimelinePage> {
    const found = await this.entries.page(deviceId, { ...query, limit: query.limit + 1 });
    const entries = found.slice(0, query.limit);
    return { entries, next: found.length > entries.length ? entries.at(-1)!.id : null };
  }

  /** Entries of one device as they are written, from now on. */
  follow(deviceId: string): AsyncIterableIterator<TimelineEntry> {
    const here = keepScope();
    let wake: () => void = () => {};
    let news = false;
    let closed = false;
    const seen = new Set<number>();
    const ready: TimelineEntry[] = [];
    const subscription = this.events.on('timeline-grew').subscribe((event) => {
      if (event.deviceId !== deviceId) return;
      news = true;
      wake();
    });
    const looks = setInterval(() => {
      news = true;
      wake();
    }, LOOK_MS);
    const begun = this.entries.page(deviceId, { limit: 1 }).then(([entry]) => entry?.id ?? 0);
    let newest = 0;
    const read = async (): Promise<void> => {
      // Two writers at once may commit in the other order: what lies a little before is looked at again.
      const after = Math.max(await begun, newest - OVERLAP);
      for (const entry of await this.entries.page(deviceId, { limit: OVERLAP, after })) {
        newest = Math.max(newest, entry.id);
        if (seen.has(entry.id)) continue;
        seen.add(entry.id);
        if (seen.size > OVERLAP) seen.delete(seen.values().next().value!);
        ready.push(entry);
      }
    };
    const next = async (): Promise<IteratorResult<TimelineEntry>> => {
      for (;;) {
        if (closed) return { done: true, value: undefined };
        const entry = ready.shift();
        if (entry) return { done: false, value: entry };
        if (!news) await new Promise<void>((resolve) => (wake = resolve));
        news = false;
        if (!closed) await here(read);
      }
    };
    return {
      next,
      return: () => {
        closed = true;
        subscription.unsubscribe();
        clearInterval(looks);
        wake();
        return Promise.resolve({ done: true as const, value: undefined });
      },
      [Symbol.asyncIterator]() {
        return this;
      },
    };
  }

  private flush(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
    const entries = this.waiting;
    this.waiting = [];
    this.writing = this.writing.then(async () => {
      for (let from = 0; from < entries.length; from += BATCH_MAX) await this.write(entries.slice(from, from + BATCH_MAX));
    });
  }

  private async write(batch: readonly NewEntry[]): Promise<void> {
    try {
      await inSystem(() => this.entries.write(batch));
      this.metrics.timelineEntries.inc({ outcome: 'written' }, batch.length);
    } catch (error) {
      this.metrics.timelineEntries.inc({ outcome: 'lost' }, batch.length);
      return this.log.warn(`${batch.length} entries of timelines are lost: ${error instanceof Error ? error.message : String(error)}`);
    }
    for (const deviceId of new Set(batch.map((entry) => entry.deviceId))) this.events.emit({ kind: 'timeline-grew', deviceId });
  }
}
