/** How far one device of an update is. `pushed`: its desired document names the version; the device has not shown it yet. */
export type TargetState = 'pending' | 'pushed' | 'succeeded' | 'failed';
export type UpdateState = 'running' | 'succeeded' | 'failed';

/** What the fleet knows of a target's device. */
export interface TargetSight {
  readonly state: TargetState;
  /** The generation that brings the version; null while pending. */
  readonly generation: number | null;
  /** Newest desired document of the device. */
  readonly desired: { readonly generation: number; readonly modelVersionId: string } | null;
  readonly observed: { readonly generation: number; readonly modelVersionId: string } | null;
  /** Of the newest generation. */
  readonly phase: string | null;
  readonly phaseError: string | null;
}

export type TargetStep =
  { readonly kind: 'wait' } | { readonly kind: 'push' } | { readonly kind: 'succeed' } | { readonly kind: 'fail'; readonly error: string };

/**
 * The one next step of an update on one device. An end is final. A device that runs the version at the pushed generation, or at a later
 * one, has succeeded: in between the assignment may have given it another slice of the same version. A device that is removed takes its target with it.
 */
export function targetStep(target: TargetSight, modelVersionId: string, nowMs: number, deadlineMs: number): TargetStep {
  if (target.state === 'succeeded' || target.state === 'failed') return { kind: 'wait' };
  const { generation, observed, desired } = target;
  if (generation !== null) {
    if (observed && observed.modelVersionId === modelVersionId && observed.generation >= generation) return { kind: 'succeed' };
    if (desired && desired.generation > generation && desired.modelVersionId !== modelVersionId)
      return { kind: 'fail', error: `generation ${desired.generation} took the device to version ${desired.modelVersionId.slice(0, 12)} instead` };
    if (target.phase === 'failed')
      return { kind: 'fail', error: target.phaseError ?? `generation ${desired?.generation ?? generation} failed on the device` };
  }
  if (nowMs >= deadlineMs)
    return {
      kind: 'fail',
      error: generation === null ? 'the device did not come back before the deadline' : `generation ${generation} was not active before the deadline`,
    };
  return target.state === 'pending' ? { kind: 'push' } : { kind: 'wait' };
}

/** An update ends when all its targets have; one that failed makes it failed. */
export function updateState(targets: readonly TargetState[]): UpdateState {
  if (targets.some((state) => state === 'pending' || state === 'pushed')) return 'running';
  return targets.includes('failed') ? 'failed' : 'succeeded';
}
