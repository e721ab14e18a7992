import type { Device, ModelVersion } from './api-types.js';

/** The measured quality of what a device runs, for a task if one is named; undefined when nothing runs or nothing was measured. */
export function qualityOf(device: Device, models: readonly ModelVersion[], task?: string): number | undefined {
  const slice = models.find((m) => m.id === device.observed?.modelVersionId)?.slices.find((s) => s.id === device.observed?.sliceId);
  return (task ? slice?.tasks?.[task] : slice?.quality)?.value;
}

/** Names of the online devices that meet a quality floor right now. */
export function meetsFloor(devices: readonly Device[], models: readonly ModelVersion[], floor: number, task?: string): readonly string[] {
  return devices.filter((d) => d.presence === 'online' && (qualityOf(d, models, task) ?? -1) >= floor).map((d) => d.name);
}

/** Every task that some slice was measured on, in order. */
export function tasksOf(models: readonly ModelVersion[]): readonly string[] {
  return [...new Set(models.flatMap((m) => m.slices.flatMap((s) => Object.keys(s.tasks ?? {}))))].sort();
}
