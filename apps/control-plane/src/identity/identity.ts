import { DomainError } from '../errors.js';
import type { Labels } from '../fleet/device-labels.js';

/** What a device of this fleet may do: only an `accepted` one is served. */
export type Standing = 'accepted' | 'quarantined' | 'revoked';

/** Why a device is refused, as the agent reads it. */
export type RefusedStanding =
  | Exclude<Standing, 'accepted'>
  /** Decommissioned; remove models and keys. */
  | 'wipe'
  | 'decommissioned'
  /** Its key was replaced: this is an older copy of the device's disk. */
  | 'key-retired'
  | 'unknown';

/** A device that proved who it is and is refused nevertheless, until an operator does something. */
export class IdentityRefused extends DomainError {
  constructor(
    readonly standing: RefusedStanding,
    message: string,
  ) {
    super('unauthenticated', message);
    this.name = 'IdentityRefused';
  }
}

/** A device that was let in. */
export interface Admitted {
  readonly deviceId: string;
  /** In whose scope its session runs. */
  readonly tenantId: string;
  /** Of the process that held the last session; null before the first. */
  readonly bootId: string | null;
}

export interface DeviceKeyView {
  readonly publicKeyHash: string;
  readonly state: 'accepted' | 'offered' | 'retired';
  /** Null for the accepted one. */
  readonly createdAt: Date | null;
  /** When a retired key was first seen in use again. */
  readonly reusedAt: Date | null;
}

export interface TombstoneView {
  readonly deviceId: string;
  readonly name: string;
  readonly reason: string;
  readonly wipe: boolean;
  readonly wipedAt: Date | null;
  readonly createdAt: Date;
}

export interface StandingView {
  readonly deviceId: string;
  readonly name: string;
  readonly standing: Standing;
  readonly reason: string | null;
}

export type EnrolmentState = 'pending' | 'rejected' | 'preauthorised';

export interface EnrolmentView {
  readonly id: string;
  readonly publicKeyHash: string;
  readonly name: string;
  readonly state: EnrolmentState;
  /** What the device will be labelled with. */
  readonly labels: Labels;
  readonly createdAt: Date;
}

/** What remains of a wanted name in the characters of a host name. */
export const deviceName = (wanted: string): string =>
  wanted
    .toLowerCase()
    .replace(/[^a-z0-9._-]+/g, '-')
    .replace(/^[-._]+/, '')
    .slice(0, 50) || 'device';
