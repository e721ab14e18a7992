import type { Finished, Started } from '@matfleet/protocol';

/** Who gave an answer and how fast: what every answer tells beside its text. */
export interface Provenance {
  /** Its name, and the id that the fleet knows it by. */
  readonly device: string;
  readonly device_id: string;
  readonly model: string;
  readonly model_version: string;
  readonly slice: string;
  readonly precision: string;
  readonly queue_ms: number;
  /** Absent while the answer runs. */
  readonly ttft_ms?: number;
  readonly inter_token_ms?: number;
  readonly cached_prompt_tokens?: number;
  /** Devices that worked on it, and why the last one was asked. */
  readonly hops?: number;
  readonly why?: string;
}

export function provenance(started: Started, finished?: Finished): Provenance {
  const hops = finished?.route?.hops ?? [];
  const last = hops.at(-1);
  return {
    device: last?.deviceName ?? started.deviceName ?? '',
    device_id: last?.deviceId ?? started.deviceId,
    model: started.modelName,
    model_version: started.modelVersionId,
    slice: last?.sliceId ?? started.sliceId,
    precision: started.precision ?? '',
    queue_ms: milliseconds(started.queueMs),
    ...(finished && {
      ttft_ms: milliseconds(finished.ttftMs),
      inter_token_ms: milliseconds(finished.tokensPerSecond > 0 ? 1_000 / finished.tokensPerSecond : 0),
      cached_prompt_tokens: finished.cachedPromptTokens,
      hops: Math.max(1, hops.length),
      why: last?.reason ?? 'its own device',
    }),
  };
}

/** As HTTP headers and gRPC metadata: `x-matfleet-device: …`. */
export const provenanceHeaders = (told: Provenance): Record<string, string> =>
  Object.fromEntries(
    Object.entries(told)
      .filter(([, value]) => value !== '')
      .map(([name, value]) => [`x-matfleet-${name.replaceAll('_', '-')}`, encodeURI(String(value))]),
  );

const milliseconds = (value: number): number => Math.round(value * 1_000) / 1_000;
