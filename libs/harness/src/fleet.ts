import { join } from 'node:path';
import { AgentProcess } from './agent.js';
import { Balancer } from './balancer.js';
import { ControlPlaneProcess } from './control-plane.js';
import type { Device } from './fleet-api.js';
import { nanoPackage, publish, type NanoPackage } from './package-cache.js';
import { waitFor } from './wait.js';
import { makeRunDir } from './workspace.js';

export interface FleetOptions {
  databaseUrl?: string;
  redisUrl?: string;
  env?: NodeJS.ProcessEnv;
  /** Processes of the control plane, behind a balancer when there are several: then both URLs are needed. */
  replicas?: number;
  onProgress?: (what: string) => void;
}

/** Three boxes of different size: what each one's operator grants to weights, K/V and activations. */
export const boxes = [
  { name: 'kiosk', modelMemory: '1.52MiB' },
  { name: 'gateway', modelMemory: '1.6MiB' },
  { name: 'server', modelMemory: '4MiB' },
] as const;

/** A whole fleet in processes of its own: a control plane and three agents, in a directory that `stop` removes. */
export class Fleet {
  readonly agents: AgentProcess[] = [];
  private turn = 0;

  private constructor(
    readonly dir: string,
    private readonly remove: () => Promise<void>,
    readonly replicas: readonly ControlPlaneProcess[],
    private readonly balancer: Balancer | undefined,
    readonly model: NanoPackage,
  ) {}

  static async start({ databaseUrl, redisUrl, env, replicas: count = 1, onProgress = () => undefined }: FleetOptions): Promise<Fleet> {
    const run = await makeRunDir('demo');
    let fleet: Fleet | undefined;
    const replicas: ControlPlaneProcess[] = [];
    try {
      onProgress('importing nano (int8)');
      const model = await nanoPackage('int8');
      onProgress('starting the control plane');
      const dataDir = join(run.dir, 'control-plane/data');
      for (let index = 0; index < count; index++) {
        const dir = join(run.dir, index === 0 ? 'control-plane' : `control-plane-${index + 1}`);
        replicas.push(await ControlPlaneProcess.start({ dir, dataDir, databaseUrl, redisUrl, env }));
      }
      const balancer = count > 1 ? await Balancer.start(replicas.map(({ deviceUrl }) => Number(new URL(deviceUrl).port))) : undefined;
      fleet = new Fleet(run.dir, run.remove, replicas, balancer, model);
      const { controlPlane, deviceUrl } = fleet;
      onProgress('publishing nano');
      await publish(model.dir, controlPlane.httpUrl, controlPlane.apiKeyFile);
      const { token } = await controlPlane.api.createJoinToken(boxes.length);
      for (const { name, modelMemory } of boxes) {
        onProgress(`starting the agent ${name} with ${modelMemory}`);
        fleet.agents.push(await AgentProcess.start({ name, modelMemory, token, deviceUrl, dir: join(run.dir, name) }));
      }
      return fleet;
    } catch (error) {
      await (fleet ? fleet.stop() : Promise.all(replicas.map((replica) => replica.stop())).then(run.remove));
      throw error;
    }
  }

  /** The first of them. */
  get controlPlane(): ControlPlaneProcess {
    return this.replicas[0]!;
  }

  /** What devices dial. */
  get deviceUrl(): string {
    return this.balancer ? `https://127.0.0.1:${this.balancer.port}` : this.controlPlane.deviceUrl;
  }

  /** Of one replica after the other, without those that are dead. */
  get api(): ControlPlaneProcess['api'] {
    const living = this.replicas.filter(({ process }) => !process.exited);
    return (living[this.turn++ % Math.max(1, living.length)] ?? this.controlPlane).api;
  }

  agent(name: string): AgentProcess {
    const agent = this.agents.find((candidate) => candidate.name === name);
    if (!agent) throw new Error(`the fleet has no agent ${name}`);
    return agent;
  }

  /** Waits until every device runs what it should, on `versionId`, and says so itself. */
  async converged(versionId: string, timeoutMs = 60_000): Promise<Device[]> {
    let seen: Device[] = [];
    return waitFor(
      `all devices to run version ${versionId.slice(0, 12)}`,
      async () => {
        seen = await this.api.devices();
        const done = seen.length === this.agents.length && seen.every((device) => runs(device, versionId));
        return done ? seen : undefined;
      },
      {
        timeoutMs,
        everyMs: 200,
        lastSeen: () =>
          seen.map(({ name, presence, phase, phaseError, desired, observed }) => ({ name, presence, phase, phaseError, desired, observed })),
      },
    );
  }

  /** Stops everything; tells whether each process went when it was asked. */
  async stop({ keep = false } = {}): Promise<{ clean: boolean }> {
    const results = await Promise.all(this.agents.map((agent) => agent.stop()));
    results.push(...(await Promise.all(this.replicas.map((replica) => replica.stop()))));
    await this.balancer?.stop();
    if (!keep) await this.remove();
    return { clean: results.every((result) => result.clean) };
  }
}

const runs = ({ presence, desired, observed, phase }: Device, versionId: string): boolean =>
  presence === 'online' &&
  phase === 'active' &&
  desired?.modelVersionId === versionId &&
  observed?.modelVersionId === versionId &&
  observed.sliceId === desired.sliceId;
