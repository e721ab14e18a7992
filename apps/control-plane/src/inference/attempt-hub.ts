import { Injectable } from '@nestjs/common';
import { Metrics } from '../telemetry.js';

/** What a device says about one attempt. */
export type AttemptEvent =
  | {
      readonly kind: 'started';
      readonly modelVersionId: string;
      readonly modelName: string;
      readonly sliceId: string;
      readonly precision: string;
      readonly promptTokens: number;
    }
  /** The text that the tokens made certain; the end of an answer may bring text without tokens. */
  | {
      readonly kind: 'delta';
      readonly text: string;
      readonly tokenIds: readonly number[];
      /** As the device told them; only passed on. */
      readonly logprobs?: object;
    }
  | {
      readonly kind: 'finished';
      readonly reason: 'stop' | 'max-tokens' | 'context-full' | 'cancelled';
      readonly outputTokens: number;
      readonly ttftMs: number;
      readonly tokensPerSecond: number;
      readonly cachedPromptTokens: number;
    }
  /** `code` is a google.rpc.Code. */
  | { readonly kind: 'failed'; readonly code: number; readonly message: string }
  /** The device's session ended. */
  | { readonly kind: 'lost'; readonly reason: string };

interface Open {
  readonly deviceId: string;
  readonly epoch: bigint;
  readonly listener: (event: AttemptEvent) => void;
  readonly sinceMs: number;
  heard: boolean;
}

/** Whether the device's session is with this replica, or with another one that passes on what it says. */
export type Via = 'here' | 'peer';

/** Brings what devices say to the attempts that wait for it. An attempt hears only the device it runs on. */
@Injectable()
export class AttemptHub {
  /** Told of an answer that nobody waits for any more. */
  late: ((attemptId: string) => void) | undefined;
  private readonly open = new Map<string, Open>();

  constructor(private readonly metrics: Metrics) {}

  /** Returns the function that stops listening. */
  listen(attemptId: string, device: { deviceId: string; epoch: bigint }, listener: (event: AttemptEvent) => void): () => void {
    this.open.set(attemptId, { deviceId: device.deviceId, epoch: device.epoch, listener, sinceMs: performance.now(), heard: false });
    return () => void this.open.delete(attemptId);
  }

  deliver(deviceId: string, attemptId: string, event: AttemptEvent, via: Via = 'here'): void {
    const attempt = this.open.get(attemptId);
    if (attempt?.deviceId === deviceId) {
      if (!attempt.heard && event.kind === 'started')
        this.metrics.attemptReachSeconds.observe({ via }, (performance.now() - attempt.sinceMs) / 1_000);
      attempt.heard = true;
      attempt.listener(event);
    } else if (event.kind === 'finished' && event.reason !== 'cancelled') this.late?.(attemptId);
  }

  /** Ends the attempts of a session; those of the device's other sessions go on. */
  lost(deviceId: string, epoch: bigint, reason: string): void {
    for (const attempt of [...this.open.values()])
      if (attempt.deviceId === deviceId && attempt.epoch === epoch) attempt.listener({ kind: 'lost', reason });
  }

  runningOn(deviceId: string): number {
    let count = 0;
    for (const attempt of this.open.values()) if (attempt.deviceId === deviceId) count += 1;
    return count;
  }
}
