import type { ReactNode } from 'react';
import { useId } from 'react';
import { Boundary } from './boundary.js';
import styles from './panel.module.css';

interface Props {
  readonly title: string;
  /** Where the jump links of a narrow page lead. */
  readonly anchor: string;
  readonly aside?: ReactNode;
  readonly children: ReactNode;
  /** The content brings its own padding. */
  readonly flush?: boolean;
}

/** A titled region of the page. */
export function Panel({ title, anchor, aside, children, flush }: Props) {
  const id = useId();
  return (
    <section id={anchor} className={styles.panel} aria-labelledby={id}>
      <div className={styles.head}>
        <h2 id={id} className={styles.title}>
          {title}
        </h2>
        {aside}
      </div>
      <div className={flush ? undefined : styles.body}>
        <Boundary what={title}>{children}</Boundary>
      </div>
    </section>
  );
}
