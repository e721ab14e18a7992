import { cp, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { LocalApp } from './local-app.js';
import type { NanoPackage } from './package-cache.js';
import { ManagedProcess, removeFile } from './process.js';
import { bin, makeRunDir } from './workspace.js';

export interface StandaloneOptions {
  readonly model: Pick<NanoPackage, 'dir' | 'versionId'>;
  readonly modelName: string;
  readonly sliceId: string;
  readonly contextTokens: number;
  readonly name?: string;
  readonly args?: readonly string[];
  readonly env?: NodeJS.ProcessEnv;
  /** A shell script that starts it, instead of this checkout's. */
  readonly script?: string;
}

/** An agent that never heard of a control plane: its data directory holds a model version, as a device that was enrolled once leaves it. */
export class StandaloneAgent {
  private constructor(
    readonly process: ManagedProcess,
    readonly app: LocalApp,
    /** URL of its HTTP APIs; empty where they are off. */
    readonly url: string,
    readonly socket: string,
    readonly port: number,
    private readonly remove: () => Promise<void>,
  ) {}

  static async start(options: StandaloneOptions): Promise<StandaloneAgent> {
    const { dir, remove } = await makeRunDir('agent');
    try {
      const data = join(dir, 'data');
      await install(data, options);
      const readyFile = join(dir, 'ready.json');
      const socket = join(dir, 'agent.sock');
      await removeFile(readyFile);
      const name = options.name ?? 'kiosk';
      const child = ManagedProcess.start(
        `agent ${name}`,
        options.script ?? bin.agent,
        [
          '--name',
          name,
          '--data',
          data,
          '--socket',
          socket,
          '--port',
          '0',
          '--http',
          '127.0.0.1:0',
          '--ready-file',
          readyFile,
          ...(options.args ?? []),
        ],
        {
          logFile: join(dir, 'agent.log'),
          ...(options.env && { env: options.env }),
          ...(options.script !== undefined && { interpreter: '/bin/sh' }),
        },
      );
      const ready = await child.ready<{ http?: string; port: number }>(readyFile);
      const agent = new StandaloneAgent(child, LocalApp.connect(socket), ready.http ?? '', socket, ready.port, remove);
      await agent.serving();
      return agent;
    } catch (error) {
      await remove();
      throw error;
    }
  }

  async stop(): Promise<{ clean: boolean }> {
    this.app.close();
    try {
      return await this.process.stop();
    } finally {
      await this.remove();
    }
  }

  private async serving(timeoutMs = 30_000): Promise<void> {
    for (const until = Date.now() + timeoutMs; !(await this.app.status()).engineReady;) {
      if (Date.now() > until) throw new Error(`no slice serves after ${timeoutMs} ms; the log ends:\n${this.process.logTail()}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}

async function install(data: string, { model, modelName, sliceId, contextTokens }: StandaloneOptions): Promise<void> {
  const models = join(data, 'models', model.versionId);
  await mkdir(models, { recursive: true });
  await cp(join(model.dir, 'manifest.json'), join(models, 'manifest.json'));
  await cp(join(model.dir, 'chunks'), join(data, 'chunks'), { recursive: true });
  const slot = { generation: 1, modelVersionId: model.versionId, modelName, sliceId, contextTokens };
  await writeFile(join(data, 'journal.json'), JSON.stringify({ desired: slot, active: slot }));
}
