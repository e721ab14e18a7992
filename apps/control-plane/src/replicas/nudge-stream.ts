import { Redis } from 'ioredis';

/** Entries that a replica may leave unread before the oldest go; the sweeps find what went with them. */
const STREAM_MAX = 10_000;
const READ_COUNT = 500;
const BLOCK_MS = 2_000;
const RETRY_MS = 500;
/** A stream outlives its replica by so long. */
const EXPIRE_S = 3_600;

/** One Redis stream a replica, to which the others append. Everything here may fail: what is lost costs time, not truth. */
export class NudgeStream {
  private readonly writer: Redis;
  private readonly reader: Redis;
  private closed = false;
  private reading: Promise<void> | undefined;

  constructor(
    redisUrl: string,
    private readonly onError: (error: Error) => void,
  ) {
    // Nothing waits for a Redis that is away.
    const options = { enableOfflineQueue: false, maxRetriesPerRequest: 1, connectTimeout: 5_000, commandTimeout: 2_000 };
    const retryStrategy = (attempt: number): number => Math.min(attempt * 100, 1_000);
    this.writer = new Redis(redisUrl, { ...options, retryStrategy });
    this.reader = new Redis(redisUrl, { ...options, commandTimeout: BLOCK_MS + 3_000, retryStrategy });
    for (const connection of [this.writer, this.reader]) connection.on('error', onError);
  }

  /** False when Redis did not take it. */
  async append(replicaIds: readonly string[], text: string): Promise<boolean> {
    const pipeline = this.writer.pipeline();
    for (const id of replicaIds) pipeline.xadd(keyOf(id), 'MAXLEN', '~', STREAM_MAX, '*', 'n', text).expire(keyOf(id), EXPIRE_S);
    try {
      const results = await pipeline.exec();
      return results?.every(([error]) => error === null) ?? false;
    } catch (error) {
      this.onError(error as Error);
      return false;
    }
  }

  /** Reads this replica's stream from its beginning, until `close`. */
  read(replicaId: string, hear: (text: string) => void): void {
    this.reading = this.readLoop(replicaId, hear);
  }

  async close(replicaId: string): Promise<void> {
    this.closed = true;
    await this.writer.del(keyOf(replicaId)).catch(() => undefined);
    this.writer.disconnect();
    this.reader.disconnect();
    await this.reading;
  }

  private async readLoop(replicaId: string, hear: (text: string) => void): Promise<void> {
    let last = '0';
    while (!this.closed) {
      try {
        const answer = await this.reader.xread('COUNT', READ_COUNT, 'BLOCK', BLOCK_MS, 'STREAMS', keyOf(replicaId), last);
        for (const [, entries] of answer ?? [])
          for (const [id, fields] of entries) {
            last = id;
            if (fields[1] !== undefined) hear(fields[1]);
          }
      } catch (error) {
        if (this.closed) return;
        this.onError(error as Error);
        // A Redis that came back without its data counts from its clock again, which is not behind.
        await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
      }
    }
  }
}

const keyOf = (replicaId: string): string => `matfleet:nudges:${replicaId}`;
