import type { Presence } from '../api-types.js';
import styles from './presence-mark.module.css';

/** A shape and a word, never colour alone: full disc, half disc, ring. */
export function PresenceMark({ presence }: { readonly presence: Presence }) {
  return (
    <span className={styles.mark} data-presence={presence}>
      <svg width="10" height="10" viewBox="0 0 10 10" aria-hidden="true">
        <circle cx="5" cy="5" r="4" fill={presence === 'online' ? 'currentColor' : 'none'} stroke="currentColor" strokeWidth="1.5" />
        {presence === 'suspect' && <path d="M5 1a4 4 0 0 1 0 8z" fill="currentColor" />}
      </svg>
      {presence}
    </span>
  );
}
