import { Injectable } from '@nestjs/common';
import { filter, type Observable, Subject } from 'rxjs';
import { z } from 'zod';
import { currentTenant, tenantHere } from '../database/scope.js';

/** Known where the event was told by one tenant's work. */
const tenantId = z.string().optional();

/** What happened in the fleet. Each says what changed, not how: the listener reads the state that is true by then. */
export const FleetEvent = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('device-changed'), deviceId: z.string(), tenantId }),
  z.object({ kind: z.literal('timeline-grew'), deviceId: z.string(), tenantId }),
  z.object({ kind: z.literal('rollout-changed'), rolloutId: z.string(), tenantId }),
  z.object({ kind: z.literal('inference-changed'), inferenceId: z.string(), tenantId }),
  z.object({ kind: z.literal('model-published'), modelVersionId: z.string(), tenantId }),
  /** Not in the database: what a replica learned of a device, for as long as it holds. Unix milliseconds. */
  z.object({ kind: z.literal('breaker-opened'), key: z.string().max(500), failures: z.number().int(), openUntilMs: z.number(), tenantId }),
]);
export type FleetEvent = z.infer<typeof FleetEvent>;

type EventOf<K extends FleetEvent['kind']> = Extract<FleetEvent, { kind: K }>;

@Injectable()
export class FleetEvents {
  private readonly all = new Subject<FleetEvent>();
  private readonly ours = new Subject<FleetEvent>();

  /** What happened in this process, for the other replicas. */
  readonly emitted: Observable<FleetEvent> = this.ours;

  emit(event: FleetEvent): void {
    const tenant = event.tenantId ?? tenantHere();
    const told = tenant === undefined ? event : { ...event, tenantId: tenant };
    this.all.next(told);
    this.ours.next(told);
  }

  /** It happened in another replica, or concerns this process alone. */
  receive(event: FleetEvent): void {
    this.all.next(event);
  }

  /** Without those of other tenants than the caller's. One that names none is let through: what it points at is read in the caller's scope. */
  here<K extends FleetEvent['kind']>(kind: K): Observable<EventOf<K>> {
    const tenant = currentTenant();
    return this.on(kind).pipe(filter((event) => event.tenantId === undefined || event.tenantId === tenant));
  }

  on<K extends FleetEvent['kind']>(kind: K): Observable<EventOf<K>> {
    return this.all.pipe(filter((event): event is EventOf<K> => event.kind === kind));
  }
}
