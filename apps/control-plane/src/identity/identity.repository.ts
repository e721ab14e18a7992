import { Injectable } from '@nestjs/common';
import type { Actor } from '../audit/audit.js';
import { appendAudit } from '../audit/audit.repository.js';
import { Batcher } from '../database/batcher.js';
import { PrismaService } from '../database/prisma.service.js';
import { type BootHistory, judgeBoot } from '../domain/clones.js';
import { Prisma } from '../generated/prisma/client.js';
import type { DeviceKeyView, Standing, StandingView, TombstoneView } from './identity.js';

const TOMBSTONES_SHOWN_MAX = 1_000;
const KEYS_SHOWN_MAX = 100;
const OFFERED_MAX = 4;
/** Many devices may wait for the audit log's lock at once. */
const PATIENT = { maxWait: 10_000, timeout: 15_000 };

export interface IdentityRow {
  readonly tenantId: string;
  readonly name: string;
  readonly publicKeyHash: string;
  readonly standing: Standing;
  readonly standingReason: string | null;
  readonly boots: BootHistory | null;
}

interface Boot {
  readonly deviceId: string;
  readonly bootId: string;
  readonly windowMs: number;
}

interface KeyRow {
  readonly deviceId: string;
  readonly state: string;
  /** Since when it is in this state. */
  readonly createdAt: Date;
  readonly reusedAt: Date | null;
}

/** Keys, standing and tombstones of devices. Each change writes its audit record in the same transaction. */
@Injectable()
export class IdentityRepository {
  private readonly finds = new Batcher<string, IdentityRow | null>(async (ids) => {
    const rows = await this.prisma.$queryRaw<(IdentityRow & { id: string })[]>`
      SELECT id, tenant_id AS "tenantId", name, public_key_hash AS "publicKeyHash", standing, standing_reason AS "standingReason", boots FROM devices WHERE id = ANY(${ids})`;
    const byId = new Map(rows.map((row) => [row.id, row]));
    return ids.map((id) => byId.get(id) ?? null);
  });

  private readonly boots = new Batcher<Boot, string | null>(
    (boots) => this.judgeBoots(boots),
    ({ deviceId }) => deviceId,
  );
  private readonly keyFinds = new Batcher<string, KeyRow | null>(async (hashes) => {
    const select = { publicKeyHash: true, deviceId: true, state: true, createdAt: true, reusedAt: true } as const;
    const rows = await this.prisma.deviceKey.findMany({ where: { publicKeyHash: { in: [...hashes] } }, select });
    const byHash = new Map(rows.map((row) => [row.publicKeyHash, row]));
    return hashes.map((hash) => byHash.get(hash) ?? null);
  });

  constructor(private readonly prisma: PrismaService) {}

  /** Asked at every connection: in batches. */
  find(deviceId: string): Promise<IdentityRow | null> {
    return this.finds.add(deviceId);
  }

  /** Asked at every enrolment: in batches. */
  key(publicKeyHash: string): Promise<KeyRow | null> {
    return this.keyFinds.add(publicKeyHash);
  }

  async keys(deviceId: string): Promise<DeviceKeyView[]> {
    const [device, others] = await Promise.all([
      this.prisma.device.findUnique({ where: { id: deviceId }, select: { publicKeyHash: true } }),
      this.prisma.deviceKey.findMany({ where: { deviceId }, orderBy: { createdAt: 'desc' }, take: KEYS_SHOWN_MAX }),
    ]);
    const accepted = device ? [{ publicKeyHash: device.publicKeyHash, state: 'accepted' as const, createdAt: null, reusedAt: null }] : [];
    return [...accepted, ...others.map((key) => ({ ...key, state: key.state as 'offered' | 'retired' }))];
  }

  /** Lets the device use another key: from its first use on it is the accepted one. False when the key is known already, to whomever. */
  async offerKey(deviceId: string, publicKeyHash: string, actor: Actor): Promise<boolean> {
    // A key is one device's in the whole installation.
    if (await this.isKnown(publicKeyHash)) return false;
    return this.transaction(async (tx) => {
      // The device's row is the lock, so that two offers do not count past each other.
      await tx.$queryRaw`SELECT id FROM devices WHERE id = ${deviceId} FOR UPDATE`;
      const known =
        (await tx.device.count({ where: { publicKeyHash } })) +
        (await tx.deviceKey.count({ where: { publicKeyHash } })) +
        (await tx.enrolment.count({ where: { publicKeyHash } }));
      if (known > 0) return false;
      const surplus = await tx.deviceKey.findMany({ where: { deviceId, state: 'offered' }, orderBy: { createdAt: 'desc' }, skip: OFFERED_MAX - 1 });
      await tx.deviceKey.deleteMany({ where: { publicKeyHash: { in: surplus.map((key) => key.publicKeyHash) } } });
      await tx.deviceKey.create({ data: { publicKeyHash, deviceId, state: 'offered' } });
      await appendAudit(tx, { actor, action: 'device.key-offered', subject: `device:${deviceId}`, after: { publicKeyHash } });
      return true;
    });
  }

  /** An offered key was used: it is the accepted one now, and the one before retires. Safe to repeat. */
  async acceptKey(deviceId: string, publicKeyHash: string): Promise<void> {
    await this.transaction(async (tx) => {
      const [device] = await tx.$queryRaw<{ hash: string }[]>`SELECT public_key_hash AS hash FROM devices WHERE id = ${deviceId} FOR UPDATE`;
      if (!device || device.hash === publicKeyHash) return;
      const { count } = await tx.deviceKey.deleteMany({ where: { publicKeyHash, deviceId, state: 'offered' } });
      if (count === 0) return;
      await tx.device.update({ where: { id: deviceId }, data: { publicKeyHash } });
      await tx.deviceKey.create({ data: { publicKeyHash: device.hash, deviceId, state: 'retired' } });
      await appendAudit(tx, {
        actor: `device:${deviceId}`,
        action: 'device.key-accepted',
        subject: `device:${deviceId}`,
        before: { publicKeyHash: device.hash },
        after: { publicKeyHash },
      });
    });
  }

  /** Written down once for each key, however often it is tried. */
  async noteRetiredUse(deviceId: string, publicKeyHash: string): Promise<void> {
    await this.transaction(async (tx) => {
      const where = { publicKeyHash, state: 'retired', reusedAt: null };
      if ((await tx.deviceKey.updateMany({ where, data: { reusedAt: new Date() } })).count === 0) return;
      const entry = { actor: `device:${deviceId}`, action: 'device.retired-key-used', subject: `device:${deviceId}` } as const;
      await appendAudit(tx, { ...entry, after: { publicKeyHash } });
    });
  }

  /** Null for an unknown device. Nothing is written when the standing is the same already. */
  async setStanding(deviceId: string, standing: Standing, reason: string | null, actor: Actor): Promise<StandingView | null> {
    return this.transaction(async (tx) => {
      const [device] = await tx.$queryRaw<{ name: string; standing: Standing; reason: string | null }[]>`
        SELECT name, standing, standing_reason AS reason FROM devices WHERE id = ${deviceId} FOR UPDATE`;
      if (!device) return null;
      if (device.standing !== standing) await write(tx, deviceId, device, { standing, reason }, actor);
      return { deviceId, name: device.name, standing, reason: device.standing === standing ? device.reason : reason };
    });
  }

  /** A process that did not hold the last session says Hello. Answers why the device is in quarantine from now on, or null. In batches. */
  boot(deviceId: string, bootId: string, windowMs: number): Promise<string | null> {
    return this.boots.add({ deviceId, bootId, windowMs });
  }

  private judgeBoots(wanted: readonly Boot[]): Promise<(string | null)[]> {
    return this.transaction(async (tx) => {
      const rows = await tx.$queryRaw<{ id: string; standing: Standing; reason: string | null; boots: BootHistory | null; nowMs: number }[]>`
        SELECT id, standing, standing_reason AS reason, boots, extract(epoch FROM now())::float8 * 1000 AS "nowMs"
        FROM devices WHERE id = ANY(${wanted.map(({ deviceId }) => deviceId)}) ORDER BY id FOR UPDATE`;
      const devices = new Map(rows.map((row) => [row.id, row]));
      const judged = wanted.flatMap(({ deviceId, bootId, windowMs }) => {
        const device = devices.get(deviceId);
        return device ? [{ device, ...judgeBoot(device.boots, bootId, device.nowMs, windowMs) }] : [];
      });
      const histories = JSON.stringify(judged.map(({ device, history }) => ({ id: device.id, boots: history })));
      await tx.$executeRaw`
        UPDATE devices d SET boots = b.boots FROM jsonb_to_recordset(${histories}::jsonb) AS b(id text, boots jsonb) WHERE d.id = b.id`;
      for (const { device, clone } of judged)
        if (clone && device.standing === 'accepted') await write(tx, device.id, device, { standing: 'quarantined', reason: clone }, 'control-plane');
      const clones = new Map(judged.map(({ device, clone }) => [device.id, clone]));
      return wanted.map(({ deviceId }) => clones.get(deviceId) ?? null);
    });
  }

  /** Removes the device and leaves its tombstone; its keys are never accepted again. Null for an unknown device. */
  async decommission(deviceId: string, { wipe, reason }: { wipe: boolean; reason: string }, actor: Actor): Promise<TombstoneView | null> {
    return this.transaction(async (tx) => {
      await tx.$queryRaw`SELECT id FROM devices WHERE id = ${deviceId} FOR UPDATE`;
      const device = await tx.device.findUnique({ where: { id: deviceId }, select: { name: true, publicKeyHash: true, standing: true } });
      if (!device) return null;
      await tx.$executeRaw`
        INSERT INTO tombstones (device_id, name, reason, wipe, created_at) VALUES (${deviceId}, ${device.name}, ${reason}, ${wipe}, ${databaseNow})`;
      await tx.deviceKey.updateMany({ where: { deviceId }, data: { state: 'retired' } });
      await tx.deviceKey.create({ data: { publicKeyHash: device.publicKeyHash, deviceId, state: 'retired' } });
      await tx.device.delete({ where: { id: deviceId } });
      await appendAudit(tx, { actor, action: 'device.decommissioned', subject: `device:${deviceId}`, before: device, after: { wipe, reason } });
      return tx.tombstone.findUnique({ where: { deviceId } });
    });
  }

  tombstone(deviceId: string): Promise<TombstoneView | null> {
    return this.prisma.tombstone.findUnique({ where: { deviceId } });
  }

  /** Newest first; at most 1000. */
  tombstones(): Promise<TombstoneView[]> {
    return this.prisma.tombstone.findMany({ orderBy: { createdAt: 'desc' }, take: TOMBSTONES_SHOWN_MAX });
  }

  /** The device says that models and keys are gone. Safe to repeat. */
  async wiped(deviceId: string): Promise<void> {
    await this.transaction(async (tx) => {
      if ((await tx.tombstone.updateMany({ where: { deviceId, wipe: true, wipedAt: null }, data: { wipedAt: new Date() } })).count === 0) return;
      await appendAudit(tx, { actor: `device:${deviceId}`, action: 'device.wiped', subject: `device:${deviceId}` });
    });
  }

  /** Devices that lost their standing or were decommissioned within the last `sinceMs`, on the database's clock. */
  refusedSince(sinceMs: number): Promise<{ deviceId: string }[]> {
    return this.prisma.$queryRaw`
      SELECT id AS "deviceId" FROM devices WHERE standing <> 'accepted' AND standing_at > ${since(sinceMs)}
      UNION ALL SELECT device_id FROM tombstones WHERE created_at > ${since(sinceMs)}`;
  }

  private async isKnown(publicKeyHash: string): Promise<boolean> {
    const { device, deviceKey } = this.prisma.system;
    return (await Promise.all([device.count({ where: { publicKeyHash } }), deviceKey.count({ where: { publicKeyHash } })])).some(
      (count) => count > 0,
    );
  }

  private transaction<T>(work: (tx: Prisma.TransactionClient) => Promise<T>): Promise<T> {
    return this.prisma.$transaction(work, PATIENT);
  }
}

/** The columns hold UTC without a zone. One clock for all replicas: the database's. */
const databaseNow = Prisma.sql`now() AT TIME ZONE 'UTC'`;
const since = (ms: number): Prisma.Sql => Prisma.sql`${databaseNow} - make_interval(secs => ${ms / 1_000})`;

const ACTIONS = { accepted: 'device.released', quarantined: 'device.quarantined', revoked: 'device.revoked' } as const;

interface StandingChange {
  readonly standing: Standing;
  readonly reason: string | null;
}

/** A released device begins with a clean history: what was seen before the operator's decision does not count again. */
async function write(tx: Prisma.TransactionClient, deviceId: string, before: StandingChange, after: StandingChange, actor: Actor): Promise<void> {
  const { standing, reason } = after;
  await tx.$executeRaw`
    UPDATE devices SET standing = ${standing}, standing_reason = ${reason}, standing_at = ${databaseNow},
                       boots = CASE WHEN ${standing} = 'accepted' THEN NULL ELSE boots END
    WHERE id = ${deviceId}`;
  const shown = { standing: before.standing, reason: before.reason };
  await appendAudit(tx, { actor, action: ACTIONS[standing], subject: `device:${deviceId}`, before: shown, after: { standing, reason } });
}
