import { Progress } from '@mantine/core';
import type { Device } from '../api-types.js';
import { phaseOf } from '../phase.js';
import styles from './phase-line.module.css';

export function PhaseLine({ device }: { readonly device: Device }) {
  const { tone, text, percent } = phaseOf(device);
  return (
    <div className={styles.phase} data-tone={tone} data-field="phase">
      <span>{text}</span>
      {percent !== null && <Progress className={styles.bar} size={5} value={percent} aria-label={`${device.name}: ${text}`} />}
    </div>
  );
}
