import { Injectable } from '@nestjs/common';
import { filter, type Observable, Subject } from 'rxjs';

/** News inside this process. Each says what changed, not how: the listener reads the state that is true by then. */
export type FleetEvent =
  | { kind: 'device-changed'; deviceId: string }
  | { kind: 'update-changed'; updateId: string }
  | { kind: 'inference-changed'; inferenceId: string }
  | { kind: 'model-published'; modelVersionId: string };

type EventOf<K extends FleetEvent['kind']> = Extract<FleetEvent, { kind: K }>;

@Injectable()
export class FleetEvents {
  private readonly subject = new Subject<FleetEvent>();

  emit(event: FleetEvent): void {
    this.subject.next(event);
  }

  on<K extends FleetEvent['kind']>(kind: K): Observable<EventOf<K>> {
    return this.subject.pipe(filter((event): event is EventOf<K> => event.kind === kind));
  }
}
