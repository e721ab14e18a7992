import { Button, Select } from '@mantine/core';
import { useState } from 'react';
import { startRollout } from '../api.js';
import type { Device, ModelVersion, Rollout } from '../api-types.js';
import { clock, shortVersion } from '../format.js';
import styles from './start-rollout.module.css';

interface Props {
  readonly models: readonly ModelVersion[] | undefined;
  readonly devices: readonly Device[];
  readonly running: boolean;
  readonly onStarted: (rollout: Rollout) => void;
}

const pace = { 'At once': [], 'A tenth, half, all': [10, 40] } as const satisfies Record<string, readonly number[]>;
type Pace = keyof typeof pace;

/** Brings the whole fleet to a published version. */
export function StartRollout({ models, devices, running, onStarted }: Props) {
  const [picked, setPicked] = useState<string | null>(null);
  const [waves, setWaves] = useState<Pace>('A tenth, half, all');
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<string | null>(null);
  const published = (models ?? []).filter((model) => model.publishedAt);
  if (published.length === 0 || devices.length === 0) return null;
  const behind = picked === null ? 0 : devices.filter((device) => device.observed?.modelVersionId !== picked).length;

  function start(modelVersionId: string) {
    setBusy(true);
    setError(null);
    startRollout(modelVersionId, pace[waves])
      .then(onStarted, (cause: Error) => setError(cause.message))
      .finally(() => setBusy(false));
  }

  return (
    <div className={styles.start}>
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
      <Select size="xs" label="Waves" value={waves} onChange={(value) => setWaves(value as Pace)} data={Object.keys(pace)} allowDeselect={false} />
      <Button size="xs" variant="light" disabled={picked === null || running} loading={busy} onClick={() => picked && start(picked)}>
        {picked === null ? 'Start rollout' : `Roll out to ${devices.length} ${devices.length === 1 ? 'device' : 'devices'}`}
      </Button>
      {picked !== null && (
        <p className={styles.note}>
          {running
            ? 'A rollout is under way; the next can start when it has ended.'
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
