import { recover, type Journal, type JournalStore } from '@matfleet/device';

/** The journal of a device whose disk is this object: it outlives the device's restarts, not this process. */
export class MemoryJournal implements JournalStore {
  private state: Journal = {};

  get current(): Journal {
    return this.state;
  }

  update(change: (journal: Journal) => Journal): Journal {
    return (this.state = change(this.state));
  }

  note(change: (journal: Journal) => Journal): Journal {
    return this.update(change);
  }

  /** As when an agent starts on what the last one left. */
  reopen(nowMs: number): void {
    this.update((journal) => recover(journal, nowMs));
  }
}
