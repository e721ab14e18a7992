import type { Hello, SessionRequest, SessionResponse } from '@matfleet/protocol';
import type { AssignmentService } from '../assignment/assignment.service.js';
import type { Config } from '../config.js';
import { DomainError } from '../errors.js';
import type { DeviceLink, DeviceLinks, Outbound } from '../fleet/device-links.js';
import type { FleetService } from '../fleet/fleet.service.js';
import type { AttemptHub } from '../inference/attempt-hub.js';
import { attemptEventOf, beatOf, capabilitiesOf, observedOf, phaseReportOf, toWire } from './wire.js';

/** What a session hands its messages to. */
export interface Features {
  readonly fleet: FleetService;
  readonly assignments: AssignmentService;
  readonly links: DeviceLinks;
  readonly attempts: AttemptHub;
  readonly config: Config;
  /** Logs a fault of ours that ends nothing. */
  readonly report: (error: unknown) => void;
}

/** The way back to the device: a stream, or the answer of the next Sync. */
export interface Transport {
  /** False when the device does not keep up. */
  write(message: SessionResponse): boolean;
  end(reason: string): void;
}

/** One device's session, whatever carries it. Opened by Hello; a newer Hello of the same device ends it. */
export class DeviceSession implements DeviceLink {
  private ended = false;

  private constructor(
    private readonly features: Features,
    private readonly transport: Transport,
    readonly deviceId: string,
    readonly epoch: bigint,
  ) {}

  static async open(features: Features, deviceId: string, hello: Hello, transport: Transport): Promise<DeviceSession> {
    const { fleet, links, assignments, config, report } = features;
    const device = await fleet.hello(deviceId, {
      bootId: hello.bootId.slice(0, 100),
      agentVersion: hello.agentVersion.slice(0, 100),
      capabilities: capabilitiesOf(hello.capabilities),
      observed: observedOf(hello.observed),
    });
    const session = new DeviceSession(features, transport, deviceId, device.epoch);
    transport.write({
      message: {
        $case: 'welcome',
        value: {
          epoch: device.epoch,
          deviceId,
          heartbeatMs: config.heartbeatMs,
          leaseMs: config.leaseMs,
          reconnectJitterMs: reconnectJitterMs(links.all().length),
          serverTimeUnixMs: BigInt(Date.now()),
        },
      },
    });
    // Before the session can be sent to, so that a new document is sent once: by the nudge below.
    const stored = Number(hello.storedGeneration);
    const newest = await assignments.evaluate(deviceId, stored).catch((error: unknown) => {
      // A device must get its session although its assignment cannot be decided: it keeps what it runs.
      report(error);
      return null;
    });
    if (!links.open(session)) throw new DomainError('unavailable', `device ${deviceId} has opened a newer session`);
    if (newest && newest.generation > stored) await assignments.nudge(deviceId);
    return session;
  }

  /** Messages of one session in their order. Those of a session that was replaced have no effect. */
  async accept(request: SessionRequest): Promise<void> {
    const { fleet, links, attempts } = this.features;
    if (!links.isCurrent(this)) return;
    const message = request.message;
    switch (message?.$case) {
      case 'hello':
        throw new DomainError('invalid-argument', 'Hello may come only once in a session');
      case 'heartbeat':
        fleet.beat(this.deviceId, this.epoch, beatOf(message.value));
        this.transport.write({
          message: { $case: 'heartbeatAck', value: { sequence: message.value.sequence, serverTimeUnixMs: BigInt(Date.now()) } },
        });
        return;
      case 'report':
        await fleet.report(this.deviceId, this.epoch, phaseReportOf(message.value));
        this.transport.write({ message: { $case: 'reportAck', value: { sequence: message.value.sequence } } });
        return;
      case 'inferenceEvent': {
        const event = attemptEventOf(message.value);
        if (event) attempts.deliver(this.deviceId, message.value.attemptId, event);
        return;
      }
      case undefined:
        return; // A message of a newer protocol.
    }
  }

  send(message: Outbound): boolean {
    return !this.ended && this.transport.write(toWire(message));
  }

  /** Called by the control plane: ends the stream towards the device. */
  close(reason: string): void {
    if (this.ended) return;
    this.transport.end(reason);
    this.finish(reason);
  }

  /** Called when the stream has ended, by whomever. Safe to repeat. */
  finish(reason: string): void {
    if (this.ended) return;
    this.ended = true;
    this.features.links.closed(this);
    this.features.fleet.disconnected(this.deviceId, this.epoch);
    this.features.attempts.lost(this.deviceId, this.epoch, reason);
  }
}

/** Grows with the fleet, so that a restart of the control plane is not met by everybody at once. */
const reconnectJitterMs = (devices: number): number => 500 * (Math.max(0, Math.ceil(Math.log2(Math.max(1, devices) / 128))) + 1);
