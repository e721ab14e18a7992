import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { FleetApi } from './fleet-api.js';
import { ManagedProcess, removeFile } from './process.js';
import { bin } from './workspace.js';

export interface ControlPlaneOptions {
  dir: string;
  /** Shared by the replicas of one fleet; by default this one's own. */
  dataDir?: string;
  /** Both set, or neither: the embedded PostgreSQL then. */
  databaseUrl?: string;
  redisUrl?: string;
  env?: NodeJS.ProcessEnv;
}

interface Ready {
  httpUrl: string;
  deviceUrl: string;
  apiKeyFile: string;
}

/** A control plane in a process of its own. It keeps its ports over a restart, as a real one does. */
export class ControlPlaneProcess {
  private constructor(
    private readonly options: ControlPlaneOptions,
    public process: ManagedProcess,
    readonly httpUrl: string,
    readonly deviceUrl: string,
    readonly apiKeyFile: string,
    readonly apiKey: string,
    readonly api: FleetApi,
  ) {}

  static async start(options: ControlPlaneOptions): Promise<ControlPlaneProcess> {
    await mkdir(options.dir, { recursive: true });
    const { process, ready } = await launch(options, '0', '0');
    const apiKey = (await readFile(ready.apiKeyFile, 'utf8')).trim();
    return new ControlPlaneProcess(options, process, ready.httpUrl, ready.deviceUrl, ready.apiKeyFile, apiKey, new FleetApi(ready.httpUrl, apiKey));
  }

  /** Starts it again on the same ports and data. */
  async restart(): Promise<void> {
    await this.process.stop();
    const { process } = await launch(this.options, new URL(this.httpUrl).port, new URL(this.deviceUrl).port);
    this.process = process;
  }

  stop(): Promise<{ clean: boolean }> {
    return this.process.stop();
  }
}

async function launch(options: ControlPlaneOptions, httpPort: string, devicePort: string): Promise<{ process: ManagedProcess; ready: Ready }> {
  const readyFile = join(options.dir, 'ready.json');
  await removeFile(readyFile);
  const process = ManagedProcess.start('control plane', bin.controlPlane, [], {
    logFile: join(options.dir, 'control-plane.log'),
    env: {
      MATFLEET_DATA_DIR: options.dataDir ?? join(options.dir, 'data'),
      MATFLEET_HTTP_PORT: httpPort,
      MATFLEET_DEVICE_PORT: devicePort,
      MATFLEET_READY_FILE: readyFile,
      DATABASE_URL: options.databaseUrl,
      REDIS_URL: options.redisUrl,
      ...options.env,
    },
  });
  return { process, ready: await process.ready<Ready>(readyFile, 90_000) };
}
