import { Button } from '@mantine/core';
import { useState } from 'react';
import { commandRollout, type RolloutCommand } from '../api.js';
import type { Device, ModelVersion, Rollout, RolloutState } from '../api-types.js';
import { shortVersion } from '../format.js';
import { commandsFor, currentRollout, isEnded } from '../progress.js';
import { Ago } from './ago.js';
import { Panel } from './panel.js';
import styles from './rollout-panel.module.css';
import { StartRollout } from './start-rollout.js';
import { WaveBar } from './wave-bar.js';

interface Props {
  readonly rollouts: readonly Rollout[];
  readonly models: readonly ModelVersion[] | undefined;
  readonly devices: readonly Device[];
  readonly onChanged: (rollout: Rollout) => void;
}

const words: Readonly<Record<RolloutState, string>> = {
  'awaiting-approval': 'Waits for an approval, since',
  running: 'Running, started',
  paused: 'Paused, started',
  'rolling-back': 'Going back, started',
  succeeded: 'Finished',
  aborted: 'Aborted',
  'rolled-back': 'Taken back',
};
const actions: Readonly<Record<RolloutCommand, string>> = { pause: 'Pause', resume: 'Resume', approve: 'Approve', abort: 'Abort and go back' };
/** Waves listed; those that are through come last. */
const listed = 12;

/** The rollout that has not ended, or the last one, what can be done with it, and the way to start the next. */
export function RolloutPanel({ rollouts, models, devices, onChanged }: Props) {
  const [error, setError] = useState<string | null>(null);
  const rollout = currentRollout(rollouts);
  const command = (id: string, what: RolloutCommand): void => {
    setError(null);
    commandRollout(id, what).then(onChanged, (cause: Error) => setError(cause.message));
  };
  return (
    <Panel title="Rollout" anchor="rollout">
      {rollout ? (
        <div data-rollout={rollout.state}>
          <div className={styles.head}>
            <span>
              {rollout.name ?? models?.find(({ id }) => id === rollout.modelVersionId)?.name ?? 'Model'}{' '}
              <code title={rollout.modelVersionId}>{shortVersion(rollout.modelVersionId)}</code>
            </span>
            <span className={styles.state} data-state={rollout.state}>
              {words[rollout.state]} <Ago iso={rollout.finishedAt ?? rollout.createdAt} />
            </span>
          </div>
          {rollout.reason && <p className={styles.reason}>{rollout.reason}</p>}
          <ul className={styles.waves}>
            {[...rollout.waves]
              .sort((a, b) => Number(a.state === 'succeeded') - Number(b.state === 'succeeded') || a.wave - b.wave)
              .slice(0, listed)
              .sort((a, b) => a.wave - b.wave)
              .map((wave) => (
                <WaveBar key={wave.wave} wave={wave} />
              ))}
          </ul>
          {rollout.waves.length > listed && <p className={styles.quiet}>and {rollout.waves.length - listed} more waves</p>}
          <div className={styles.actions}>
            {commandsFor(rollout).map((what) => (
              <Button key={what} size="compact-xs" variant={what === 'abort' ? 'subtle' : 'light'} onClick={() => command(rollout.id, what)}>
                {actions[what]}
              </Button>
            ))}
          </div>
          {error && (
            <p className={styles.reason} role="alert">
              {error}
            </p>
          )}
        </div>
      ) : (
        <p className={styles.quiet}>
          There was no rollout yet. A rollout brings devices to one model version, wave after wave; each device gets the slice that fits it.
        </p>
      )}
      <StartRollout models={models} devices={devices} running={rollout !== undefined && !isEnded(rollout)} onStarted={onChanged} />
    </Panel>
  );
}
