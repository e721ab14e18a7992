import { Button } from '@mantine/core';
import { countPresence, type Fleet } from '../fleet.js';
import { places, type Place } from '../use-place.js';
import styles from './header.module.css';
import { LiveMark } from './live-mark.js';
import { Mark } from './mark.js';
import { PresenceMark } from './presence-mark.js';
import { SchemeButton } from './scheme-button.js';

const names: Readonly<Record<Place, string>> = { fleet: 'Fleet', identity: 'Identity', audit: 'Audit' };
const shown = ['online', 'suspect', 'offline'] as const;

export function Header({
  fleet,
  place,
  onAddDevice,
  onSignOut,
}: {
  readonly fleet: Fleet | undefined;
  readonly place: Place;
  readonly onAddDevice: () => void;
  readonly onSignOut: () => void;
}) {
  const count = countPresence(fleet ?? new Map());
  return (
    <header className={styles.header}>
      <h1 className={styles.name}>
        <Mark /> Matfleet
      </h1>
      <ul className={styles.counts} aria-label="Devices by presence">
        {shown.map((presence) => (
          <li key={presence} data-none={count[presence] === 0 || undefined}>
            <span className="numbers">{count[presence]}</span> <PresenceMark presence={presence} />
          </li>
        ))}
      </ul>
      <nav className={styles.places} aria-label="Pages">
        {places.map((one) => (
          <a key={one} href={`#/${one}`} aria-current={one === place ? 'page' : undefined}>
            {names[one]}
          </a>
        ))}
      </nav>
      {place === 'fleet' && (
        <nav className={styles.jumps} aria-label="On this page">
          <a href="#devices">Devices</a>
          <a href="#ask">Ask</a>
          <a href="#rollout">Rollout</a>
        </nav>
      )}
      <div className={styles.actions}>
        <LiveMark />
        <Button size="compact-sm" variant="light" onClick={onAddDevice}>
          Add device
        </Button>
        <SchemeButton />
        <Button size="compact-sm" variant="subtle" color="gray" onClick={onSignOut}>
          Sign out
        </Button>
      </div>
    </header>
  );
}
