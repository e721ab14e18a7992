import type { RolloutWave } from '../api-types.js';
import { shares } from '../progress.js';
import styles from './wave-bar.module.css';

const words: Readonly<Record<RolloutWave['state'], string>> = {
  pending: 'not begun',
  'awaiting-approval': 'waits for an approval',
  running: 'running',
  observing: 'watched before its gates',
  succeeded: 'through',
  failed: 'stopped',
};

/** One wave: a bar divided by where its devices stand, its legend, why it is where it is, and what its gates said. */
export function WaveBar({ wave }: { readonly wave: RolloutWave }) {
  const parts = shares(wave.counts);
  const summary = parts.map(({ stage, count }) => `${count} ${stage}`).join(', ');
  const name = `Wave ${wave.wave}${wave.name === null ? '' : ` ${wave.name}`}`;
  return (
    <li className={styles.wave} data-wave={wave.state}>
      <div className={styles.head}>
        <span>{name}</span>
        <span className={styles.detail}>{words[wave.state]}</span>
      </div>
      <div className={styles.bar} role="img" aria-label={`${name}: ${summary || 'no devices'}`}>
        {parts.map(({ stage, percent }) => (
          <div key={stage} data-stage={stage} style={{ width: `${percent}%` }} />
        ))}
      </div>
      <ul className={styles.legend}>
        {parts.map(({ stage, count }) => (
          <li key={stage} data-stage={stage}>
            {count} {stage}
          </li>
        ))}
      </ul>
      {wave.reason && wave.state !== 'succeeded' && <p className={styles.detail}>{wave.reason}</p>}
      {wave.gates.map(({ gate, verdict, reason }) => (
        <p key={gate} className={styles.gate} data-verdict={verdict}>
          Gate {gate} {verdict}: {reason}
        </p>
      ))}
    </li>
  );
}
