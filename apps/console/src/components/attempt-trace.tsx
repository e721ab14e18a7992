import type { Attempt } from '../api-types.js';
import { duration } from '../format.js';
import styles from './attempt-trace.module.css';

/** Which device was tried, why that one, and how it ended: in the order of trying, so that a fallback reads as a story. */
export function AttemptTrace({ attempts }: { readonly attempts: readonly Attempt[] }) {
  return (
    <ol className={styles.trace}>
      {attempts.map((attempt) => (
        <li key={attempt.ordinal} data-attempt={attempt.state}>
          <div className={styles.head}>
            <strong>{attempt.deviceName}</strong>
            <span>{attempt.sliceId}</span>
            <span className={styles.state} data-state={attempt.state}>
              {attempt.state}
            </span>
            <span className={styles.numbers}>{numbers(attempt)}</span>
          </div>
          <div className={styles.reason}>{attempt.reason}</div>
          {attempt.error && <div className={styles.error}>{attempt.error}</div>}
        </li>
      ))}
    </ol>
  );
}

function numbers({ ttftMs, outputTokens, startedAt, finishedAt }: Attempt): string {
  const parts = [
    ttftMs !== null && `first token ${duration(ttftMs)}`,
    outputTokens !== null && `${outputTokens} tokens`,
    finishedAt !== null && duration(Date.parse(finishedAt) - Date.parse(startedAt)),
  ];
  return parts.filter(Boolean).join(' · ');
}
