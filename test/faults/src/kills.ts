import { sleep, type Fleet, type PostgresProcess, type RedisProcess } from '@matfleet/harness';

export interface Services {
  readonly postgres?: PostgresProcess | undefined;
  readonly redis?: RedisProcess | undefined;
}

export interface KillPlan {
  /** How long faults happen, seconds. */
  readonly seconds: number;
  readonly kills: number;
  /** In the middle Redis stays away for so long; 0: never. */
  readonly redisAwaySeconds: number;
}

/** The embedded PostgreSQL's keeper brings it back five times. */
const POSTGRES_CRASHES_MAX = 4;

/** Kills processes at random moments and starts them again: replicas, agents, Redis and PostgreSQL, as far as they are ours. Returns what it killed. */
export async function killAtRandom(fleet: Fleet, services: Services, plan: KillPlan, random: () => number): Promise<string[]> {
  const killed: string[] = [];
  let redisAway = false;
  let postgresCrashes = 0;

  const kill = async (first: boolean): Promise<void> => {
    const chance = random();
    // The control plane at least once: that is the fault that every device feels.
    if (first || chance < 0.4) {
      const index = Math.floor(random() * fleet.replicas.length);
      const replica = fleet.replicas[index]!;
      await replica.process.kill();
      killed.push(fleet.replicas.length > 1 ? `replica ${index + 1}` : 'control plane');
      await sleep(random() * 1_000);
      await replica.restart();
    } else if (chance < 0.6 && services.redis && !redisAway) {
      await services.redis.kill();
      killed.push('redis');
      await sleep(random() * 2_000);
      // The long absence may have begun meanwhile: then it ends it.
      if (!redisAway) await services.redis.start();
    } else if (chance < 0.75 && services.postgres && postgresCrashes < POSTGRES_CRASHES_MAX) {
      postgresCrashes += 1;
      await services.postgres.crash();
      killed.push('postgres');
    } else {
      const agent = fleet.agents[Math.floor(random() * fleet.agents.length)]!;
      await agent.process.kill();
      killed.push(`agent ${agent.name}`);
      await agent.restart();
    }
  };

  const takeRedisAway = async (): Promise<void> => {
    const { redis } = services;
    if (!redis || plan.redisAwaySeconds === 0) return;
    await sleep((1_000 * (plan.seconds - plan.redisAwaySeconds)) / 2);
    redisAway = true;
    await redis.kill();
    killed.push(`redis for ${plan.redisAwaySeconds} s`);
    await sleep(1_000 * plan.redisAwaySeconds);
    await redis.start();
    redisAway = false;
  };

  const killAll = async (): Promise<void> => {
    for (let i = 0; i < plan.kills; i++) {
      await sleep((random() * 2 * plan.seconds * 1_000) / (plan.kills + 1));
      await kill(i === 0);
    }
  };
  await Promise.all([killAll(), takeRedisAway()]);
  return killed;
}
