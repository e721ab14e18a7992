import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Metadata } from '@grpc/grpc-js';
import {
  channelOptions,
  deviceCredentials,
  DeviceTrust,
  enrol,
  EnrolmentPending,
  fetchManifest,
  loadIdentity,
  readStateFile,
  type Refusal,
  renewIdentity,
  retryPlan,
  targetOf,
  writeFileDurably,
  type Identity,
} from '@matfleet/device';
import { ArtifactServiceClient, DeviceServiceClient, FallbackServiceClient } from '@matfleet/protocol';
import type { Logger } from 'pino';
import { z } from 'zod';

/** Longest single timer; a longer wait is several. */
const TIMER_MAX_MS = 24 * 3_600_000;
const CALL_TIMEOUT_MS = 15_000;
const CONFIRM_TRIES = 5;

const Left = z.object({ deviceId: z.string(), at: z.string(), reason: z.string() });

export interface MembershipParts {
  /** `https://host:port` of the control plane. */
  readonly joinUrl: string;
  readonly token: string | undefined;
  readonly deviceName: string;
  /** Of the agent: `identity/` in it holds keys and certificate. */
  readonly dataDir: string;
  /** File with the fleet's root metadata, where the device was given one. */
  readonly trustRoot?: string | undefined;
  readonly log: Logger;
  /** The credentials are new: the next session takes a new channel. */
  renewed(): void;
  /** Removes everything of the fleet but the keys. Safe to repeat. */
  wipe(): Promise<void>;
}

/** Channels beside the session's, made when they are needed. */
interface Clients {
  artifacts?: ArtifactServiceClient;
  fallback?: FallbackServiceClient;
}

function closeAll({ artifacts, fallback }: Clients): void {
  artifacts?.close();
  fallback?.close();
}

/** This device's place in its fleet: enrols, keeps the certificate fresh, and leaves when it is told to. */
export class Membership {
  identity: Identity | undefined;
  private clients: Clients = {};
  private lastClients: Clients = {};
  private deviceTrust: DeviceTrust | undefined;
  private renewal = new AbortController();

  constructor(private readonly parts: MembershipParts) {
    this.identity = loadIdentity(this.directory);
  }

  /** Until there is an identity, or `signal` aborts, or this device has been decommissioned. */
  async join(signal: AbortSignal): Promise<Identity | undefined> {
    const left = readStateFile(this.leftFile, Left);
    if (left) {
      const { log } = this.parts;
      log.error({ ...left, file: this.leftFile }, 'this device was decommissioned: remove the file to let it enrol again, as a new device');
      rmSync(this.directory, { recursive: true, force: true });
      return undefined;
    }
    for (let failures = 0; !this.identity && !signal.aborted;) {
      const waitMs = await this.enrol().then(
        () => 0,
        (error: Error) => {
          if (!(error instanceof EnrolmentPending)) this.parts.log.error({ reason: error.message }, 'cannot enrol yet');
          else if (failures === 0) this.parts.log.warn(error.message);
          failures += 1;
          const { beforeMs } = retryPlan(failures, Math.random());
          return error instanceof EnrolmentPending ? error.retryAfterMs * (0.75 + Math.random() / 2) : beforeMs;
        },
      );
      if (waitMs > 0) await delay(waitMs, undefined, { signal }).catch(() => {});
    }
    return signal.aborted ? undefined : this.identity;
  }

  dial(): DeviceServiceClient {
    return new DeviceServiceClient(targetOf(this.parts.joinUrl), this.credentials(), channelOptions);
  }

  /** With the present certificate; undefined before there is one. */
  get artifacts(): ArtifactServiceClient | undefined {
    if (!this.identity) return undefined;
    return (this.clients.artifacts ??= new ArtifactServiceClient(targetOf(this.parts.joinUrl), this.credentials(), channelOptions));
  }

  /** The same for answers of other devices. */
  get fallback(): FallbackServiceClient | undefined {
    if (!this.identity) return undefined;
    return (this.clients.fallback ??= new FallbackServiceClient(targetOf(this.parts.joinUrl), this.credentials(), channelOptions));
  }

  /** The manifest of a version that the fleet's signed metadata lists. */
  async fetchManifest(modelVersionId: string): Promise<Buffer> {
    const client = this.artifacts;
    if (!client) throw new Error('this device has not enrolled yet');
    const target = await this.trust.targetOf(modelVersionId);
    if (!target) this.parts.log.warn({ modelVersionId }, 'the control plane signs no metadata: its certificate alone vouches for this version');
    const manifest = await fetchManifest(client, modelVersionId);
    if (target && manifest.length !== target.bytes)
      throw new Error(`manifest ${modelVersionId} has ${manifest.length} bytes; the signed metadata says ${target.bytes}`);
    return manifest;
  }

  /** The control plane says when; this device's clock decides nothing. A later word replaces an earlier one. */
  renewIn(ms: number): void {
    this.renewal.abort();
    this.renewal = new AbortController();
    void this.renewLoop(ms, this.renewal.signal).catch(() => {});
  }

  /** What to do about a refusal; wipes and leaves where that is what it says. */
  async refused({ standing, message }: Refusal): Promise<'later' | 'now' | 'never'> {
    const { log } = this.parts;
    log.error({ standing: standing || 'refused', reason: message }, 'the control plane refuses this device');
    if (standing === 'wipe') return (await this.leave(message)) ? 'never' : 'later';
    if (standing !== '' || !this.parts.token) return 'later';
    // A certificate that ran out while the device was away: the same key may get another one, with a token that is still good.
    try {
      this.identity = await enrol(this.enrolment(this.parts.token));
      this.replaceClients();
      return 'now';
    } catch (error) {
      log.error({ reason: (error as Error).message }, 'cannot enrol again');
      return 'later';
    }
  }

  close(): void {
    this.renewal.abort();
    closeAll(this.clients);
    closeAll(this.lastClients);
  }

  private get directory(): string {
    return join(this.parts.dataDir, 'identity');
  }

  /** Beside the keys, so that it goes with them when this device leaves its fleet. */
  private get trust(): DeviceTrust {
    return (this.deviceTrust ??= new DeviceTrust({
      file: join(this.directory, 'trust.json'),
      client: () => this.artifacts!,
      ...(this.parts.trustRoot !== undefined && { root: readFileSync(this.parts.trustRoot) }),
    }));
  }

  private get leftFile(): string {
    return join(this.parts.dataDir, 'decommissioned.json');
  }

  private credentials() {
    if (!this.identity) throw new Error('this device has not enrolled yet');
    return deviceCredentials(this.identity);
  }

  private enrolment(token: string) {
    const { joinUrl, deviceName } = this.parts;
    return { joinUrl, token, deviceName, directory: this.directory };
  }

  private async enrol(): Promise<void> {
    const { token, log } = this.parts;
    if (!token) throw new Error('this device has not enrolled yet and was given no join token (--token or MATFLEET_TOKEN)');
    this.identity = await enrol(this.enrolment(token));
    log.info({ deviceId: this.identity.deviceId, deviceName: this.identity.deviceName }, 'enrolled');
  }

  private async renewLoop(firstMs: number, signal: AbortSignal): Promise<void> {
    // Spread, because a fleet that enrolled together would renew together.
    await wait(firstMs * (1 + Math.random() / 20), signal);
    for (let failures = 0; this.identity;) {
      const client = this.dial();
      try {
        const { identity, renewInMs } = await renewIdentity(client, { directory: this.directory, identity: this.identity });
        this.identity = identity;
        this.replaceClients();
        this.parts.log.info({ renewInMs }, 'the certificate was renewed, with a new key');
        failures = 0;
        await wait(renewInMs * (1 + Math.random() / 20), signal);
      } catch (error) {
        signal.throwIfAborted();
        failures += 1;
        this.parts.log.warn({ reason: (error as Error).message, failures }, 'the certificate could not be renewed yet');
        await wait(retryPlan(failures, Math.random()).beforeMs, signal);
      } finally {
        client.close();
      }
    }
  }

  /** Downloads and answers that are under way end on the old clients: they close at the next replacement. */
  private replaceClients(): void {
    closeAll(this.lastClients);
    this.lastClients = this.clients;
    this.clients = {};
    this.parts.renewed();
  }

  /** Models first, then the word to the control plane, which needs the keys, then the keys. May be cut off anywhere: the next refusal begins it again. */
  private async leave(reason: string): Promise<boolean> {
    const { log, wipe } = this.parts;
    await wipe();
    for (let tries = 1; !(await this.confirmWipe()); tries++) {
      if (tries === CONFIRM_TRIES) return false;
      await delay(retryPlan(tries, Math.random()).beforeMs);
    }
    const left = { deviceId: this.identity?.deviceId ?? '', at: new Date().toISOString(), reason };
    writeFileDurably(this.leftFile, `${JSON.stringify(left, null, 2)}\n`);
    this.close();
    rmSync(this.directory, { recursive: true, force: true });
    this.identity = undefined;
    log.warn({ ...left }, 'models and keys of this device are removed');
    return true;
  }

  private confirmWipe(): Promise<boolean> {
    const client = this.dial();
    return new Promise<boolean>((resolve) => {
      client.confirmWipe({}, new Metadata(), { deadline: Date.now() + CALL_TIMEOUT_MS }, (error) => {
        if (error) this.parts.log.warn({ reason: error.details }, 'the control plane has not heard of the wipe yet');
        resolve(!error);
      });
    }).finally(() => client.close());
  }
}

/** On a clock that setting the time does not move. Rejects when `signal` aborts. */
async function wait(ms: number, signal: AbortSignal): Promise<void> {
  for (let left = ms; left > 0; left -= TIMER_MAX_MS) await delay(Math.min(left, TIMER_MAX_MS), undefined, { signal, ref: false });
  signal.throwIfAborted();
}
