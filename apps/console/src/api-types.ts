/** What the public API answers, as far as this page shows it. Units stand in the names; times are ISO 8601. */

export type Presence = 'online' | 'suspect' | 'offline';

export interface Quantiles {
  readonly p50: number;
  readonly p95: number;
}

export interface Latency {
  readonly ttftMs: Quantiles;
  readonly interTokenMs: Quantiles;
  readonly tokensPerSecond: number;
  readonly samples: number;
}

export interface Capabilities {
  readonly architecture: string;
  readonly platform: string;
  readonly cores: number;
  readonly totalMemoryBytes: number;
  readonly availableMemoryBytes: number;
  /** What the operator grants to weights, K/V and activations; 0 when not set. */
  readonly modelMemoryBytes: number;
  readonly memoryBandwidthBytesPerSecond: number;
  readonly executionProviders: readonly string[];
}

/** How a box is doing right now; null where it does not tell. */
export interface Condition {
  readonly memoryFullPercent: number | null;
  readonly power: 'mains' | 'battery' | null;
  readonly batteryPercent: number | null;
  readonly temperatureCelsius: number | null;
  readonly throttlesAtCelsius: number | null;
  readonly roundTripMs: number | null;
}

export interface Device {
  readonly id: string;
  readonly name: string;
  readonly labels: readonly { readonly key: string; readonly value: string }[];
  /** Only an accepted device is served. */
  readonly standing: 'accepted' | 'quarantined' | 'revoked';
  readonly standingReason: string | null;
  readonly presence: Presence;
  readonly lastSeenAt: string | null;
  readonly capabilities: Capabilities | null;
  readonly condition: Condition | null;
  readonly desired: {
    readonly generation: number;
    readonly modelVersionId: string;
    readonly modelName: string;
    readonly sliceId: string;
    readonly reason: string;
  } | null;
  readonly observed: { readonly generation: number; readonly modelVersionId: string; readonly sliceId: string } | null;
  readonly phase: string | null;
  readonly phaseError: string | null;
  readonly fetchedBytes: number;
  readonly totalBytes: number;
  readonly latency: Latency | null;
  readonly latencyCorrection: number;
}

export interface Quality {
  readonly value: number;
  readonly samples: number;
  readonly stderr: number;
}

export interface ModelSlice {
  readonly id: string;
  readonly name: string;
  readonly quality: Quality | null;
  readonly tasks: Readonly<Record<string, Quality>> | null;
  readonly bytes: number;
}

export interface ModelVersion {
  readonly id: string;
  readonly name: string;
  readonly publishedAt: string | null;
  readonly slices: readonly ModelSlice[];
}

/** One slice of the quality frontier, seen from one device. */
export interface Candidate {
  readonly sliceId: string;
  readonly name: string;
  readonly quality: number | null;
  /** Standard error of `quality`; 0 when unknown. */
  readonly qualityStderr: number;
  readonly totalBytes: number;
  readonly downloadBytes: number;
  readonly predictedInterTokenMs: number;
  readonly fits: boolean;
  readonly meetsLatency: boolean;
  readonly chosen: boolean;
  /** Why it was taken, or why not, in plain words. */
  readonly why: string;
}

/** What the decision knew, and every candidate with its numbers. */
export interface Explanation {
  readonly memoryLimitBytes: number;
  readonly memoryLimitFrom: string;
  readonly contextTokens: number;
  readonly targetInterTokenMs: number;
  readonly latencyCorrection: number;
  readonly memoryBandwidthBytesPerSecond: number;
  readonly measured: { readonly interTokenMs: number; readonly tokens: number; readonly slowWindows: number } | null;
  readonly candidates: readonly Candidate[];
}

export interface Assignment {
  readonly generation: number;
  readonly modelVersionId: string;
  readonly sliceId: string;
  readonly reason: string;
  readonly explanation: Explanation;
  readonly createdAt: string;
}

/** A public key that asks to become a device, or may, or was turned away. */
export interface Enrolment {
  readonly id: string;
  readonly publicKeyHash: string;
  readonly name: string;
  readonly state: 'pending' | 'rejected' | 'preauthorised';
  readonly labels: Readonly<Record<string, string>>;
  readonly createdAt: string;
}

/** What is known of a join token; its secret is told once, when it is made. */
export interface JoinTokenRow {
  readonly id: string;
  readonly mode: 'auto' | 'request' | 'preauthorised';
  readonly labels: Readonly<Record<string, string>>;
  readonly usesLeft: number;
  readonly expiresAt: string;
  readonly revokedAt: string | null;
}

/** What is left of a decommissioned device. */
export interface Tombstone {
  readonly deviceId: string;
  readonly name: string;
  readonly reason: string;
  readonly wipe: boolean;
  readonly wipedAt: string | null;
  readonly createdAt: string;
}

/** Who changed what. */
export interface AuditRecord {
  readonly sequence: number;
  readonly at: string;
  readonly actor: string;
  readonly action: string;
  readonly subject: string;
  readonly before: unknown;
  readonly after: unknown;
  readonly hash: string;
}

/** Something that happened to a device. */
export interface TimelineEntry {
  /** Grows with time. */
  readonly id: number;
  readonly at: string;
  readonly kind: string;
  /** In plain words. */
  readonly summary: string;
}

export interface TimelinePage {
  /** Newest first. */
  readonly entries: readonly TimelineEntry[];
  /** `before` of the next page; null at the end. */
  readonly next: number | null;
}

export type TargetState =
  'waiting' | 'fetching' | 'fetched' | 'pushed' | 'succeeded' | 'failed' | 'skipped' | 'reverting' | 'reverted' | 'revert-failed';

/** States without devices are left out. */
export type Counts = readonly { readonly state: TargetState; readonly devices: number }[];

export interface RolloutWave {
  /** From 1. */
  readonly wave: number;
  readonly name: string | null;
  readonly state: 'pending' | 'awaiting-approval' | 'running' | 'observing' | 'succeeded' | 'failed';
  readonly reason: string | null;
  readonly devices: number;
  readonly counts: Counts;
  readonly gates: readonly { readonly gate: string; readonly verdict: 'passed' | 'failed' | 'unknown'; readonly reason: string }[];
}

export type RolloutState = 'awaiting-approval' | 'running' | 'paused' | 'rolling-back' | 'succeeded' | 'aborted' | 'rolled-back';

export interface Rollout {
  readonly id: string;
  readonly name: string | null;
  readonly modelVersionId: string;
  readonly state: RolloutState;
  readonly reason: string | null;
  readonly devices: number;
  readonly counts: Counts;
  readonly holds: readonly { readonly why: string; readonly devices: number }[];
  readonly waves: readonly RolloutWave[];
  readonly createdAt: string;
  readonly finishedAt: string | null;
}

export interface Attempt {
  readonly ordinal: number;
  readonly deviceId: string;
  readonly deviceName: string;
  readonly modelVersionId: string;
  readonly sliceId: string;
  readonly state: string;
  readonly reason: string;
  readonly error: string | null;
  readonly ttftMs: number | null;
  readonly outputTokens: number | null;
  readonly startedAt: string;
  readonly finishedAt: string | null;
}

export interface Inference {
  readonly id: string;
  readonly state: 'queued' | 'running' | 'succeeded' | 'failed';
  readonly answer: string | null;
  readonly error: string | null;
  readonly modelVersionId: string | null;
  readonly sliceId: string | null;
  readonly deviceId: string | null;
  readonly attempts: readonly Attempt[];
  readonly createdAt: string;
  readonly finishedAt: string | null;
}

export interface InferenceRequest {
  readonly prompt: string;
  readonly task?: string;
  /** 0..1: a device whose slice scores lower is not asked. */
  readonly qualityFloor?: number;
  readonly maxTokens?: number;
  readonly deadlineMs?: number;
}

export interface JoinToken {
  readonly token: string;
  readonly expiresAt: string;
  readonly usesLeft: number;
  /** Where agents connect, when the control plane tells it. */
  readonly deviceUrl?: string;
}
