import type { HistoryEvent, HistorySlot } from './event.js';

/** What a history shows. Every counter but the first four counts violations. */
export interface HistoryReport {
  readonly events: number;
  readonly devices: number;
  readonly commands: number;
  readonly sessions: number;
  /** Commands without an end, or that succeeded without an effect. */
  readonly lost: number;
  /** Commands, attempts or generations with more than one effect. */
  readonly doubled: number;
  /** A generation that was written, received in one session, or applied after a newer one. */
  readonly generationViolations: number;
  /** A Welcome that does not raise the epoch, or an answer to a message of a session that was over. */
  readonly epochViolations: number;
  /** Devices on which desired, observed and what runs differ in the end. */
  readonly diverged: number;
  /** One generation that names two documents. */
  readonly contradictions: number;
  /** The first of them in words, at most 50. */
  readonly violations: readonly string[];
  readonly ok: boolean;
}

type Rule = 'lost' | 'doubled' | 'generationViolations' | 'epochViolations' | 'diverged' | 'contradictions';

const SHOWN = 50;
/** Documents, and late reports, of one device that are remembered: the newest ones. */
const KEPT = 64;

interface DeviceState {
  epoch: number;
  written: number;
  received: number;
  applied: number;
  readonly documents: Map<number, string>;
  /** Reports sent in a session when a newer one had been opened already: nobody may accept them. */
  readonly late: Set<string>;
  ran?: { readonly slot: HistorySlot | undefined; readonly gaveUp: number | undefined };
  shown?: { readonly desired: HistorySlot | undefined; readonly observed: HistorySlot | undefined };
}

/** Pure: reads a whole history once. Memory grows with devices and commands, not with events. */
export class HistoryCheck {
  private readonly devices = new Map<string, DeviceState>();
  private readonly commands = new Map<string, 'open' | 'ended'>();
  private readonly attempts = new Set<string>();
  private readonly counts: Record<Rule, number> = {
    lost: 0,
    doubled: 0,
    generationViolations: 0,
    epochViolations: 0,
    diverged: 0,
    contradictions: 0,
  };
  private readonly violations: string[] = [];
  private events = 0;
  private sessions = 0;

  add(event: HistoryEvent): void {
    this.events += 1;
    switch (event.kind) {
      case 'command-submitted':
        if (!this.commands.has(event.command)) this.commands.set(event.command, 'open');
        return;
      case 'command-ended': {
        if (this.commands.get(event.command) === 'ended') this.broken('doubled', `command ${event.command} ended twice`);
        this.commands.set(event.command, 'ended');
        const allowed = event.outcome === 'succeeded' ? 1 : 0;
        if (event.effects > allowed) this.broken('doubled', `command ${event.command} ${event.outcome} with ${event.effects} effects`);
        if (event.effects < allowed) this.broken('lost', `command ${event.command} succeeded without an effect`);
        return;
      }
      case 'command-ran':
        if (this.attempts.has(event.command)) this.broken('doubled', `device ${event.device} ran ${event.command} again`);
        this.attempts.add(event.command);
        return;
      default:
        return this.ofDevice(event, this.device(event.device));
    }
  }

  private ofDevice(event: Extract<HistoryEvent, { device: string }>, state: DeviceState): void {
    const { device } = event;
    switch (event.kind) {
      case 'session-opened':
        this.sessions += 1;
        if (event.epoch <= state.epoch)
          this.broken('epochViolations', `device ${device} was welcomed with epoch ${event.epoch} after epoch ${state.epoch}`);
        state.epoch = Math.max(state.epoch, event.epoch);
        state.received = 0;
        return;
      case 'session-closed':
      case 'command-ran':
        return;
      case 'report-sent':
        if (event.epoch < state.epoch) remember(state.late, `${event.epoch}/${event.sequence}`);
        return;
      case 'report-acknowledged':
        if (state.late.delete(`${event.epoch}/${event.sequence}`))
          this.broken(
            'epochViolations',
            `device ${device}: report ${event.sequence}, sent in epoch ${event.epoch} after epoch ${state.epoch} had begun, was accepted`,
          );
        return;
      case 'desired-written':
        if (event.generation <= state.written)
          this.broken('generationViolations', `device ${device}: generation ${event.generation} was written after ${state.written}`);
        state.written = Math.max(state.written, event.generation);
        return this.document(device, state, event);
      case 'desired-received':
        // A document from the last session may still arrive after the next one's Welcome.
        if (event.epoch === state.epoch) {
          if (event.generation < state.received)
            this.broken(
              'generationViolations',
              `device ${device}: generation ${event.generation} came after ${state.received} in epoch ${event.epoch}`,
            );
          state.received = Math.max(state.received, event.generation);
        }
        return this.document(device, state, event);
      case 'slot-applied':
        if (event.generation === state.applied) this.broken('doubled', `device ${device} applied generation ${event.generation} twice`);
        if (event.generation < state.applied)
          this.broken('generationViolations', `device ${device} applied generation ${event.generation} after ${state.applied}`);
        state.applied = Math.max(state.applied, event.generation);
        return this.document(device, state, event);
      case 'device-ended':
        state.ran = { slot: event.runs, gaveUp: event.gaveUp };
        return;
      case 'device-shown':
        state.shown = { desired: event.desired, observed: event.observed };
        return;
    }
  }

  /** Call once, after the last event. */
  report(): HistoryReport {
    for (const [command, state] of this.commands) if (state === 'open') this.broken('lost', `command ${command} never ended`);
    for (const [device, state] of this.devices) this.settled(device, state);
    const { events, sessions, violations, counts } = this;
    return {
      events,
      devices: this.devices.size,
      commands: this.commands.size,
      sessions,
      ...counts,
      violations,
      ok: Object.values(counts).every((count) => count === 0),
    };
  }

  /** In the end a device runs what is desired, or has given that generation up in so many words; and the control plane knows which. */
  private settled(device: string, { shown, ran }: DeviceState): void {
    const desired = shown?.desired;
    if (ran && shown && !sameSlot(ran.slot, shown.observed))
      this.broken('diverged', `device ${device} runs ${words(ran.slot)}, the control plane shows ${words(shown.observed)}`);
    else if (shown && desired && !sameSlot(desired, shown.observed) && ran?.gaveUp !== desired.generation)
      this.broken('diverged', `device ${device} is to run ${words(desired)} and runs ${words(shown.observed)}`);
  }

  private document(device: string, { documents }: DeviceState, slot: HistorySlot): void {
    const text = `${slot.modelVersionId} ${slot.sliceId}`;
    const before = documents.get(slot.generation);
    if (before !== undefined && before !== text)
      this.broken('contradictions', `device ${device}: generation ${slot.generation} names both ${before} and ${text}`);
    documents.set(slot.generation, text);
    if (documents.size > KEPT) documents.delete(documents.keys().next().value!);
  }

  private device(id: string): DeviceState {
    let state = this.devices.get(id);
    if (!state) this.devices.set(id, (state = { epoch: 0, written: 0, received: 0, applied: 0, documents: new Map(), late: new Set() }));
    return state;
  }

  private broken(rule: Rule, what: string): void {
    this.counts[rule] += 1;
    if (this.violations.length < SHOWN) this.violations.push(`${rule}: ${what}`);
  }
}

export function checkHistory(events: Iterable<HistoryEvent>): HistoryReport {
  const check = new HistoryCheck();
  for (const event of events) check.add(event);
  return check.report();
}

function remember(late: Set<string>, report: string): void {
  late.add(report);
  if (late.size > KEPT) late.delete(late.values().next().value!);
}

const sameSlot = (a: HistorySlot | undefined, b: HistorySlot | undefined): boolean =>
  a?.generation === b?.generation && a?.modelVersionId === b?.modelVersionId && a?.sliceId === b?.sliceId;

const words = (slot: HistorySlot | undefined): string =>
  slot ? `${slot.sliceId} of ${slot.modelVersionId.slice(0, 12)} (generation ${slot.generation})` : 'nothing';
