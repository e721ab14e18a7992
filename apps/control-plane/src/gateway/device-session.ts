import type { Hello, Report, SessionRequest, SessionResponse } from '@matfleet/protocol';
import { type Attributes, openSpan, traced, traceParent } from '@matfleet/tracing';
import type { AssignmentService } from '../assignment/assignment.service.js';
import type { Config } from '../config.js';
import { inTenant } from '../database/scope.js';
import { reconnectJitterMs } from '../domain/reconnect.js';
import { DomainError } from '../errors.js';
import type { DeviceLink, DeviceLinks, Outbound } from '../fleet/device-links.js';
import type { PhaseReport } from '../fleet/device.js';
import type { FleetService } from '../fleet/fleet.service.js';
import type { Leases } from '../fleet/leases.js';
import type { IdentityService } from '../identity/identity.service.js';
import type { AttemptHub } from '../inference/attempt-hub.js';
import type { Caller } from './device-auth.js';
import { attemptEventOf, beatOf, capabilitiesOf, observedOf, phaseReportOf, text, toWire } from './wire.js';

const RETIRED_COME_BACK_MS = 5_000;

/** What a session hands its messages to. */
export interface Features {
  readonly fleet: FleetService;
  readonly leases: Leases;
  readonly assignments: AssignmentService;
  readonly links: DeviceLinks;
  readonly attempts: AttemptHub;
  readonly config: Config;
  readonly identity: IdentityService;
  /** Logs a fault of ours that ends nothing. */
  readonly report: (error: unknown) => void;
}

/** The way back to the device: a stream, or the answer of the next Sync. */
export interface Transport {
  /** The device has gone. */
  readonly isOver: boolean;
  /** False when the message is lost: the session has ended, or the device does not keep up. */
  write(message: SessionResponse): boolean;
  /** With `refusal`, the device is told so. */
  close(refusal?: DomainError): void;
}

/** One device's session, whatever carries it. Opened by Hello; a newer Hello of the same device ends it. */
export class DeviceSession implements DeviceLink {
  private ended = false;
  private reportedSequence = 0n;
  private sentGeneration = 0;

  private constructor(
    private readonly features: Features,
    private readonly transport: Transport,
    readonly deviceId: string,
    private readonly tenantId: string,
    readonly epoch: bigint,
    /** On the monotonic clock; each session's own, so that a fleet that came together does not go together. */
    private readonly retiresAtMs: number,
  ) {}

  /** In the device's tenant, as everything that the session does. */
  static open(features: Features, caller: Caller, hello: Hello, transport: Transport): Promise<DeviceSession> {
    return inTenant(caller.tenantId, () => DeviceSession.welcome(features, caller, hello, transport));
  }

  private static async welcome(features: Features, caller: Caller, hello: Hello, transport: Transport): Promise<DeviceSession> {
    const { fleet, leases, links, assignments, config, identity } = features;
    const { deviceId } = caller;
    const bootId = text(hello.bootId, 100);
    await identity.boot(caller, bootId);
    if (transport.isOver) throw new DomainError('unavailable', 'the device had gone before its session was opened');
    const device = await fleet.hello(deviceId, {
      bootId,
      agentVersion: text(hello.agentVersion, 100),
      capabilities: capabilitiesOf(hello.capabilities),
      observed: observedOf(hello.observed),
    });
    const session = new DeviceSession(
      features,
      transport,
      deviceId,
      caller.tenantId,
      device.epoch,
      performance.now() + config.sessionAgeMs * (0.8 + 0.4 * Math.random()),
    );
    transport.write({
      message: {
        $case: 'welcome',
        value: {
          epoch: device.epoch,
          deviceId,
          heartbeatMs: config.heartbeatMs,
          leaseMs: config.leaseMs,
          reconnectJitterMs: reconnectJitterMs(Math.max(links.count, leases.size)),
          serverTimeUnixMs: BigInt(Date.now()),
          renewInMs: caller.renewInMs === null ? undefined : BigInt(caller.renewInMs),
        },
      },
    });
    // Reachable only once its document is decided, so that a new document is sent once.
    await assignments.welcome(deviceId, Number(hello.storedGeneration), () => {
      if (!links.open(session)) throw new DomainError('unavailable', `device ${deviceId} has opened a newer session`);
    });
    return session;
  }

  /** Messages of one session, each after the one before has been accepted. Those of a session that was replaced have no effect. */
  accept(request: SessionRequest): Promise<void> | void {
    return inTenant(this.tenantId, () => this.take(request));
  }

  private take(request: SessionRequest): Promise<void> | void {
    const { fleet, links, attempts } = this.features;
    if (!links.isCurrent(this)) return;
    const message = request.message;
    switch (message?.$case) {
      case 'hello':
        throw new DomainError('invalid-argument', 'Hello may come only once in a session');
      case 'heartbeat':
        if (performance.now() >= this.retiresAtMs && attempts.runningOn(this.deviceId) === 0) return this.retire();
        fleet.beat(this.deviceId, this.epoch, beatOf(message.value));
        this.transport.write({
          message: { $case: 'heartbeatAck', value: { sequence: message.value.sequence, serverTimeUnixMs: BigInt(Date.now()) } },
        });
        return;
      case 'report':
        return this.report(message.value);
      case 'inferenceEvent': {
        const event = attemptEventOf(message.value);
        if (event) attempts.deliver(this.deviceId, message.value.attemptId, event);
        return;
      }
      case undefined:
        return; // A message of a newer protocol.
    }
  }

  /** Reports count in the order of their sequence, whatever the order in which they come: one that was overtaken says nothing new. */
  private async report(report: Report): Promise<void> {
    if (report.sequence > this.reportedSequence) {
      await this.acknowledged(phaseReportOf(report), report.traceParent);
      this.reportedSequence = report.sequence;
    }
    this.transport.write({ message: { $case: 'reportAck', value: { sequence: report.sequence } } });
  }

  /** What ends a generation belongs to the trace that began it. */
  private acknowledged(report: PhaseReport, parent: string | undefined): Promise<void> {
    const taken = (): Promise<void> => this.features.fleet.report(this.deviceId, this.epoch, report);
    if (parent === undefined || (report.phase !== 'active' && report.phase !== 'failed')) return taken();
    const attributes = { ...this.attributes, 'matfleet.generation': report.generation, 'matfleet.phase': report.phase };
    return traced('acknowledge desired', { kind: 'consumer', parent, attributes }, taken);
  }

  private get attributes() {
    return { 'matfleet.device.id': this.deviceId, 'matfleet.session.epoch': Number(this.epoch) };
  }

  /** An older document than the one sent last stays here. */
  send(message: Outbound): boolean {
    if (this.ended) return false;
    switch (message.kind) {
      case 'desired': {
        const { document } = message;
        if (document.generation < this.sentGeneration) return true;
        this.sentGeneration = document.generation;
        const attributes = { ...this.attributes, 'matfleet.generation': document.generation, 'matfleet.slice': document.sliceId };
        return this.sendIn('send desired', attributes, document.traceParent, (parent) =>
          toWire({ kind: 'desired', document: { ...document, traceParent: parent ?? document.traceParent } }),
        );
      }
      case 'start-inference': {
        const { start } = message;
        const attributes = { ...this.attributes, 'matfleet.attempt.id': start.attemptId, 'matfleet.slice': start.sliceId };
        return this.sendIn('send inference', attributes, start.traceParent, (parent) =>
          toWire({ kind: 'start-inference', start: { ...start, traceParent: parent ?? start.traceParent } }),
        );
      }
      case 'cancel-inference':
      case 'drain':
        return this.transport.write(toWire(message));
    }
  }

  /** The message carries the span of its sending, so that the device's spans lie below it. */
  private sendIn(
    name: string,
    attributes: Attributes,
    parent: string | null | undefined,
    message: (parent: string | undefined) => SessionResponse,
  ): boolean {
    const span = openSpan(name, { kind: 'producer', parent: parent ?? undefined, attributes });
    const sent = span.run(() => this.transport.write(message(traceParent())));
    span.end(sent ? undefined : 'not-sent');
    return sent;
  }

  /** Every stream ends some time, so that the fleet spreads over the replicas again and nothing leaks for ever. */
  private retire(): void {
    this.send({ kind: 'drain', withinMs: RETIRED_COME_BACK_MS, reason: 'the session has reached its age' });
    this.close('the session has reached its age');
  }

  /** Called by the control plane: ends the stream towards the device. */
  close(reason: string, refusal?: DomainError): void {
    if (this.ended) return;
    this.transport.close(refusal);
    this.finish(reason);
  }

  /** Called when the stream has ended, by whomever. Safe to repeat. */
  finish(reason: string): void {
    if (this.ended) return;
    this.ended = true;
    this.features.links.closed(this);
    this.features.fleet.disconnected(this.deviceId, this.epoch, reason);
    this.features.attempts.lost(this.deviceId, this.epoch, reason);
  }
}
