/** Who does something: `key:<id>` of an API key, `device:<id>`, `token:<id>` of a join token, or `control-plane`. */
export type Actor = `key:${string}` | `device:${string}` | `token:${string}` | 'control-plane';

/** One change to be written down. `before` and `after` hold what matters of the thing; never a secret. */
export interface AuditEntry {
  readonly actor: Actor;
  readonly action: AuditAction;
  readonly subject: `${'device' | 'enrolment' | 'join-token' | 'api-key' | 'trust' | 'model' | 'rollout' | 'tenant'}:${string}`;
  readonly before?: object | null;
  readonly after?: object | null;
}

/** Everything that is written down. */
export type AuditAction =
  | 'api-key.created'
  | 'api-key.revoked'
  | 'session.opened'
  | 'session.closed'
  | 'tenant.created'
  | 'tenant.limited'
  | 'join-token.created'
  | 'join-token.revoked'
  | 'enrolment.requested'
  | 'enrolment.rejected'
  | 'enrolment.preauthorised'
  | 'device.enrolled'
  | 'device.key-offered'
  | 'device.key-accepted'
  | 'device.retired-key-used'
  | 'device.quarantined'
  | 'device.revoked'
  | 'device.released'
  | 'device.decommissioned'
  | 'device.wiped'
  | 'device.labelled'
  | 'device.evaluated'
  | 'model.registered'
  | 'model.published'
  | 'model.pinned'
  | 'model.unpinned'
  | 'model.retired'
  | 'rollout.started'
  | 'rollout.paused'
  | 'rollout.resumed'
  | 'rollout.approved'
  | 'rollout.aborted'
  | 'trust.key-made'
  | 'trust.root-signed';
