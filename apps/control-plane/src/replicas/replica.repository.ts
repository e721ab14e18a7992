import { Injectable } from '@nestjs/common';
import { fenced, type Fence } from '../database/fence.js';
import { PrismaService } from '../database/prisma.service.js';

export interface ReplicaRecord {
  readonly id: string;
  /** host:port. */
  readonly address: string;
  /** Since its last renewal, on the database's clock. */
  readonly silentMs: number;
  readonly ended: boolean;
}

/** A device whose session a replica holds. */
export interface HeldDevice {
  readonly deviceId: string;
  readonly tenantId: string;
  readonly replicaId: string;
  readonly epoch: bigint;
  readonly observed: unknown;
}

/** Replicas, what they hold and who leads, in PostgreSQL. All moments are the database's, since replicas' clocks differ. */
@Injectable()
export class ReplicaRepository {
  /** Replicas serve all tenants. */
  private readonly database: PrismaService['system'];

  constructor(prisma: PrismaService) {
    this.database = prisma.system;
  }

  /** Whoever had this address before is gone: the address is ours. */
  async join(id: string, address: string): Promise<void> {
    await this.database.$transaction([
      this.database
        .$executeRaw`UPDATE replicas SET ended_at = timezone('utc', now()) WHERE address = ${address} AND id <> ${id} AND ended_at IS NULL`,
      this.database
        .$executeRaw`INSERT INTO replicas (id, address, started_at, renewed_at) VALUES (${id}, ${address}, timezone('utc', now()), timezone('utc', now()))`,
    ]);
  }

  async renew(id: string): Promise<void> {
    await this.database.$executeRaw`UPDATE replicas SET renewed_at = timezone('utc', now()), ended_at = NULL WHERE id = ${id}`;
  }

  async end(id: string): Promise<void> {
    await this.database.$executeRaw`UPDATE replicas SET ended_at = timezone('utc', now()), renewed_at = timezone('utc', now()) WHERE id = ${id}`;
  }

  async list(): Promise<ReplicaRecord[]> {
    const rows = await this.database.$queryRaw<{ id: string; address: string; silent_ms: number; ended: boolean }[]>`
      SELECT id, address, (extract(epoch FROM timezone('utc', now()) - renewed_at) * 1000)::float8 AS silent_ms, ended_at IS NOT NULL AS ended FROM replicas`;
    return rows.map((row) => ({ id: row.id, address: row.address, silentMs: row.silent_ms, ended: row.ended }));
  }

  /** Forgets replicas that have been silent for so long, and that they ever held a device. Returns their ids. */
  async forget(silentMs: number, fence: Fence): Promise<string[]> {
    return fenced(this.database, fence, async (tx) => {
      const gone = await tx.$queryRaw<{ id: string }[]>`
        DELETE FROM replicas WHERE renewed_at < timezone('utc', now()) - make_interval(secs => ${silentMs / 1_000}::float8) RETURNING id`;
      const ids = gone.map((row) => row.id);
      if (ids.length > 0) await tx.device.updateMany({ where: { replicaId: { in: ids } }, data: { replicaId: null } });
      return ids;
    });
  }

  /** Sessions that have ended here. A device that has opened a newer one elsewhere stays as it is. */
  async release(replicaId: string, sessions: readonly { deviceId: string; epoch: bigint; lastBeatAt: Date }[]): Promise<void> {
    const [ids, epochs, seen] = [sessions.map((one) => one.deviceId), sessions.map((one) => one.epoch), sessions.map((one) => one.lastBeatAt)];
    await this.database.$executeRaw`
      UPDATE devices SET replica_id = NULL, last_seen_at = greatest(last_seen_at, ended.seen)
      FROM unnest(${ids}::text[], ${epochs}::bigint[], ${seen}::timestamp[]) AS ended (id, epoch, seen)
      WHERE devices.id = ended.id AND devices.epoch = ended.epoch AND devices.replica_id = ${replicaId}`;
  }

  /** Of these devices the ones that this replica holds by the database's word. */
  async held(replicaId: string, deviceIds: readonly string[]): Promise<Set<string>> {
    const rows = await this.database.$queryRaw<
      { id: string }[]
    >`SELECT id FROM devices WHERE replica_id = ${replicaId} AND id = ANY(${[...deviceIds]}::text[])`;
    return new Set(rows.map((row) => row.id));
  }

  async heldBy(replicaIds: readonly string[]): Promise<HeldDevice[]> {
    if (replicaIds.length === 0) return [];
    const rows = await this.database.device.findMany({
      where: { replicaId: { in: [...replicaIds] } },
      select: { id: true, tenantId: true, replicaId: true, epoch: true, observed: true },
    });
    return rows.map((row) => ({ deviceId: row.id, tenantId: row.tenantId, replicaId: row.replicaId!, epoch: row.epoch, observed: row.observed }));
  }

  /** Takes the lease, or keeps it; null while another living replica has it. */
  async lead(lease: string, holder: string, ttlMs: number): Promise<Fence | null> {
    const ttl = ttlMs / 1_000;
    const rows = await this.database.$queryRaw<{ token: bigint }[]>`
      INSERT INTO leader_leases AS l (name, token, holder, expires_at)
      VALUES (${lease}, 1, ${holder}, timezone('utc', now()) + make_interval(secs => ${ttl}::float8))
      ON CONFLICT (name) DO UPDATE SET
        token = CASE WHEN l.holder = ${holder} THEN l.token ELSE l.token + 1 END,
        holder = ${holder},
        expires_at = timezone('utc', now()) + make_interval(secs => ${ttl}::float8)
      WHERE l.holder = ${holder} OR l.expires_at < timezone('utc', now())
        OR NOT EXISTS (SELECT 1 FROM replicas r WHERE r.id = l.holder AND r.ended_at IS NULL)
      RETURNING token`;
    return rows[0] ? { lease, token: rows[0].token } : null;
  }

  async resign(lease: string, holder: string): Promise<void> {
    await this.database
      .$executeRaw`UPDATE leader_leases SET expires_at = timezone('utc', now()) - interval '1 second' WHERE name = ${lease} AND holder = ${holder}`;
  }
}
