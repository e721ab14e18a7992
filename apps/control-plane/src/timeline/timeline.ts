/** What stands in a device's timeline. */
export const TIMELINE_KINDS = [
  /** `to`: online, suspect or offline; `epoch` of the session. */
  'presence',
  /** `epoch`, `agentVersion`, `replica`. */
  'session-opened',
  /** `epoch`, `reason`. */
  'session-ended',
  /** `generation`, `modelName`, `modelVersionId`, `sliceId`, `from` (the slice before), `reason`, `rolloutId`. */
  'assigned',
  /** What is desired runs: `generation`, `sliceId`. */
  'applied',
  /** What is desired could not be reached: `generation`, `error`. */
  'failed',
  /** `rolloutId`, `state`, `reason`: where the device's part of a rollout has come to. */
  'rollout',
  /** `concern`, `began`, `reason`. */
  'condition',
  /** `ready`: whether the engine answers. */
  'engine',
  /** `sliceId`: the slice that answers now; `reason`: why a smaller one than the assigned, empty when that one does. */
  'effective',
  /** An operator or the device changed something: `action`, `actor`, `before` and `after`, as in the audit log. */
  'change',
] as const;
export type TimelineKind = (typeof TIMELINE_KINDS)[number];

export type TimelineDetail = Readonly<Record<string, unknown>>;

/** One thing that happened to a device. */
export interface TimelineEntry {
  /** Grows with time; a page ends where the next one begins. */
  readonly id: number;
  readonly at: Date;
  readonly kind: TimelineKind;
  readonly detail: TimelineDetail;
  /** The detail in plain words. */
  readonly summary: string;
}

/** Newest first, or with `after` oldest first. */
export interface TimelinePage {
  readonly entries: readonly TimelineEntry[];
  /** Where the next page begins; null at the end. */
  readonly next: number | null;
}

export interface TimelineQuery {
  readonly limit: number;
  readonly kind?: TimelineKind | undefined;
  /** Entries older than this one. */
  readonly before?: number | undefined;
  /** Entries younger than this one, oldest first. */
  readonly after?: number | undefined;
}

export interface NewEntry {
  readonly deviceId: string;
  /** Where it is known; else that of the device, which must still be there. */
  readonly tenantId?: string | undefined;
  readonly atMs: number;
  readonly kind: TimelineKind;
  readonly detail: TimelineDetail;
  /** Of the session that it belongs to: nothing is written once a newer one was opened. */
  readonly epoch?: bigint | undefined;
}

/** In plain words. */
export function summaryOf(kind: TimelineKind, detail: TimelineDetail): string {
  const text = (name: string): string => String(detail[name] ?? '');
  switch (kind) {
    case 'presence':
      return text('to');
    case 'session-opened':
      return `epoch ${text('epoch')}, agent ${text('agentVersion')}, replica ${text('replica').slice(0, 8)}`;
    case 'session-ended':
      return `epoch ${text('epoch')}: ${text('reason')}`;
    case 'assigned':
      return `generation ${text('generation')}: ${detail['from'] ? `${text('from')} -> ` : ''}${text('sliceId')} of ${text('modelName')}: ${text('reason')}`;
    case 'applied':
      return `generation ${text('generation')}: ${text('sliceId')} runs`;
    case 'failed':
      return `generation ${text('generation')}: ${text('error')}`;
    case 'rollout':
      return `${text('rolloutId')} ${text('state')}${detail['reason'] ? `: ${text('reason')}` : ''}`;
    case 'condition':
      return `${text('concern')} ${detail['began'] ? 'began' : 'ended'}: ${text('reason')}`;
    case 'engine':
      return detail['ready'] ? 'answers' : 'does not answer';
    case 'effective':
      return `${text('sliceId')} answers${detail['reason'] ? `: ${text('reason')}` : ' again'}`;
    case 'change':
      return `${text('action')} by ${text('actor')}`;
  }
}
