import { readFile, statfs } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import type { Capabilities } from '@matfleet/protocol';
import { probeMemoryBandwidth } from './bandwidth.js';
import { cpuFeatures } from './cpu-features.js';
import { probeDiskLatencyMs } from './disk-latency.js';
import { measureMemory } from './memory.js';

/** What the operator grants and what the engine process measured. */
export interface Grants {
  /** Grant to weights, K/V and activations, bytes; 0 when not set. */
  readonly modelMemoryBytes: number;
  readonly runtimeMemoryBytes?: number;
  readonly executionProviders?: readonly string[];
  readonly runtimeVersion?: string;
  /** The compiled `bandwidth-process.js`, by default beside this file. */
  readonly bandwidthEntry?: URL;
}

/** Looks at the box; takes about a second. What cannot be measured is 0, so that a device is never kept from its fleet by a missing figure. */
export async function probeHardware(dataDir: string, grants: Grants): Promise<Capabilities> {
  const [bandwidth, cpuinfo, disk, board] = await Promise.all([
    probeMemoryBandwidth(grants.bandwidthEntry).catch(() => 0),
    readFile('/proc/cpuinfo', 'utf8').catch(() => ''),
    statfs(dataDir).catch(() => undefined),
    readFile('/proc/device-tree/compatible', 'utf8').catch(() => ''),
  ]);
  // After the bandwidth, whose figure its writes would spoil.
  const diskRandomReadMs = await probeDiskLatencyMs(dataDir);
  const memory = measureMemory();
  return {
    architecture: process.arch,
    platform: process.platform,
    cores: availableParallelism(),
    cpuFeatures: cpuFeatures(cpuinfo),
    totalMemoryBytes: BigInt(memory.totalBytes),
    availableMemoryBytes: BigInt(memory.availableBytes),
    modelMemoryBytes: BigInt(grants.modelMemoryBytes),
    runtimeMemoryBytes: BigInt(grants.runtimeMemoryBytes ?? 0),
    freeDiskBytes: BigInt(disk ? disk.bavail * disk.bsize : 0),
    memoryBandwidthBytesPerSecond: BigInt(bandwidth),
    executionProviders: [...(grants.executionProviders ?? ['cpu'])],
    nodeVersion: process.versions.node,
    runtimeVersion: grants.runtimeVersion ?? '',
    memoryLimitBytes: BigInt(memory.limitBytes),
    diskRandomReadMs,
    unifiedMemory: hasUnifiedMemory(process.platform, process.arch, board),
    timeZone: new Intl.DateTimeFormat().resolvedOptions().timeZone ?? '',
  };
}

/** Apple's processors and NVIDIA's Tegra boards: processor and accelerator share one memory, so a byte given to one is taken from the other. */
export const hasUnifiedMemory = (platform: string, architecture: string, deviceTreeCompatible: string): boolean =>
  architecture === 'arm64' && (platform === 'darwin' || deviceTreeCompatible.includes('nvidia,tegra'));
