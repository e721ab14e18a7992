import type { TargetState, UpdateState } from '../domain/update.js';

/** What an operator sees of an update. */
export interface UpdateView {
  readonly id: string;
  readonly modelVersionId: string;
  readonly state: UpdateState;
  /** By name of the device. */
  readonly targets: readonly UpdateTargetView[];
  readonly createdAt: Date;
  readonly finishedAt: Date | null;
}

export interface UpdateTargetView {
  readonly deviceId: string;
  readonly deviceName: string;
  readonly state: TargetState;
  readonly generation: number | null;
  readonly error: string | null;
}
