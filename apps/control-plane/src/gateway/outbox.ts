import type { SessionResponse } from '@matfleet/protocol';

/** Starts and cancellations of inferences that may wait for a device that does not read. */
const WAITING_MAX = 64;

type Kind = NonNullable<SessionResponse['message']>['$case'];

/** Of these only the newest counts: the desired document is a whole, and acknowledgements cover what came before them. */
const NEWEST_ONLY: ReadonlySet<Kind> = new Set<Kind>(['desired', 'heartbeatAck', 'reportAck']);

/** What waits for one device. However long the device does not read, it is a handful of messages: the newest state, and a few inferences. */
export class Outbox {
  private waiting: SessionResponse[] = [];

  get length(): number {
    return this.waiting.length;
  }

  /** False when the message cannot wait too: the device does not keep up. */
  add(message: SessionResponse): boolean {
    const kind = message.message?.$case;
    if (kind !== undefined && NEWEST_ONLY.has(kind)) this.waiting = this.waiting.filter(({ message: other }) => other?.$case !== kind);
    else if (this.waiting.length >= WAITING_MAX) return false;
    this.waiting.push(message);
    return true;
  }

  /** The message that has waited longest. */
  next(): SessionResponse | undefined {
    return this.waiting.shift();
  }

  /** Everything, in its order. */
  take(): SessionResponse[] {
    return this.waiting.splice(0);
  }
}
