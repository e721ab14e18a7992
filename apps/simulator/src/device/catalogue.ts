import type { Capabilities } from '@matfleet/protocol';

const GIB = 2 ** 30;

/** A kind of box that fleets are made of. Bytes, bytes per second, milliseconds. */
export interface DeviceClass {
  readonly name: string;
  /** Of a hundred devices, about so many. */
  readonly share: number;
  readonly architecture: 'arm64' | 'x64';
  readonly cores: number;
  readonly memoryBytes: number;
  /** Granted to weights, K/V and activations. */
  readonly modelMemoryBytes: number;
  readonly memoryBandwidthBytesPerSecond: number;
  readonly freeDiskBytes: number;
  /** To bring a slice here, and to prove it; a device takes between half and one and a half of it. */
  readonly fetchMs: number;
  readonly activateMs: number;
}

export const DEVICE_CLASSES: readonly DeviceClass[] = [
  box('kiosk', 30, 'arm64', 4, 4, 1.6, 10, 600, 400),
  box('gateway', 30, 'arm64', 4, 8, 2.6, 15, 400, 300),
  box('mini-pc', 25, 'x64', 8, 16, 4, 40, 250, 200),
  box('vision-box', 10, 'arm64', 6, 8, 4, 68, 250, 200),
  box('server', 5, 'x64', 16, 64, 8, 120, 100, 100),
];

function box(
  name: string,
  share: number,
  architecture: DeviceClass['architecture'],
  cores: number,
  memoryGib: number,
  modelGib: number,
  bandwidthGib: number,
  fetchMs: number,
  activateMs: number,
): DeviceClass {
  return {
    ...{ name, share, architecture, cores, fetchMs, activateMs },
    memoryBytes: memoryGib * GIB,
    modelMemoryBytes: modelGib * GIB,
    memoryBandwidthBytesPerSecond: bandwidthGib * GIB,
    freeDiskBytes: 4 * memoryGib * GIB,
  };
}

/** Draws by share; `chance` is uniform in [0, 1). */
export function drawClass(chance: number, classes: readonly DeviceClass[] = DEVICE_CLASSES): DeviceClass {
  const total = classes.reduce((sum, { share }) => sum + share, 0);
  let rest = chance * total;
  for (const candidate of classes) if ((rest -= candidate.share) < 0) return candidate;
  return classes.at(-1)!;
}

/** `modelMemoryBytes` stands in for the class's own grant, for models that are smaller than the boxes. */
export function capabilitiesOf(box: DeviceClass, modelMemoryBytes = box.modelMemoryBytes): Capabilities {
  return {
    architecture: box.architecture,
    platform: 'linux',
    cores: box.cores,
    cpuFeatures: box.architecture === 'x64' ? ['avx2'] : ['asimd'],
    totalMemoryBytes: BigInt(box.memoryBytes),
    availableMemoryBytes: BigInt(Math.floor(box.memoryBytes * 0.7)),
    modelMemoryBytes: BigInt(Math.floor(modelMemoryBytes)),
    runtimeMemoryBytes: 0n,
    freeDiskBytes: BigInt(box.freeDiskBytes),
    memoryBandwidthBytesPerSecond: BigInt(box.memoryBandwidthBytesPerSecond),
    executionProviders: ['cpu'],
    nodeVersion: process.versions.node,
    runtimeVersion: 'simulated',
    memoryLimitBytes: 0n,
    diskRandomReadMs: undefined,
    unifiedMemory: false,
    timeZone: 'UTC',
  };
}
