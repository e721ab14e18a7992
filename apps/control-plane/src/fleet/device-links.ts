import { Injectable } from '@nestjs/common';
import type { ChangeOver } from '../domain/rollout-target.js';
import type { DomainError } from '../errors.js';

/** What a device should run. */
export interface DesiredDocument {
  readonly generation: number;
  readonly modelVersionId: string;
  readonly modelName: string;
  readonly sliceId: string;
  readonly contextTokens: number;
  readonly reason: string;
  readonly rolloutId: string | null;
  readonly changeOver: ChangeOver;
  /** W3C; of what caused it. */
  readonly traceParent?: string | null | undefined;
}

export interface ChatMessage {
  readonly role: 'system' | 'user' | 'model';
  readonly text: string;
}

export interface Sampling {
  readonly temperature?: number | undefined;
  readonly topK?: number | undefined;
  readonly topP?: number | undefined;
  readonly seed?: number | undefined;
}

export interface InferenceStart {
  readonly attemptId: string;
  readonly inferenceId: string;
  readonly remainingMs: number;
  readonly modelVersionId: string;
  readonly sliceId: string;
  readonly messages: readonly ChatMessage[];
  readonly sampling: Sampling | null;
  /** 0: what the context still holds. */
  readonly maxTokens: number;
  readonly task: string | null;
  /** Tokens that another device wrote: the answer goes on after them. */
  readonly answeredIds: readonly number[];
  /** Of another device's request: what only the device that answers reads, as it came. */
  readonly more?: object;
  /** W3C; of the attempt. */
  readonly traceParent?: string | undefined;
}

export type Outbound =
  | { readonly kind: 'desired'; readonly document: DesiredDocument }
  | { readonly kind: 'start-inference'; readonly start: InferenceStart }
  | { readonly kind: 'cancel-inference'; readonly attemptId: string }
  | { readonly kind: 'drain'; readonly withinMs: number; readonly reason: string };

/** The way to one connected device. */
export interface DeviceLink {
  readonly deviceId: string;
  readonly epoch: bigint;
  /** False when the device cannot take more now: its session has ended or does not keep up. */
  send(message: Outbound): boolean;
  /** With `refusal`, the device is told so and that it need not come back soon. */
  close(reason: string, refusal?: DomainError): void;
}

/** Devices connected to this process, at most one session each. Features send through it; the gateway puts sessions in. */
@Injectable()
export class DeviceLinks {
  /** The way to a device whose session another replica, at `address`, holds. Set by the gateway. */
  via: ((deviceId: string, epoch: bigint, address: string) => DeviceLink) | undefined;
  private readonly links = new Map<string, DeviceLink>();

  /** Closes the session that it replaces. A session of a lower epoch cannot replace a newer one. */
  open(link: DeviceLink): boolean {
    const before = this.links.get(link.deviceId);
    if (before && before.epoch > link.epoch) return false;
    this.links.set(link.deviceId, link);
    if (before && before !== link) before.close(`replaced by epoch ${link.epoch}`);
    return true;
  }

  /** Returns whether this was the device's current session: the end of a replaced one changes nothing. */
  closed(link: DeviceLink): boolean {
    if (this.links.get(link.deviceId) !== link) return false;
    this.links.delete(link.deviceId);
    return true;
  }

  isCurrent(link: DeviceLink): boolean {
    return this.links.get(link.deviceId) === link;
  }

  get(deviceId: string): DeviceLink | undefined {
    return this.links.get(deviceId);
  }

  send(deviceId: string, message: Outbound): boolean {
    return this.links.get(deviceId)?.send(message) ?? false;
  }

  get count(): number {
    return this.links.size;
  }

  all(): DeviceLink[] {
    return [...this.links.values()];
  }
}
