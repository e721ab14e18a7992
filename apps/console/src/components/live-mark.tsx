import { useLive } from '../live.js';
import styles from './live-mark.module.css';

const words = { connecting: 'Connecting', live: 'Live', lost: 'Connection lost', 'signed-out': 'Signed out' } as const;

/** Whether what the page shows is happening now. */
export function LiveMark() {
  const { state } = useLive();
  return (
    <span className={styles.mark} data-state={state.kind} role="status">
      <span className={styles.dot} aria-hidden="true" />
      {words[state.kind]}
    </span>
  );
}
