import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { LocalApp } from './local-app.js';
import { ManagedProcess, removeFile } from './process.js';
import { bin } from './workspace.js';

export interface AgentOptions {
  name: string;
  dir: string;
  deviceUrl: string;
  token: string;
  /** As on the command line, for example "2MiB". */
  modelMemory: string;
  args?: readonly string[];
  env?: NodeJS.ProcessEnv;
}

/** An agent in a process of its own, with its data kept over a restart. */
export class AgentProcess {
  private constructor(
    readonly options: AgentOptions,
    public process: ManagedProcess,
    public app: LocalApp,
  ) {}

  static async start(options: AgentOptions): Promise<AgentProcess> {
    await mkdir(options.dir, { recursive: true });
    const { process, app } = await launch(options);
    return new AgentProcess(options, process, app);
  }

  get name(): string {
    return this.options.name;
  }

  /** Starts it again on the same data. */
  async restart(): Promise<void> {
    this.app.close();
    await this.process.stop();
    const { process, app } = await launch(this.options);
    this.process = process;
    this.app = app;
  }

  async stop(): Promise<{ clean: boolean }> {
    this.app.close();
    return this.process.stop();
  }
}

async function launch(options: AgentOptions): Promise<{ process: ManagedProcess; app: LocalApp }> {
  const readyFile = join(options.dir, 'ready.json');
  const socket = join(options.dir, 'agent.sock');
  await removeFile(readyFile);
  const process = ManagedProcess.start(
    `agent ${options.name}`,
    bin.agent,
    [
      ...['--join', options.deviceUrl, '--token', options.token, '--name', options.name, '--model-memory', options.modelMemory],
      ...['--data', join(options.dir, 'data'), '--socket', socket, '--port', '0', '--http', '127.0.0.1:0', '--ready-file', readyFile],
      ...(options.args ?? []),
    ],
    { logFile: join(options.dir, 'agent.log'), env: options.env },
  );
  await process.ready(readyFile);
  return { process, app: LocalApp.connect(socket) };
}
