import type { EngineSpec } from '../engine/engine-host.js';
import type { Supervisor } from '../engine/supervisor.js';
import { HttpError } from './http-error.js';

/** What the agent would answer with now. */
export interface ActiveModel {
  readonly spec: EngineSpec;
  readonly contextTokens: number;
  readonly ready: boolean;
}

export function activeModel(supervisor: Supervisor): ActiveModel | undefined {
  const { spec, engine, ready } = supervisor.stats();
  return spec && { spec, contextTokens: engine?.contextTokens ?? spec.contextTokens, ready };
}

/** `nano:s-32`: the name of a slice where peers have a tag. */
export const taggedName = ({ modelName, sliceId }: EngineSpec): string => `${modelName}:${sliceId}`;

/** Throws 404 unless `name` is the active model's, alone, with its slice, with `:latest`, or its version id. */
export function assertIsActive(name: string, active: ActiveModel | undefined): void {
  if (!active) return; // Refused as "no slice" when its turn comes.
  const { modelName, modelVersionId } = active.spec;
  if ([modelName, `${modelName}:latest`, taggedName(active.spec), modelVersionId].includes(name)) return;
  throw new HttpError(
    404,
    'model_not_found',
    `model ${JSON.stringify(name)} is not active on this device; ${JSON.stringify(taggedName(active.spec))} is`,
    {
      param: 'model',
    },
  );
}
