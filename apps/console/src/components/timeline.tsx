import { Button } from '@mantine/core';
import { useTimeline } from '../use-timeline.js';
import { Ago } from './ago.js';
import explained from './explanation-drawer.module.css';
import styles from './timeline.module.css';

const words: Readonly<Record<string, string>> = { 'session-opened': 'session', 'session-ended': 'session ended' };

/** What happened to a device, newest first. */
export function Timeline({ deviceId }: { readonly deviceId: string }) {
  const { entries, error, older } = useTimeline(deviceId);
  return (
    <section aria-label="Timeline">
      {error && (
        <p className={explained.error} role="alert">
          {error}
        </p>
      )}
      {!entries && !error && <p className={explained.quiet}>Reading the timeline…</p>}
      {entries?.length === 0 && <p className={explained.quiet}>Nothing is written down yet: sessions, assignments and changes will stand here.</p>}
      <ol className={styles.entries}>
        {entries?.map(({ id, at, kind, summary }) => (
          <li key={id} className={styles.entry} data-kind={kind}>
            <span className={styles.at}>
              <Ago iso={at} />
            </span>
            <span className={styles.kind}>{words[kind] ?? kind}</span>
            <span className={styles.summary} data-tone={kind === 'failed' ? 'bad' : undefined}>
              {summary}
            </span>
          </li>
        ))}
      </ol>
      {older && (
        <Button size="xs" variant="default" mt={10} onClick={older}>
          Older
        </Button>
      )}
    </section>
  );
}
