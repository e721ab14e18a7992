import { bytes } from '../format.js';
import styles from './memory-bar.module.css';

/** How much of the operator's grant the slice takes. */
export function MemoryBar({ usedBytes, grantBytes }: { readonly usedBytes: number | undefined; readonly grantBytes: number | undefined }) {
  if (!grantBytes) return null;
  const share = usedBytes === undefined ? 0 : usedBytes / grantBytes;
  const text = usedBytes === undefined ? `${bytes(grantBytes)} granted` : `${bytes(usedBytes)} of ${bytes(grantBytes)} granted`;
  return (
    <div className={styles.memory}>
      <div className={styles.track} aria-hidden="true">
        <div className={styles.used} data-over={share > 1 || undefined} style={{ width: `${Math.min(100, share * 100)}%` }} />
      </div>
      <span className={styles.text}>{text}</span>
    </div>
  );
}
