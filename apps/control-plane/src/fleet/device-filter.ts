import { type Condition, DeviceFilter, FilterError, type FilterableDevice } from '@matfleet/filter';
import { DomainError } from '../errors.js';
import type { DeviceView } from './device.js';

/** A filter as an operator wrote it; a refusal names the column. */
export function parseFilter(text: string): DeviceFilter {
  try {
    return DeviceFilter.parse(text);
  } catch (error) {
    if (error instanceof FilterError) throw new DomainError('invalid-argument', error.message);
    throw error;
  }
}

/** Whether it depends on who is here: for nothing else the leases of the whole fleet are gathered. */
export function asksPresence(condition: Condition): boolean {
  switch (condition.kind) {
    case 'and':
    case 'or':
      return asksPresence(condition.left) || asksPresence(condition.right);
    case 'not':
      return asksPresence(condition.of);
    case 'text':
    case 'texts':
      return 'field' in condition.operand && condition.operand.field === 'presence';
    case 'always':
    case 'never':
    case 'number':
    case 'numbers':
    case 'has-label':
    case 'has-item':
      return false;
  }
}

/** What a filter may ask of this device. The same as the columns in `device-filter.repository.ts`; its spec compares both. */
export function filterable(device: DeviceView): FilterableDevice {
  const { capabilities, observed } = device;
  const told = {
    phase: device.phase,
    model: observed?.modelVersionId,
    slice: observed?.sliceId,
    agentVersion: device.agentVersion,
    architecture: capabilities?.architecture,
    platform: capabilities?.platform,
    cores: capabilities?.cores,
    memoryBytes: capabilities?.totalMemoryBytes,
    grantBytes: capabilities?.modelMemoryBytes,
    freeDiskBytes: capabilities?.freeDiskBytes,
    bandwidthBytesPerSecond: capabilities?.memoryBandwidthBytesPerSecond,
    cpuFeatures: capabilities?.cpuFeatures,
    executionProviders: capabilities?.executionProviders,
  };
  // Empty and 0 are what a device sends that does not know.
  const known = Object.fromEntries(Object.entries(told).filter(([, value]) => value !== undefined && value !== null && value !== '' && value !== 0));
  return { id: device.id, name: device.name, labels: device.labels, presence: device.presence, ...known };
}
