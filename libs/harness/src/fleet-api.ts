/** The control plane's REST API as a program outside would call it: the shapes it relies on, and nothing more. */
export interface Device {
  id: string;
  name: string;
  presence: 'online' | 'suspect' | 'offline';
  desired: { generation: number | string; modelVersionId: string; modelName: string; sliceId: string; reason: string } | null;
  observed: { generation: number | string; modelVersionId: string; sliceId: string } | null;
  phase: string | null;
  phaseError: string | null;
  latency: { ttftMs: { p50: number; p95: number }; interTokenMs: { p50: number; p95: number }; tokensPerSecond: number; samples: number } | null;
  latencyCorrection: number;
}

export interface Assignment {
  generation: number | string;
  modelVersionId: string;
  sliceId: string;
  reason: string;
  explanation: {
    candidates: {
      sliceId: string;
      quality: number | null;
      totalBytes: number;
      predictedInterTokenMs: number | null;
      fits: boolean;
      chosen: boolean;
      why: string;
    }[];
  };
}

export interface Rollout {
  id: string;
  modelVersionId: string;
  state: 'awaiting-approval' | 'running' | 'paused' | 'rolling-back' | 'succeeded' | 'aborted' | 'rolled-back';
  reason: string | null;
  devices: number;
  counts: { state: string; devices: number }[];
  waves: {
    wave: number;
    name: string | null;
    state: string;
    reason: string | null;
    devices: number;
    gates: { gate: string; verdict: 'passed' | 'failed' | 'unknown'; reason: string }[];
  }[];
}

export interface RolloutTarget {
  deviceId: string;
  deviceName: string;
  wave: number;
  state: string;
  reason: string | null;
}

export interface Inference {
  id: string;
  state: 'queued' | 'running' | 'succeeded' | 'failed';
  answer: string | null;
  error: string | null;
  modelVersionId: string | null;
  sliceId: string | null;
  deviceId: string | null;
  attempts: {
    ordinal: number;
    deviceId: string;
    deviceName: string;
    modelVersionId: string;
    sliceId: string;
    state: string;
    reason: string;
    error: string | null;
    ttftMs: number | null;
  }[];
}

export interface InferenceRequest {
  prompt: string;
  task?: string;
  qualityFloor?: number;
  deadlineMs?: number;
  maxTokens?: number;
}

/** What the API answers at once. */
const TARGET_PAGE = 1_000;

export class FleetApi {
  constructor(
    readonly baseUrl: string,
    private readonly apiKey: string,
    private readonly headers: Readonly<Record<string, string>> = {},
  ) {}

  devices = (): Promise<Device[]> => this.get('/api/v1/devices');
  /** By name, those after `after`. */
  devicePage = (limit: number, after = ''): Promise<Device[]> => this.get(`/api/v1/devices?limit=${limit}&after=${encodeURIComponent(after)}`);
  assignments = (deviceId: string): Promise<Assignment[]> => this.get(`/api/v1/devices/${deviceId}/assignments`);
  models = (): Promise<{ id: string; name: string; slices: { id: string; quality?: { value: number } | null }[] }[]> => this.get('/api/v1/models');
  rollout = (id: string): Promise<Rollout> => this.get(`/api/v1/rollouts/${id}`);
  inference = (id: string): Promise<Inference> => this.get(`/api/v1/inferences/${id}`);
  createJoinToken = (uses: number): Promise<{ token: string }> => this.post('/api/v1/join-tokens', { uses });
  /** `plan` as an operator writes it; without one a single wave. */
  startRollout = (modelVersionId: string, plan: object = {}): Promise<Rollout> => this.post('/api/v1/rollouts', { modelVersionId, plan });
  createInference = (request: InferenceRequest): Promise<Inference> => this.post('/api/v1/inferences', request);

  /** All of them, page after page. */
  async rolloutTargets(id: string): Promise<RolloutTarget[]> {
    const targets: RolloutTarget[] = [];
    for (let page: RolloutTarget[] | undefined; page === undefined || page.length === TARGET_PAGE; targets.push(...page))
      page = await this.get<RolloutTarget[]>(`/api/v1/rollouts/${id}/targets?after=${encodeURIComponent(targets.at(-1)?.deviceName ?? '')}`);
    return targets;
  }

  async device(name: string): Promise<Device> {
    const found = (await this.devices()).find((device) => device.name === name);
    if (!found) throw new Error(`the control plane knows no device named ${name}`);
    return found;
  }

  private get<T>(path: string): Promise<T> {
    return this.request<T>('GET', path);
  }

  private post<T>(path: string, body: unknown): Promise<T> {
    return this.request<T>('POST', path, body);
  }

  async request<T>(method: string, path: string, body?: unknown): Promise<T> {
    const response = await fetch(this.baseUrl + path, {
      method,
      headers: { ...this.headers, authorization: `Bearer ${this.apiKey}`, ...(body === undefined ? {} : { 'content-type': 'application/json' }) },
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: AbortSignal.timeout(20_000),
    });
    const text = await response.text();
    if (!response.ok) throw new Error(`${method} ${path}: HTTP ${response.status} ${text.slice(0, 400)}`);
    return (text === '' ? undefined : JSON.parse(text)) as T;
  }
}
