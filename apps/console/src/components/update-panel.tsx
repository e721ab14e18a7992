import type { Device, ModelVersion, Update } from '../api-types.js';
import { shortVersion } from '../format.js';
import { currentUpdate } from '../progress.js';
import { Ago } from './ago.js';
import { Panel } from './panel.js';
import { PushUpdate } from './push-update.js';
import { TargetBar } from './target-bar.js';
import styles from './update-panel.module.css';

interface Props {
  readonly updates: readonly Update[];
  readonly models: readonly ModelVersion[] | undefined;
  readonly devices: readonly Device[];
  readonly onStarted: (update: Update) => void;
}

const words = { running: 'Running, started', succeeded: 'Finished', failed: 'Failed' } as const;

/** The running update, or the last one, and the way to start the next. */
export function UpdatePanel({ updates, models, devices, onStarted }: Props) {
  const update = currentUpdate(updates);
  return (
    <Panel title="Model update" anchor="update">
      {update ? (
        <div data-update={update.state}>
          <div className={styles.head}>
            <span>
              {models?.find(({ id }) => id === update.modelVersionId)?.name ?? 'Model'}{' '}
              <code title={update.modelVersionId}>{shortVersion(update.modelVersionId)}</code>
            </span>
            <span className={styles.state} data-state={update.state}>
              {words[update.state]} <Ago iso={update.finishedAt ?? update.createdAt} />
            </span>
          </div>
          <TargetBar update={update} />
        </div>
      ) : (
        <p className={styles.quiet}>
          No update has been pushed. An update brings the chosen devices to one model version; each device gets the slice that fits it.
        </p>
      )}
      <PushUpdate models={models} devices={devices} running={update?.state === 'running'} onStarted={onStarted} />
    </Panel>
  );
}
