import type { Presence } from '../domain/presence.js';
import type { Labels } from './device-labels.js';
import type { Standing } from '../identity/identity.js';

/** Sizes in bytes; 0 where the device did not say. */
export interface Capabilities {
  readonly architecture: string;
  readonly platform: string;
  readonly cores: number;
  readonly cpuFeatures: readonly string[];
  readonly totalMemoryBytes: number;
  readonly availableMemoryBytes: number;
  readonly modelMemoryBytes: number;
  readonly runtimeMemoryBytes: number;
  readonly freeDiskBytes: number;
  readonly memoryBandwidthBytesPerSecond: number;
  readonly executionProviders: readonly string[];
  readonly nodeVersion: string;
  readonly runtimeVersion: string;
  /** Limit of the agent's control group; 0 where none bounds it. Absent in what an older agent said, as the next two. */
  readonly memoryLimitBytes?: number;
  /** Median of random 4 KiB reads past the page cache; null where the device could not measure it. */
  readonly diskRandomReadMs?: number | null;
  /** Processor and accelerator share one memory. */
  readonly unifiedMemory?: boolean;
  /** IANA name. */
  readonly timeZone?: string;
}

/** How a box is doing right now; null where it does not tell. */
export interface Condition {
  /** Share of the last ten seconds in which some process, or every one, waited for memory. */
  readonly memorySomePercent: number | null;
  readonly memoryFullPercent: number | null;
  readonly power: 'mains' | 'battery' | null;
  readonly batteryPercent: number | null;
  /** Of the hottest zone, and where the kernel begins to slow it down. */
  readonly temperatureCelsius: number | null;
  readonly throttlesAtCelsius: number | null;
  /** From a heartbeat to its acknowledgement, as the device sees it. */
  readonly roundTripMs: number | null;
}

export interface Observed {
  readonly generation: number;
  readonly modelVersionId: string;
  readonly sliceId: string;
}

/** What a device says of itself when it opens a session. */
export interface Hello {
  readonly bootId: string;
  readonly agentVersion: string;
  readonly capabilities: Capabilities;
  readonly observed: Observed | null;
}

export type Phase = 'fetching' | 'verifying' | 'activating' | 'active' | 'failed' | 'fetched';

export interface DeviceRecord {
  readonly id: string;
  readonly tenantId: string;
  readonly name: string;
  readonly labels: Labels;
  readonly agentVersion: string | null;
  readonly standing: Standing;
  /** Why it is not accepted. */
  readonly standingReason: string | null;
  readonly epoch: bigint;
  /** The replica that holds its session, or held it when that replica died; null once the session has ended. */
  readonly replicaId: string | null;
  readonly lastSeenAt: Date | null;
  readonly capabilities: Capabilities | null;
  /** The version that rollouts have brought this device to; null follows the fleet. */
  readonly modelVersionId: string | null;
  readonly generation: number;
  readonly observed: Observed | null;
  readonly phase: Phase | null;
  readonly phaseError: string | null;
  /** Of the newest generation's trial; null before it. */
  readonly activation: Activation | null;
  readonly fetchedBytes: number;
  readonly totalBytes: number;
  readonly latencyCorrection: number;
}

export type ActivationStep = 'verifying' | 'preparing' | 'starting' | 'checking' | 'committed' | 'rejected' | 'reverted';

/** What kind of failure ended a trial. */
export type FailureClass = 'fetch' | 'verify' | 'disk' | 'start' | 'golden' | 'latency' | 'memory' | 'crash-loop' | 'interrupted';

/** How a device's trial of the desired slice went: `active` is said only of what has committed. */
export interface Activation {
  readonly step: ActivationStep;
  readonly reason: string | null;
  readonly failure: FailureClass | null;
  /** Of the manifest's golden prompts; an answer counts up to its first wrong token. */
  readonly goldenPromptsTotal: number;
  readonly goldenPromptsMatched: number;
  readonly goldenTokensTotal: number;
  readonly goldenTokensMatched: number;
  /** Of the golden tokens of the slice that was active before, those that the new one gives too; 0 of 0 where there was none to compare. */
  readonly previousTokensTotal: number;
  readonly previousTokensMatched: number;
  readonly ttftMs: number | null;
  readonly interTokenMs: number | null;
  readonly residentBytes: number | null;
  /** The old engine had to stop before the candidate could start. */
  readonly replacedFirst: boolean;
}

/** Progress towards a generation. */
export interface PhaseReport {
  readonly generation: number;
  readonly phase: Phase;
  readonly observed: Observed | null;
  readonly fetchedBytes: number;
  readonly totalBytes: number;
  readonly error: string | null;
  /** Null where there was no trial yet. */
  readonly activation?: Activation | null;
}

export interface LatencySummary {
  readonly ttftMs: { readonly p50: number; readonly p95: number };
  readonly interTokenMs: { readonly p50: number; readonly p95: number };
  readonly tokensPerSecond: number;
  readonly samples: number;
}

/** What an operator sees of a device. */
/** The slice that answers instead of the one that runs, while the box is under pressure. */
export interface EffectiveSlice {
  readonly sliceId: string;
  /** What presses, with its number. */
  readonly reason: string;
}

export interface DeviceView {
  readonly id: string;
  readonly name: string;
  readonly labels: Labels;
  readonly standing: Standing;
  /** Why it is not accepted. */
  readonly standingReason: string | null;
  readonly presence: Presence;
  readonly agentVersion: string | null;
  readonly lastSeenAt: Date | null;
  readonly capabilities: Capabilities | null;
  /** Null until a session has told it. */
  readonly condition: Condition | null;
  /** Null while what runs answers. */
  readonly effective: EffectiveSlice | null;
  readonly desired: {
    readonly generation: number;
    readonly modelVersionId: string;
    readonly modelName: string;
    readonly sliceId: string;
    readonly reason: string;
  } | null;
  readonly observed: Observed | null;
  readonly phase: Phase | null;
  readonly phaseError: string | null;
  /** Of the newest generation's trial; null before it. */
  readonly activation: Activation | null;
  readonly fetchedBytes: number;
  readonly totalBytes: number;
  readonly latency: LatencySummary | null;
  readonly latencyCorrection: number;
}
