import { hostname } from 'node:os';
import { constants } from 'node:crypto';
import { ChannelCredentials, Server, ServerCredentials } from '@grpc/grpc-js';
import { Inject, Injectable, Logger, type BeforeApplicationShutdown, type OnApplicationBootstrap } from '@nestjs/common';
import { Gauge } from 'prom-client';
import { ArtifactServiceService, DeviceServiceService, FallbackServiceService, ReplicaServiceService } from '@matfleet/protocol';
import { AssignmentService } from '../assignment/assignment.service.js';
import { CatalogService } from '../catalog/catalog.service.js';
import { CONFIG, isLoopback, type Config } from '../config.js';
import { reconnectJitterMs } from '../domain/reconnect.js';
import { Endpoints } from '../endpoints.js';
import { DeviceLinks, type DeviceLink } from '../fleet/device-links.js';
import { FleetService } from '../fleet/fleet.service.js';
import { Leases } from '../fleet/leases.js';
import { Authority } from '../identity/authority.js';
import type { ServerIdentity } from '../identity/certificate-authority.js';
import { EnrolmentService } from '../identity/enrolment.service.js';
import { IdentityService } from '../identity/identity.service.js';
import { AttemptHub } from '../inference/attempt-hub.js';
import { FleetAnswers } from '../inference/fleet-answers.js';
import { ReachableDevices } from '../inference/reachable-devices.js';
import { Leadership } from '../replicas/leadership.js';
import { NudgeService } from '../replicas/nudges.js';
import { Replicas } from '../replicas/replicas.service.js';
import { Metrics } from '../telemetry.js';
import { TrustService } from '../trust/trust.service.js';
import { artifactService } from './artifact-service.js';
import { CONNECTION_LIMITS, guardConnections } from './connection-guard.js';
import { deviceService } from './device-service.js';
import { fallbackService } from './fallback-service.js';
import { Pace } from './pace.js';
import { PeerLinks } from './peer-links.js';
import { peerService } from './peer-service.js';

const SHUTDOWN_MS = 1_000;
/** Answers that devices give to other replicas are waited for so long. */
const ATTEMPTS_MS = 2_000;
const RENEW_CHECK_MS = 12 * 3_600_000;
const RENEW_BEFORE_MS = 30 * 24 * 3_600_000;
const MESSAGE_BYTES_MAX = 1 << 20;
const METADATA_BYTES_MAX = 16 << 10;
const STREAMS_PER_CONNECTION_MAX = 64;
const HANDSHAKE_TIMEOUT_MS = 10_000;
/** A connection without a call. */
const IDLE_MS = 5 * 60_000;
/** Finds connections that are gone; a session's own beats tell earlier that its device is. */
const KEEPALIVE_MS = 120_000;

/** grpc-js hands these to the HTTP/2 server; of the metadata it knows no limit of its own. */
const SECURE_OPTIONS = {
  requestCert: true,
  rejectUnauthorized: false,
  handshakeTimeout: HANDSHAKE_TIMEOUT_MS,
  settings: { maxConcurrentStreams: STREAMS_PER_CONNECTION_MAX, maxHeaderListSize: METADATA_BYTES_MAX },
};

/** Asks for a client certificate without demanding one: enrolment has none yet, and every other method checks for itself. */
class FleetCredentials extends ServerCredentials {
  constructor(
    private readonly caPem: string,
    identity: ServerIdentity,
  ) {
    super(SECURE_OPTIONS, contextOf(caPem, identity));
  }

  renew(identity: ServerIdentity): void {
    this.updateSecureContextOptions(contextOf(this.caPem, identity));
  }

  override _equals(other: ServerCredentials): boolean {
    return this === other;
  }
}

const contextOf = (caPem: string, identity: ServerIdentity) => ({
  ca: caPem,
  cert: identity.certificatePem,
  key: identity.keyPem,
  minVersion: 'TLSv1.2' as const,
  secureOptions: constants.SSL_OP_NO_RENEGOTIATION,
});

/** The port that devices dial: sessions and artifacts over TLS. */
@Injectable()
export class GatewayServer implements OnApplicationBootstrap, BeforeApplicationShutdown {
  private readonly log = new Logger('gateway');
  private server: Server | undefined;
  private renewal: NodeJS.Timeout | undefined;
  private peerLinks: PeerLinks | undefined;
  private readonly pace = new Pace();

  constructor(
    @Inject(CONFIG) private readonly config: Config,
    private readonly endpoints: Endpoints,
    private readonly authority: Authority,
    private readonly enrolments: EnrolmentService,
    private readonly identity: IdentityService,
    private readonly catalog: CatalogService,
    private readonly fleet: FleetService,
    private readonly leases: Leases,
    private readonly assignments: AssignmentService,
    private readonly links: DeviceLinks,
    private readonly attempts: AttemptHub,
    private readonly answers: FleetAnswers,
    private readonly devices: ReachableDevices,
    private readonly metrics: Metrics,
    private readonly replicas: Replicas,
    private readonly leadership: Leadership,
    private readonly nudges: NudgeService,
    private readonly trust: TrustService,
  ) {}

  async onApplicationBootstrap(): Promise<void> {
    const insecure = this.config.insecureDevicePort;
    if (insecure && !isLoopback(this.config.deviceHost))
      throw new Error(`a device port without TLS is for loopback only, not for ${this.config.deviceHost}`);
    const report = (error: unknown): void => this.log.error(error);
    const share = (): number => this.pace.share;
    const { fleet, leases, assignments, links, attempts, answers, devices, config, identity, enrolments, catalog, metrics } = this;
    new Gauge({
      name: 'matfleet_sessions',
      help: 'Open device sessions of this process.',
      registers: [metrics.registry],
      collect() {
        this.set(links.count);
      },
    });
    new Gauge({
      name: 'matfleet_admission_share',
      help: 'Share of the connections, sessions and enrolments it could take that this process takes; below 1 it has fallen behind.',
      registers: [metrics.registry],
      collect() {
        this.set(share());
      },
    });
    const server = new Server({
      'grpc.max_receive_message_length': MESSAGE_BYTES_MAX,
      'grpc.max_concurrent_streams': STREAMS_PER_CONNECTION_MAX,
      'grpc.keepalive_time_ms': KEEPALIVE_MS,
      'grpc.keepalive_timeout_ms': 20_000,
      'grpc.max_connection_idle_ms': IDLE_MS,
      'grpc.enable_channelz': 0,
    });
    server.addService(
      DeviceServiceService,
      deviceService({ features: { fleet, leases, assignments, links, attempts, config, identity, report }, enrolments, insecure, metrics, share }),
    );
    server.addService(ReplicaServiceService, peerService(links, attempts, insecure));
    server.addService(FallbackServiceService, fallbackService({ answers, devices, identity, insecure, report }));
    server.addService(ArtifactServiceService, artifactService({ catalog, identity, trust: this.trust, insecure, report }));
    const credentials = insecure ? ServerCredentials.createInsecure() : await this.secure();
    const { deviceHost: host, devicePort } = this.config;
    const address = (name: string, port: number): string => (name.includes(':') ? `[${name}]:${port}` : `${name}:${port}`);
    const port = await new Promise<number>((resolve, reject) =>
      server.bindAsync(address(host, devicePort), credentials, (error, bound) => (error ? reject(error) : resolve(bound))),
    );
    guardConnections(server, CONNECTION_LIMITS, (reason) => metrics.refusedSessions.inc({ reason }), share);
    this.server = server;
    const publicHost = this.config.devicePublicHost ?? (host === '0.0.0.0' || host === '::' ? hostname() : host);
    this.endpoints.deviceUrl = `${insecure ? 'http' : 'https'}://${address(publicHost, port)}`;
    if (insecure) this.log.warn('the device port has no TLS: anybody on this machine can be any device');
    this.log.log(`devices are served at ${this.endpoints.deviceUrl}`);
    await this.joinReplicas(address(host === '0.0.0.0' || host === '::' ? hostname() : host, port));
  }

  /** Devices are told first, so that they come back to another process, or to the next one, at different moments. */
  async beforeApplicationShutdown(): Promise<void> {
    clearInterval(this.renewal);
    this.pace.stop();
    this.peerLinks?.close();
    const server = this.server;
    if (!server) return;
    const withinMs = reconnectJitterMs(this.links.count);
    const until = performance.now() + ATTEMPTS_MS;
    const isBusy = (link: DeviceLink): boolean => performance.now() < until && this.attempts.runningOn(link.deviceId) > 0;
    for (let rest = this.links.all(); rest.length > 0;) {
      const busy = new Set(rest.filter(isBusy));
      for (const link of rest)
        if (!busy.has(link)) {
          link.send({ kind: 'drain', withinMs, reason: 'the control plane shuts down' });
          link.close('the control plane shuts down');
        }
      rest = [...busy];
      if (rest.length > 0) await new Promise((resolve) => setTimeout(resolve, 50));
    }
    await new Promise<void>((resolve) => {
      const late = setTimeout(() => {
        server.forceShutdown();
        resolve();
      }, SHUTDOWN_MS);
      server.tryShutdown(() => {
        clearTimeout(late);
        resolve();
      });
    });
  }

  /** From here on the other replicas know this one, and one of them all leads. */
  private async joinReplicas(ownAddress: string): Promise<void> {
    const { replicaAddress, insecureDevicePort } = this.config;
    const identity = insecureDevicePort ? undefined : await this.authority.ca.issueReplica(new Date());
    this.peerLinks = new PeerLinks(
      this.attempts,
      () =>
        identity
          ? ChannelCredentials.createSsl(
              Buffer.from(this.authority.ca.certificatePem),
              Buffer.from(identity.keyPem),
              Buffer.from(identity.certificatePem),
            )
          : ChannelCredentials.createInsecure(),
      (known) => this.replicas.peers().some((peer) => peer.address === known),
    );
    this.links.via = this.peerLinks.link;
    await this.replicas.join(replicaAddress ?? ownAddress);
    await this.leases.recall(this.replicas.peers().map((peer) => peer.id));
    this.nudges.start();
    await this.leadership.start();
  }

  private async secure(): Promise<ServerCredentials> {
    const { deviceHost, devicePublicHost, replicaAddress } = this.config;
    const replicaHost = replicaAddress?.replace(/:\d+$/, '').replace(/^\[|\]$/g, '');
    const more = [devicePublicHost, replicaHost].filter((host) => host !== undefined);
    const hosts = ['localhost', '127.0.0.1', '::1', hostname(), deviceHost, ...more];
    let identity = await this.authority.ca.issueServer(hosts, new Date());
    const credentials = new FleetCredentials(this.authority.ca.certificatePem, identity);
    this.renewal = setInterval(() => {
      if (identity.expiresAt.getTime() - Date.now() > RENEW_BEFORE_MS) return;
      this.authority.ca.issueServer(hosts, new Date()).then(
        (next) => {
          identity = next;
          credentials.renew(next);
          this.log.log(`the device port's certificate was renewed until ${next.expiresAt.toISOString()}`);
        },
        (error: unknown) => this.log.error(error),
      );
    }, RENEW_CHECK_MS);
    this.renewal.unref();
    return credentials;
  }
}
