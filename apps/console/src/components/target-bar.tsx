import type { Update } from '../api-types.js';
import { shares } from '../progress.js';
import styles from './target-bar.module.css';

const words = { succeeded: 'done', pushed: 'under way', pending: 'waiting', failed: 'failed' } as const;
/** Targets listed by name; the bar counts all of them. */
const listed = 12;

/** One bar divided by the state of the targets, its legend, and the targets that are not done. */
export function TargetBar({ update }: { readonly update: Update }) {
  const parts = shares(update);
  const open = update.targets.filter(({ state }) => state !== 'succeeded');
  const summary = parts.map(({ state, count }) => `${count} ${words[state]}`).join(', ');
  return (
    <div>
      <div className={styles.bar} role="img" aria-label={`Update progress: ${summary || 'no targets'}`}>
        {parts.map(({ state, percent }) => (
          <div key={state} data-state={state} style={{ width: `${percent}%` }} />
        ))}
      </div>
      <ul className={styles.legend}>
        {parts.map(({ state, count }) => (
          <li key={state} data-state={state}>
            {count} {words[state]}
          </li>
        ))}
      </ul>
      {open.length > 0 && (
        <ul className={styles.targets}>
          {open.slice(0, listed).map((target) => (
            <li key={target.deviceId} data-state={target.state}>
              <span>{target.deviceName}</span>
              <span className={styles.detail}>{target.error ?? words[target.state]}</span>
            </li>
          ))}
          {open.length > listed && <li className={styles.detail}>and {open.length - listed} more</li>}
        </ul>
      )}
    </div>
  );
}
