import { Injectable, type OnModuleDestroy } from '@nestjs/common';
import type { Subscription } from 'rxjs';
import { afterFailure, afterNeither, CLOSED, closedToWorkUntilMs, whileTried, type Breaker } from '../domain/breaker.js';
import { FleetEvents } from '../events/fleet-events.js';

/** A slice on a device: what fails, and recovers, as one. */
export interface BreakerKey {
  readonly deviceId: string;
  readonly modelVersionId: string;
  readonly sliceId: string;
}

/** What is remembered of failures; the oldest goes. */
const REMEMBERED = 10_000;

/** The breakers of all slices on all devices. One that opens is told to the other replicas with the time at which it ends. */
@Injectable()
export class Breakers implements OnModuleDestroy {
  private readonly byKey = new Map<string, Breaker>();
  private readonly heard: Subscription;

  constructor(private readonly events: FleetEvents) {
    this.heard = events.on('breaker-opened').subscribe(({ key, failures, openUntilMs }) => {
      if (openUntilMs > this.get(key).openUntilMs) this.set(key, { failures, openUntilMs, probeUntilMs: 0 });
    });
  }

  onModuleDestroy(): void {
    this.heard.unsubscribe();
  }

  closedToWorkUntilMs(of: BreakerKey): number {
    return closedToWorkUntilMs(this.get(keyOf(of)));
  }

  tried(of: BreakerKey): void {
    const key = keyOf(of);
    const before = this.byKey.get(key);
    if (before) this.set(key, whileTried(before, Date.now()));
  }

  succeeded(of: BreakerKey): void {
    this.byKey.delete(keyOf(of));
  }

  /** It was cancelled, or refused for the moment. */
  saidNothing(of: BreakerKey): void {
    const key = keyOf(of);
    const before = this.byKey.get(key);
    if (before) this.set(key, afterNeither(before));
  }

  failed(of: BreakerKey): void {
    const key = keyOf(of);
    const after = afterFailure(this.get(key), Date.now());
    this.set(key, after);
    if (after.openUntilMs > 0) this.events.emit({ kind: 'breaker-opened', key, failures: after.failures, openUntilMs: after.openUntilMs });
  }

  private get(key: string): Breaker {
    return this.byKey.get(key) ?? CLOSED;
  }

  private set(key: string, breaker: Breaker): void {
    this.byKey.delete(key);
    this.byKey.set(key, breaker);
    if (this.byKey.size > REMEMBERED) this.byKey.delete(this.byKey.keys().next().value!);
  }
}

const keyOf = ({ deviceId, modelVersionId, sliceId }: BreakerKey): string => `${deviceId} ${modelVersionId} ${sliceId}`;
