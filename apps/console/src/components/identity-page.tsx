import { Button } from '@mantine/core';
import { acceptEnrolment, listEnrolments, listJoinTokens, listTombstones, rejectEnrolment, revokeJoinToken } from '../api.js';
import type { Device, Enrolment, JoinTokenRow } from '../api-types.js';
import { useReading } from '../use-reading.js';
import { Ago } from './ago.js';
import { Panel } from './panel.js';
import { Standings } from './standings.js';
import { Table } from './table.js';
import styles from './table.module.css';

/** Who may become a device, and who may stay one. */
export function IdentityPage({ devices }: { readonly devices: readonly Device[] }) {
  return (
    <>
      <Waiting />
      <Standings devices={devices} />
      <JoinTokens />
      <Gone />
    </>
  );
}

const states: Readonly<Record<Enrolment['state'], string>> = { pending: 'waits', preauthorised: 'announced', rejected: 'rejected' };

function Waiting() {
  const { value: enrolments, error, act } = useReading(listEnrolments);
  return (
    <Panel title="Keys on their way" anchor="enrolments">
      <Problem text={error} />
      {enrolments?.length === 0 && (
        <p className={styles.quiet}>
          Nobody waits. A join token of the mode “request” lets a device ask; it stands here until you accept or reject it.
        </p>
      )}
      {enrolments && enrolments.length > 0 && (
        <Table
          label="Keys on their way"
          columns={['Name', 'State', 'Key', 'Labels', 'Since', 'Decide']}
          rows={enrolments.map(({ id, name, state, publicKeyHash, labels, createdAt }) => ({
            key: id,
            cells: [
              name || '–',
              states[state],
              <code title={publicKeyHash}>{publicKeyHash.slice(0, 16)}…</code>,
              labelText(labels),
              <Ago iso={createdAt} />,
              <div className={styles.actions}>
                {state !== 'preauthorised' && (
                  <Button size="compact-xs" aria-label={`Accept ${name}`} onClick={() => void act(() => acceptEnrolment(id))}>
                    Accept
                  </Button>
                )}
                {state !== 'rejected' && (
                  <Button size="compact-xs" variant="default" aria-label={`Reject ${name}`} onClick={() => void act(() => rejectEnrolment(id))}>
                    Reject
                  </Button>
                )}
              </div>,
            ],
          }))}
        />
      )}
    </Panel>
  );
}

const modes: Readonly<Record<JoinTokenRow['mode'], string>> = {
  auto: 'accepts at once',
  request: 'accepts on request',
  preauthorised: 'accepts announced keys',
};

function JoinTokens() {
  const { value: tokens, error, act } = useReading(listJoinTokens);
  const open = tokens?.filter(({ revokedAt, usesLeft, expiresAt }) => !revokedAt && usesLeft > 0 && Date.parse(expiresAt) > Date.now());
  return (
    <Panel title="Join tokens" anchor="join-tokens">
      <Problem text={error} />
      {open?.length === 0 && <p className={styles.quiet}>No token is open. “Add device” makes one.</p>}
      {open && open.length > 0 && (
        <Table
          label="Join tokens"
          columns={['Token', 'Mode', 'Uses left', 'Labels', 'Until', '']}
          rows={open.map(({ id, mode, usesLeft, labels, expiresAt }) => ({
            key: id,
            cells: [
              <code>{id.slice(0, 8)}</code>,
              modes[mode],
              usesLeft,
              labelText(labels),
              new Date(expiresAt).toLocaleString(),
              <Button
                size="compact-xs"
                variant="default"
                aria-label={`Revoke token ${id.slice(0, 8)}`}
                onClick={() => void act(() => revokeJoinToken(id))}
              >
                Revoke
              </Button>,
            ],
          }))}
        />
      )}
    </Panel>
  );
}

function Gone() {
  const { value: gone, error } = useReading(listTombstones);
  if (gone?.length === 0 && !error) return null;
  return (
    <Panel title="Decommissioned" anchor="gone">
      <Problem text={error} />
      {gone && (
        <Table
          label="Decommissioned devices"
          columns={['Name', 'Since', 'Wiped', 'Why']}
          rows={gone.map(({ deviceId, name, createdAt, wipe, wipedAt, reason }) => ({
            key: deviceId,
            cells: [name, <Ago iso={createdAt} />, wipedAt ? <Ago iso={wipedAt} /> : wipe ? 'when it comes by' : 'not asked', reason],
          }))}
        />
      )}
    </Panel>
  );
}

function Problem({ text }: { readonly text: string | null }) {
  return text ? (
    <p className={styles.error} role="alert">
      {text}
    </p>
  ) : null;
}

const labelText = (labels: Readonly<Record<string, string>>): string =>
  Object.entries(labels)
    .map(([key, value]) => `${key}=${value}`)
    .join(' · ') || '–';
