import { randomUUID } from 'node:crypto';
import { Injectable, Logger, type OnModuleDestroy } from '@nestjs/common';
import { HOLDER_RETURN_MS } from '../domain/presence.js';
import { ReplicaRepository, type ReplicaRecord } from './replica.repository.js';

const RENEW_MS = 2_000;
/** Five renewals. */
export const ALIVE_MS = 10_000;
const RELEASE_MS = 250;

/** This process among the replicas of the control plane: its own row, the others as last read, and the sessions that have ended here. */
@Injectable()
export class Replicas implements OnModuleDestroy {
  /** New at each start. */
  readonly id = randomUUID();
  private readonly log = new Logger('replicas');
  private known = new Map<string, ReplicaRecord>();
  private readonly ended = new Map<string, { deviceId: string; epoch: bigint; lastBeatAt: Date }>();
  private timers: NodeJS.Timeout[] = [];
  private joined = false;

  constructor(private readonly replicas: ReplicaRepository) {}

  /** Called once the device port is open. */
  async join(address: string): Promise<void> {
    await this.replicas.join(this.id, address);
    this.joined = true;
    await this.look();
    const guard = (work: () => Promise<void>) => (): void => void work().catch((error: unknown) => this.log.warn(String(error)));
    this.timers = [
      setInterval(
        guard(() => this.renew()),
        RENEW_MS,
      ),
      setInterval(
        guard(() => this.release()),
        RELEASE_MS,
      ),
    ];
    for (const timer of this.timers) timer.unref();
    this.log.log(`replica ${this.id} at ${address}, beside ${this.peers().length} others`);
  }

  /** What this process held stays written as its own: until they have had the time to come back, nobody calls those devices gone. */
  async onModuleDestroy(): Promise<void> {
    for (const timer of this.timers) clearInterval(timer);
    if (this.joined) await this.replicas.end(this.id);
  }

  /** The other replicas that live. */
  peers(): ReplicaRecord[] {
    return [...this.known.values()].filter(isAlive);
  }

  /** Another replica, alive or not, as long as it is remembered. */
  other(id: string): ReplicaRecord | undefined {
    return this.known.get(id);
  }

  /** Ids of all other replicas that are remembered. */
  others(): string[] {
    return [...this.known.keys()];
  }

  isAlive(id: string): boolean {
    const other = this.known.get(id);
    return id === this.id || (other !== undefined && isAlive(other));
  }

  /** A session has ended here. Told to the database soon, together with others. */
  released(deviceId: string, epoch: bigint, lastBeatAt: Date): void {
    this.ended.set(deviceId, { deviceId, epoch, lastBeatAt });
  }

  private async renew(): Promise<void> {
    await this.replicas.renew(this.id);
    await this.look();
  }

  private async look(): Promise<void> {
    const records = await this.replicas.list();
    this.known = new Map(records.filter((record) => record.id !== this.id).map((record) => [record.id, record]));
  }

  private async release(): Promise<void> {
    const sessions = [...this.ended.values()];
    if (sessions.length === 0) return;
    this.ended.clear();
    try {
      await this.replicas.release(this.id, sessions);
    } catch (error) {
      for (const session of sessions) if (!this.ended.has(session.deviceId)) this.ended.set(session.deviceId, session);
      throw error;
    }
  }
}

const isAlive = ({ ended, silentMs }: ReplicaRecord): boolean => !ended && silentMs < ALIVE_MS;

/** How long a replica that ended is remembered. */
export const REMEMBERED_MS = 10 * HOLDER_RETURN_MS;
