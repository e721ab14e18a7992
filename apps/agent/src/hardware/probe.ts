import type { Capabilities } from '@matfleet/protocol';

/** What the operator grants and what the engine process measured. */
export interface Grants {
  /** Grant to weights, K/V and activations, bytes; 0 when not set. */
  readonly modelMemoryBytes: number;
  readonly runtimeMemoryBytes?: number;
  readonly executionProviders?: readonly string[];
  readonly runtimeVersion?: string;
}

export type ProbeHardware = (dataDir: string, grants: Grants) => Promise<Capabilities>;
/** Sequential read of main memory, bytes per second, measured in a short-lived child process (≤ 300 ms of work). */
export type ProbeMemoryBandwidth = () => Promise<number>;
