/** From least to most. An `admin` may do everything in the tenant, an installation's key may also make tenants. */
export const ROLES = ['viewer', 'operator', 'publisher', 'admin'] as const;
export type Role = (typeof ROLES)[number];

/**
 * Who may use an operation. `roles`: besides `admin`, who always may. `scoped`: what a caller whose key means some devices alone may do of it:
 * `list`, the operation shows such devices only; `{ device }`, the argument of that name must be such a device. Without it such a caller is refused.
 */
export interface Permission {
  readonly roles: readonly Role[];
  readonly installation?: true;
  readonly scoped?: 'list' | { readonly device: string };
}

const read: Permission = { roles: ['viewer', 'operator', 'publisher'] };
const operate: Permission = { roles: ['operator'] };
const publish: Permission = { roles: ['publisher'] };
const use: Permission = { roles: ['operator', 'publisher'] };
const administer: Permission = { roles: [] };
const installation: Permission = { roles: [], installation: true };
/** About one's own login, whoever one is. */
const own: Permission = { ...read, scoped: 'list' };
const ofDevice = (permission: Permission, device: string): Permission => ({ ...permission, scoped: { device } });
const listed = (permission: Permission): Permission => ({ ...permission, scoped: 'list' });

/** By `METHOD route`. What is not named here, or in OPEN of the gate, nobody may use. */
const REST: Readonly<Record<string, Permission>> = {
  'DELETE /api/v1/session': own,
  'GET /api/v1/caller': own,
  'GET /metrics': installation,

  'GET /api/v1/devices': listed(read),
  'GET /api/v1/devices/:id': ofDevice(read, 'id'),
  'GET /api/v1/devices/:id/assignments': ofDevice(read, 'id'),
  'GET /api/v1/devices/:id/timeline': ofDevice(read, 'id'),
  'GET /api/v1/devices/:id/rollouts': ofDevice(read, 'id'),
  'GET /api/v1/devices/:id/keys': ofDevice(read, 'id'),
  'PATCH /api/v1/devices/:id/labels': operate,
  'POST /api/v1/devices/:id/evaluate': ofDevice(operate, 'id'),
  'POST /api/v1/devices/:id/revoke': ofDevice(operate, 'id'),
  'POST /api/v1/devices/:id/release': ofDevice(operate, 'id'),
  'POST /api/v1/devices/:id/decommission': ofDevice(operate, 'id'),
  'DELETE /api/v1/devices/:id': ofDevice(operate, 'id'),
  'POST /api/v1/devices/:id/keys': ofDevice(operate, 'id'),
  'GET /api/v1/tombstones': read,

  'GET /api/v1/join-tokens': operate,
  'POST /api/v1/join-tokens': operate,
  'DELETE /api/v1/join-tokens/:id': operate,
  'GET /api/v1/enrolments': operate,
  'POST /api/v1/enrolments': operate,
  'POST /api/v1/enrolments/:id/accept': operate,
  'POST /api/v1/enrolments/:id/reject': operate,

  'GET /api/v1/models': listed(read),
  'GET /api/v1/models/:id': listed(read),
  'POST /api/v1/models': publish,
  'POST /api/v1/models/:id/publish': publish,
  'PUT /api/v1/models/:id/pin': publish,
  'DELETE /api/v1/models/:id/pin': publish,
  'POST /api/v1/models/gc': publish,
  'POST /api/v1/chunks/:id/url': publish,
  'GET /api/v1/chunks/:id': publish,
  'PUT /api/v1/chunks/:id': publish,

  'GET /api/v1/rollouts': read,
  'GET /api/v1/rollouts/:id': read,
  'GET /api/v1/rollouts/:id/targets': read,
  'GET /api/v1/rollouts/:id/events': read,
  'GET /api/v1/rollouts/:id/next': read,
  'POST /api/v1/rollouts': operate,
  'POST /api/v1/rollouts/:id/pause': operate,
  'POST /api/v1/rollouts/:id/resume': operate,
  'POST /api/v1/rollouts/:id/abort': operate,
  'POST /api/v1/rollouts/:id/approve': operate,

  'GET /api/v1/inferences': use,
  'GET /api/v1/inferences/:id': use,
  'GET /api/v1/inferences/:id/events': use,
  'POST /api/v1/inferences': use,

  'GET /api/v1/audit': administer,
  'GET /api/v1/audit/head': administer,
  'GET /api/v1/trust': read,
  'GET /api/v1/trust/metadata/:name': read,
  'POST /api/v1/trust/keys': administer,
  'PUT /api/v1/trust/root': administer,
  'POST /api/v1/trust/rotate/:role': administer,

  'GET /api/v1/api-keys': administer,
  'POST /api/v1/api-keys': administer,
  'DELETE /api/v1/api-keys/:id': administer,
  'GET /api/v1/tenants': installation,
  'GET /api/v1/tenants/:id': installation,
  'POST /api/v1/tenants': installation,
  'PATCH /api/v1/tenants/:id': installation,
};

/** By `type.field`. */
const GRAPHQL: Readonly<Record<string, Permission>> = {
  'Query.devices': listed(read),
  'Query.device': ofDevice(read, 'id'),
  'Query.assignments': ofDevice(read, 'deviceId'),
  'Query.deviceTimeline': ofDevice(read, 'deviceId'),
  'Query.deviceKeys': ofDevice(read, 'deviceId'),
  'Query.tombstones': read,
  'Query.models': listed(read),
  'Query.model': listed(read),
  'Query.rollouts': read,
  'Query.rollout': read,
  'Query.deviceRollouts': ofDevice(read, 'deviceId'),
  'Query.inferences': use,
  'Query.inference': use,
  'Query.joinTokens': operate,
  'Query.enrolments': operate,
  'Query.auditRecords': administer,
  'Query.auditHead': administer,
  'Query.apiKeys': administer,
  'Query.tenants': installation,

  'Mutation.setDeviceLabels': operate,
  'Mutation.evaluateDevice': ofDevice(operate, 'id'),
  'Mutation.revokeDevice': ofDevice(operate, 'id'),
  'Mutation.releaseDevice': ofDevice(operate, 'id'),
  'Mutation.decommissionDevice': ofDevice(operate, 'id'),
  'Mutation.offerDeviceKey': ofDevice(operate, 'deviceId'),
  'Mutation.createJoinToken': operate,
  'Mutation.revokeJoinToken': operate,
  'Mutation.preauthoriseKey': operate,
  'Mutation.acceptEnrolment': operate,
  'Mutation.rejectEnrolment': operate,
  'Mutation.startRollout': operate,
  'Mutation.pauseRollout': operate,
  'Mutation.resumeRollout': operate,
  'Mutation.abortRollout': operate,
  'Mutation.approveRollout': operate,
  'Mutation.createInference': use,
  'Mutation.createApiKey': administer,
  'Mutation.revokeApiKey': administer,
  'Mutation.createTenant': installation,
  'Mutation.setTenantQuotas': installation,

  'Subscription.deviceChanged': listed(read),
  'Subscription.deviceTimelineGrew': ofDevice(read, 'deviceId'),
  'Subscription.rolloutChanged': read,
  'Subscription.inferenceChanged': use,
};

export const permissionFor = (operation: string): Permission | undefined => (operation.includes(' ') ? REST : GRAPHQL)[operation];

/** Of the caller by what it is: its role, whether it is the installation's, whether it means some devices alone. Null: it may, if the device is one of them. */
export function refusal(
  operation: string,
  permission: Permission | undefined,
  caller: { readonly role: Role; readonly installation: boolean; readonly isScoped: boolean },
): string | null {
  if (!permission) return `nobody may use ${operation}: it has no permission`;
  if (permission.installation) return caller.installation ? null : 'this is for API keys of the installation';
  if (caller.role !== 'admin' && !permission.roles.includes(caller.role))
    return `${operation} is for ${[...permission.roles, 'admin'].join(', ')}, and the role of this key is ${caller.role}`;
  return caller.isScoped && !permission.scoped ? `${operation} is not for a key that means some devices alone` : null;
}
