/** What happens to single messages while a fault is on. `random` is uniform in [0, 1). */
export interface MessageFaults {
  /** Chance that a message comes twice. */
  readonly duplicate: number;
  /** Chance that a message comes after the one behind it. */
  readonly reorder: number;
  readonly random: () => number;
}

/** One direction of a stream. Holds back one message at most, for as long as the fault is on. */
export class MessageLane<T> {
  private held: T | undefined;

  constructor(private readonly deliver: (message: T) => void) {}

  /** `movable: false` for the message that opens a session: nothing may come before it, or twice. */
  pass(message: T, faults: MessageFaults, movable: boolean): void {
    const { duplicate, reorder, random } = faults;
    const { held } = this;
    if (movable && held === undefined && random() < reorder) {
      this.held = message;
      return;
    }
    this.held = undefined;
    this.deliver(message);
    if (movable && random() < duplicate) this.deliver(message);
    if (held !== undefined) this.deliver(held);
  }
}
