import { Button } from '@mantine/core';
import { useLive } from '../live.js';
import { clock } from '../format.js';
import { useNow } from '../use-now.js';
import styles from './connection-banner.module.css';

/** Says that the page is stale, since when, and when it tries again. `error` is a read that failed on a live connection. */
export function ConnectionBanner({ error }: { readonly error: string | null }) {
  const { state } = useLive();
  if (state.kind === 'lost') return <Lost sinceMs={state.sinceMs} nextTryAtMs={state.nextTryAtMs} />;
  return error ? (
    <div className={styles.banner} role="alert">
      The devices could not be read: {error}
    </div>
  ) : null;
}

function Lost({ sinceMs, nextTryAtMs }: { readonly sinceMs: number; readonly nextTryAtMs: number | null }) {
  const { connection } = useLive();
  const nowMs = useNow();
  return (
    <div className={styles.banner}>
      <span role="alert">
        <strong>Connection lost.</strong> What you see is from {clock(new Date(sinceMs).toISOString())}.
      </span>
      <span className="numbers">
        {nextTryAtMs === null ? 'Trying now…' : `Next try in ${Math.max(0, Math.ceil((nextTryAtMs - nowMs) / 1000))} s.`}
      </span>
      <Button size="compact-xs" variant="default" disabled={nextTryAtMs === null} onClick={() => connection?.retryNow()}>
        Try now
      </Button>
    </div>
  );
}
