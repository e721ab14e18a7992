import { Button, Checkbox, Modal, TextInput } from '@mantine/core';
import { useState } from 'react';
import { decommissionDevice, releaseDevice, revokeDevice } from '../api.js';
import type { Device } from '../api-types.js';
import { Panel } from './panel.js';
import { Table } from './table.js';
import styles from './table.module.css';

const shownMax = 200;

interface Asked {
  readonly device: Device;
  readonly what: 'revoke' | 'decommission';
}

/** Every device's standing: those that are refused first. */
export function Standings({ devices }: { readonly devices: readonly Device[] }) {
  const [asked, setAsked] = useState<Asked | null>(null);
  const [error, setError] = useState<string | null>(null);
  const [filter, setFilter] = useState('');
  const found = devices
    .filter(({ name }) => name.includes(filter.trim()))
    .sort((a, b) => Number(a.standing === 'accepted') - Number(b.standing === 'accepted') || a.name.localeCompare(b.name));
  const release = (id: string): void =>
    void releaseDevice(id).then(
      () => setError(null),
      (cause: Error) => setError(cause.message),
    );
  return (
    <Panel title="Devices" anchor="standings">
      {error && (
        <p className={styles.error} role="alert">
          {error}
        </p>
      )}
      <div className={styles.bar}>
        <TextInput size="xs" label="Name contains" value={filter} onChange={(event) => setFilter(event.currentTarget.value)} />
      </div>
      {found.length === 0 && <p className={styles.quiet}>No device.</p>}
      {found.length > 0 && (
        <Table
          label="Standing of devices"
          columns={['Device', 'Standing', 'Why', 'Decide']}
          rows={found.slice(0, shownMax).map((device) => ({
            key: device.name,
            cells: [
              device.name,
              <span className={device.standing === 'accepted' ? undefined : styles.bad}>{device.standing}</span>,
              device.standingReason ?? '–',
              <div className={styles.actions}>
                {device.standing === 'accepted' ? (
                  <Button
                    size="compact-xs"
                    variant="default"
                    aria-label={`Revoke ${device.name}`}
                    onClick={() => setAsked({ device, what: 'revoke' })}
                  >
                    Revoke
                  </Button>
                ) : (
                  <Button size="compact-xs" aria-label={`Release ${device.name}`} onClick={() => release(device.id)}>
                    Release
                  </Button>
                )}
                <Button
                  size="compact-xs"
                  variant="subtle"
                  color="red"
                  aria-label={`Decommission ${device.name}`}
                  onClick={() => setAsked({ device, what: 'decommission' })}
                >
                  Decommission
                </Button>
              </div>,
            ],
          }))}
        />
      )}
      {found.length > shownMax && <p className={styles.quiet}>{found.length - shownMax} more: name some of theirs above.</p>}
      <Modal
        opened={asked !== null}
        onClose={() => setAsked(null)}
        title={asked ? `${asked.what === 'revoke' ? 'Revoke' : 'Decommission'} ${asked.device.name}` : ''}
        closeButtonProps={{ 'aria-label': 'Close' }}
      >
        {asked && <Decision key={asked.device.id} asked={asked} onDone={() => setAsked(null)} />}
      </Modal>
    </Panel>
  );
}

/** Asks for the reason, which the device and the audit log show. */
function Decision({ asked: { device, what }, onDone }: { readonly asked: Asked; readonly onDone: () => void }) {
  const [reason, setReason] = useState('');
  const [wipe, setWipe] = useState(false);
  const [error, setError] = useState<string | null>(null);
  const decide = (): void => {
    const done = what === 'revoke' ? revokeDevice(device.id, reason) : decommissionDevice(device.id, reason, wipe);
    done.then(onDone, (cause: Error) => setError(cause.message));
  };
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        decide();
      }}
    >
      <p className={styles.quiet}>
        {what === 'revoke'
          ? 'Its session ends now, and it is refused until you release it.'
          : 'It leaves the fleet for good: its keys are never accepted again.'}
      </p>
      <TextInput mt={10} label="Reason" required value={reason} onChange={(event) => setReason(event.currentTarget.value)} data-autofocus />
      {what === 'decommission' && (
        <Checkbox
          mt={10}
          label="Remove its models and keys, now or when it next comes by"
          checked={wipe}
          onChange={(event) => setWipe(event.currentTarget.checked)}
        />
      )}
      {error && (
        <p className={styles.error} role="alert">
          {error}
        </p>
      )}
      <Button mt={14} type="submit" color="red" disabled={reason.trim() === ''}>
        {what === 'revoke' ? 'Revoke' : 'Decommission'}
      </Button>
    </form>
  );
}
