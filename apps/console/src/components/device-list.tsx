import { Button, TextInput } from '@mantine/core';
import { useDeferredValue, useState } from 'react';
import type { ModelVersion } from '../api-types.js';
import { matches, type DeviceEntry } from '../fleet.js';
import styles from './device-list.module.css';
import { DeviceRow } from './device-row.js';
import { JoinSteps } from './join-steps.js';
import { Panel } from './panel.js';

/** Rows drawn at once; more come on request, so that a large fleet cannot stall the page. */
const pageSize = 50;
/** From this many devices on a filter is worth its place. */
const filterFrom = 7;

interface Props {
  /** Undefined until the fleet was read once. */
  readonly entries: readonly DeviceEntry[] | undefined;
  readonly models: readonly ModelVersion[] | undefined;
  readonly onExplain: (deviceId: string) => void;
}

export function DeviceList({ entries, models, onExplain }: Props) {
  const [filter, setFilter] = useState('');
  const [limit, setLimit] = useState(pageSize);
  const wanted = useDeferredValue(filter);
  if (!entries)
    return (
      <Panel title="Devices" anchor="devices">
        <p className={styles.quiet}>Reading the fleet…</p>
      </Panel>
    );
  if (entries.length === 0)
    return (
      <Panel title="Devices" anchor="devices">
        {models?.every((model) => !model.publishedAt) && <NoModel />}
        <p className={styles.lead}>No device has joined yet. A device dials out to the control plane, so it needs no open port.</p>
        <JoinSteps />
      </Panel>
    );
  const found = entries.filter(({ device }) => matches(device, wanted));
  return (
    <Panel
      title={found.length === entries.length ? `Devices (${entries.length})` : `Devices (${found.length} of ${entries.length})`}
      anchor="devices"
      flush
      aside={
        entries.length >= filterFrom && (
          <TextInput
            size="xs"
            w={230}
            aria-label="Filter devices"
            placeholder="Filter: name, site=berlin, offline…"
            value={filter}
            onChange={(event) => setFilter(event.currentTarget.value)}
          />
        )
      }
    >
      {models?.every((model) => !model.publishedAt) && (
        <div className={styles.notice}>
          <NoModel />
        </div>
      )}
      <ul className={styles.rows} aria-label="Devices">
        {found.slice(0, limit).map((entry) => (
          <DeviceRow key={entry.device.id} entry={entry} models={models} onExplain={onExplain} />
        ))}
      </ul>
      {found.length === 0 && <p className={styles.quiet}>No device matches “{wanted}”.</p>}
      {found.length > limit && (
        <Button variant="subtle" fullWidth onClick={() => setLimit(limit + pageSize)}>
          Show {Math.min(pageSize, found.length - limit)} more of {found.length}
        </Button>
      )}
    </Panel>
  );
}

function NoModel() {
  return (
    <p className={styles.lead}>
      No model is published, so devices have nothing to run. Import a checkpoint with <code>matfleet model import</code> and publish the package with{' '}
      <code>matfleet model publish</code>.
    </p>
  );
}
