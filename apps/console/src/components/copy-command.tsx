import { Button } from '@mantine/core';
import { useState } from 'react';
import styles from './copy-command.module.css';

/** A command to paste elsewhere. `ready` is false while a part of it is still missing. */
export function CopyCommand({ text, ready }: { readonly text: string; readonly ready: boolean }) {
  const [copied, setCopied] = useState<'no' | 'yes' | 'refused'>('no');

  async function copy() {
    try {
      // Refused on plain HTTP away from localhost: the text can still be selected.
      await navigator.clipboard.writeText(text);
      setCopied('yes');
    } catch {
      setCopied('refused');
    }
    setTimeout(() => setCopied('no'), 4_000);
  }

  return (
    <div className={styles.command}>
      <pre tabIndex={0} aria-label="Command" data-ready={ready || undefined}>
        {text}
      </pre>
      <Button size="compact-xs" variant="default" disabled={!ready} onClick={() => void copy()}>
        Copy
      </Button>
      <span className={styles.note} role="status">
        {copied === 'yes' ? 'Copied.' : copied === 'refused' ? 'The browser refused: select the text instead.' : ''}
      </span>
    </div>
  );
}
