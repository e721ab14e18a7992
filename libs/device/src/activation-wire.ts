import { ActivationStep as WireStep, FailureClass, type Activation as WireActivation } from '@matfleet/protocol';
import type { Activation, ActivationStep, FailureKind } from './activation.js';

const STEPS: Record<ActivationStep, WireStep> = {
  verifying: WireStep.ACTIVATION_STEP_VERIFYING,
  preparing: WireStep.ACTIVATION_STEP_PREPARING,
  starting: WireStep.ACTIVATION_STEP_STARTING,
  checking: WireStep.ACTIVATION_STEP_CHECKING,
  committed: WireStep.ACTIVATION_STEP_COMMITTED,
  rejected: WireStep.ACTIVATION_STEP_REJECTED,
  reverted: WireStep.ACTIVATION_STEP_REVERTED,
};

const FAILURES: Record<FailureKind, FailureClass> = {
  fetch: FailureClass.FAILURE_CLASS_FETCH,
  verify: FailureClass.FAILURE_CLASS_VERIFY,
  disk: FailureClass.FAILURE_CLASS_DISK,
  start: FailureClass.FAILURE_CLASS_START,
  golden: FailureClass.FAILURE_CLASS_GOLDEN,
  latency: FailureClass.FAILURE_CLASS_LATENCY,
  memory: FailureClass.FAILURE_CLASS_MEMORY,
  'crash-loop': FailureClass.FAILURE_CLASS_CRASH_LOOP,
  interrupted: FailureClass.FAILURE_CLASS_INTERRUPTED,
};

export const activationToWire = (trial: Activation): WireActivation => ({
  step: STEPS[trial.step],
  reason: trial.reason ?? '',
  failure: trial.failure ? FAILURES[trial.failure] : FailureClass.FAILURE_CLASS_UNSPECIFIED,
  goldenPromptsTotal: trial.prompts?.total ?? 0,
  goldenPromptsMatched: trial.prompts?.matched ?? 0,
  goldenTokensTotal: trial.tokens?.total ?? 0,
  goldenTokensMatched: trial.tokens?.matched ?? 0,
  previousTokensTotal: trial.previousTokens?.total ?? 0,
  previousTokensMatched: trial.previousTokens?.matched ?? 0,
  ...(trial.ttftMs !== undefined && { ttftMs: trial.ttftMs }),
  ...(trial.interTokenMs !== undefined && { interTokenMs: trial.interTokenMs }),
  ...(trial.residentBytes !== undefined && { residentBytes: BigInt(trial.residentBytes) }),
  replacedFirst: trial.replacedFirst ?? false,
});
