import { Button, Select } from '@mantine/core';
import { useState } from 'react';
import { createUpdate } from '../api.js';
import type { Device, ModelVersion, Update } from '../api-types.js';
import { clock, shortVersion } from '../format.js';
import styles from './push-update.module.css';

interface Props {
  readonly models: readonly ModelVersion[] | undefined;
  readonly devices: readonly Device[];
  readonly running: boolean;
  readonly onStarted: (update: Update) => void;
}

/** Brings the whole fleet to a published version. */
export function PushUpdate({ models, devices, running, onStarted }: Props) {
  const [picked, setPicked] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<string | null>(null);
  const published = (models ?? []).filter((model) => model.publishedAt);
  if (published.length === 0 || devices.length === 0) return null;
  const behind = picked === null ? 0 : devices.filter((device) => device.observed?.modelVersionId !== picked).length;

  function push(modelVersionId: string) {
    setBusy(true);
    setError(null);
    createUpdate(modelVersionId)
      .then(onStarted, (cause: Error) => setError(cause.message))
      .finally(() => setBusy(false));
  }

  return (
    <div className={styles.push}>
      <Select
        size="xs"
        label="Bring all devices to"
        placeholder="Choose a model version"
        value={picked}
        onChange={setPicked}
        data={published.map((model) => ({
          value: model.id,
          label: `${model.name} ${shortVersion(model.id)}, published ${clock(model.publishedAt!)}`,
        }))}
      />
      <Button size="xs" variant="light" disabled={picked === null || running} loading={busy} onClick={() => picked && push(picked)}>
        {picked === null ? 'Push update' : `Push to ${devices.length} ${devices.length === 1 ? 'device' : 'devices'}`}
      </Button>
      {picked !== null && (
        <p className={styles.note}>
          {running
            ? 'An update is running; the next can start when it has finished.'
            : behind === 0
              ? 'Every device runs this version already.'
              : `${behind} of ${devices.length} run another version.`}
        </p>
      )}
      {error && (
        <p className={styles.error} role="alert">
          {error}
        </p>
      )}
    </div>
  );
}
