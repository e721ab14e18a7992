/** The one door to the control plane over HTTP. The session is an httpOnly cookie, so nothing secret is kept here. */
import type {
  Assignment,
  AuditRecord,
  Device,
  Enrolment,
  Inference,
  InferenceRequest,
  JoinToken,
  JoinTokenRow,
  ModelVersion,
  Rollout,
  TimelinePage,
  Tombstone,
} from './api-types.js';
import { devicesQuery, inferenceQuery, timelineQuery, rolloutsQuery } from './documents.js';

const timeoutMs = 15_000;

/** The control plane refused; `message` is its own text. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
  ) {
    super(message);
  }
}

export const isSignedOut = (error: unknown): boolean => error instanceof ApiError && error.status === 401;

export const signIn = (apiKey: string): Promise<void> => rest('POST', '/session', { apiKey });
export const signOut = (): Promise<void> => rest('DELETE', '/session');

/** Rejects with a 401 when the session has ended, with a network error when nobody answers. */
export const checkSession = async (): Promise<void> => void (await graphql('query { __typename }'));

export const listDevices = async (): Promise<readonly Device[]> => (await graphql<{ devices: readonly Device[] }>(devicesQuery)).devices;
export const listRollouts = async (): Promise<readonly Rollout[]> => (await graphql<{ rollouts: readonly Rollout[] }>(rolloutsQuery)).rollouts;
export const getInference = async (id: string): Promise<Inference> => (await graphql<{ inference: Inference }>(inferenceQuery, { id })).inference;

/** Newest first; with `before` the page that ends there. */
export const readTimeline = async (id: string, before: number | null = null): Promise<TimelinePage> =>
  (await graphql<{ deviceTimeline: TimelinePage }>(timelineQuery, { id, before })).deviceTimeline;

/** Published and not, newest first, each with its slices. */
export async function listModels(): Promise<readonly ModelVersion[]> {
  const models = await rest<readonly ModelVersion[]>('GET', '/models');
  return Promise.all(models.slice(0, 20).map((model) => (model.slices ? model : rest<ModelVersion>('GET', `/models/${model.id}`))));
}

export const listAssignments = (deviceId: string): Promise<readonly Assignment[]> =>
  rest('GET', `/devices/${encodeURIComponent(deviceId)}/assignments`);
export const evaluateDevice = (deviceId: string): Promise<unknown> => rest('POST', `/devices/${encodeURIComponent(deviceId)}/evaluate`, {});
/** In waves of these percentages of the fleet, and a last one of what is left. */
export const startRollout = (modelVersionId: string, percentages: readonly number[]): Promise<Rollout> =>
  rest('POST', '/rollouts', { modelVersionId, plan: { waves: [...percentages.map((percent) => ({ percent })), {}] } });
export type RolloutCommand = 'pause' | 'resume' | 'approve' | 'abort';
export const commandRollout = (id: string, command: RolloutCommand): Promise<Rollout> =>
  rest('POST', `/rollouts/${encodeURIComponent(id)}/${command}`, {});
export const createInference = (request: InferenceRequest): Promise<Inference> => rest('POST', '/inferences', request);
export const createJoinToken = (): Promise<JoinToken> => rest('POST', '/join-tokens', { uses: 1, ttlSeconds: 3600 });

export const listEnrolments = (): Promise<readonly Enrolment[]> => rest('GET', '/enrolments');
export const acceptEnrolment = (id: string): Promise<unknown> => rest('POST', `/enrolments/${encodeURIComponent(id)}/accept`, {});
export const rejectEnrolment = (id: string): Promise<unknown> => rest('POST', `/enrolments/${encodeURIComponent(id)}/reject`, {});
export const listJoinTokens = (): Promise<readonly JoinTokenRow[]> => rest('GET', '/join-tokens');
export const revokeJoinToken = (id: string): Promise<unknown> => rest('DELETE', `/join-tokens/${encodeURIComponent(id)}`);
export const listTombstones = (): Promise<readonly Tombstone[]> => rest('GET', '/tombstones');
export const revokeDevice = (id: string, reason: string): Promise<unknown> => rest('POST', `/devices/${encodeURIComponent(id)}/revoke`, { reason });
export const releaseDevice = (id: string): Promise<unknown> => rest('POST', `/devices/${encodeURIComponent(id)}/release`, {});
export const decommissionDevice = (id: string, reason: string, wipe: boolean): Promise<unknown> =>
  rest('POST', `/devices/${encodeURIComponent(id)}/decommission`, { reason, wipe });

/** Newest first, those before record `before`; of one thing alone where `subject` names it. */
export const listAudit = (query: { readonly before?: number; readonly subject?: string }): Promise<readonly AuditRecord[]> =>
  rest(
    'GET',
    `/audit?${new URLSearchParams({ limit: '50', ...(query.before && { before: String(query.before) }), ...(query.subject && { subject: query.subject }) }).toString()}`,
  );

async function rest<T>(method: 'GET' | 'POST' | 'DELETE', path: string, body?: unknown): Promise<T> {
  const response = await fetch(`/api/v1${path}`, {
    method,
    headers: body === undefined ? {} : { 'content-type': 'application/json' },
    body: body === undefined ? null : JSON.stringify(body),
    signal: AbortSignal.timeout(timeoutMs),
  });
  if (!response.ok) throw await refusal(response);
  return (response.status === 204 ? undefined : await response.json()) as T;
}

async function graphql<T>(query: string, variables: Record<string, unknown> = {}): Promise<T> {
  const response = await fetch('/graphql', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ query, variables }),
    signal: AbortSignal.timeout(timeoutMs),
  });
  const body = (await response.json().catch(() => ({}))) as GraphqlBody<T>;
  const first = body.errors?.[0];
  if (first) throw new ApiError(unauthorised(first) ? 401 : response.status, first.extensions?.code ?? 'graphql', first.message);
  if (!response.ok || !body.data)
    throw new ApiError(response.status, 'graphql', body.message ?? `The control plane answered ${response.status} to a query.`);
  return body.data;
}

interface GraphqlBody<T> {
  readonly data?: T | null;
  readonly message?: string;
  readonly errors?: readonly { readonly message: string; readonly extensions?: { readonly code?: string } }[];
}

const unauthorised = (error: { extensions?: { code?: string } }): boolean => /unauth/i.test(error.extensions?.code ?? '');

async function refusal(response: Response): Promise<ApiError> {
  const body = (await response.json().catch(() => ({}))) as { code?: string; message?: string };
  return new ApiError(response.status, body.code ?? 'http', body.message ?? `The control plane answered ${response.status}.`);
}
