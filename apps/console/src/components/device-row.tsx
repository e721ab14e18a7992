import { Button } from '@mantine/core';
import { memo } from 'react';
import type { Condition, Device, ModelVersion } from '../api-types.js';
import { conditionFacts } from '../condition.js';
import type { DeviceEntry } from '../fleet.js';
import { bytes, shortVersion, significant } from '../format.js';
import { Ago } from './ago.js';
import styles from './device-row.module.css';
import { MemoryBar } from './memory-bar.js';
import { PhaseLine } from './phase-line.js';
import { PresenceMark } from './presence-mark.js';
import { Sparkline } from './sparkline.js';

interface Props {
  readonly entry: DeviceEntry;
  readonly models: readonly ModelVersion[] | undefined;
  readonly onExplain: (deviceId: string) => void;
}

/** One device: who it is, what it runs and why, and how fast it answers. */
export const DeviceRow = memo(function DeviceRow({ entry: { device, history }, models, onExplain }: Props) {
  const { desired, observed, latency } = device;
  const sliceId = observed?.sliceId ?? desired?.sliceId;
  const versionId = observed?.modelVersionId ?? desired?.modelVersionId;
  const model = models?.find(({ id }) => id === versionId);
  const slice = model?.slices.find(({ id }) => id === sliceId);
  return (
    <li className={styles.row} data-presence={device.presence} data-device={device.name}>
      <div className={styles.who}>
        <h3 className={styles.name}>{device.name}</h3>
        <div className={styles.presence}>
          <PresenceMark presence={device.presence} />
          {device.presence !== 'online' && device.lastSeenAt && (
            <span className={styles.faint}>
              seen <Ago iso={device.lastSeenAt} />
            </span>
          )}
        </div>
        <Hardware device={device} />
        <Doing condition={device.condition} />
        {device.labels.length > 0 && <div className={styles.faint}>{device.labels.map(({ key, value }) => `${key}=${value}`).join(' · ')}</div>}
      </div>
      <div className={styles.runs}>
        <div className={styles.slice}>
          <span className={styles.sliceName} data-field="slice">
            {slice?.name ?? sliceId ?? 'nothing yet'}
          </span>
          {desired && observed?.sliceId && desired.sliceId !== observed.sliceId && (
            <span className={styles.next}>
              <span aria-hidden="true">→ </span>
              <span className="visually-hidden">becoming </span>
              {models?.find(({ id }) => id === desired.modelVersionId)?.slices.find(({ id }) => id === desired.sliceId)?.name ?? desired.sliceId}
            </span>
          )}
          {versionId && (
            <span className={styles.faint} title={versionId}>
              {model?.name ?? desired?.modelName} <code>{shortVersion(versionId)}</code>
            </span>
          )}
        </div>
        <PhaseLine device={device} />
        <MemoryBar usedBytes={slice?.bytes} grantBytes={device.capabilities?.modelMemoryBytes} />
      </div>
      <Sparkline
        label="Time to first token"
        short="TTFT"
        unit="ms"
        color="--plot-a"
        history={history}
        value="ttftMs"
        note={latency ? `p95 ${significant(latency.ttftMs.p95)} ms` : undefined}
      />
      <Sparkline
        label="Tokens per second"
        short="Tokens/s"
        unit=""
        color="--plot-b"
        history={history}
        value="tokensPerSecond"
        note={latency ? `${significant(latency.interTokenMs.p50)} ms between` : undefined}
      />
      <div className={styles.reason}>
        <p data-field="reason">
          {desired?.reason ??
            (device.presence === 'online' ? 'Waiting for an assignment: no published model fits, or none is published.' : 'No slice assigned.')}
        </p>
        <Button size="compact-xs" variant="subtle" onClick={() => onExplain(device.id)} aria-label={`Why this slice on ${device.name}`}>
          Why this slice?
        </Button>
      </div>
    </li>
  );
});

/** How the box is doing, where that is worth a word. */
function Doing({ condition }: { readonly condition: Condition | null }) {
  const facts = conditionFacts(condition);
  if (facts.length === 0) return null;
  return (
    <div className={styles.faint} data-field="condition">
      {facts.map(({ text, tone }, i) => (
        <span key={text} className={tone === 'warn' ? styles.trouble : undefined}>
          {i > 0 && ' · '}
          {text}
        </span>
      ))}
    </div>
  );
}

function Hardware({ device: { capabilities: has } }: { readonly device: Device }) {
  if (!has) return null;
  const providers = has.executionProviders.filter((provider) => provider !== 'cpu');
  const facts = [
    `${has.cores} × ${has.architecture}`,
    has.totalMemoryBytes > 0 && bytes(has.totalMemoryBytes),
    has.memoryBandwidthBytesPerSecond > 0 && `${significant(has.memoryBandwidthBytesPerSecond / 1e9)} GB/s`,
    ...providers,
  ];
  return <div className={styles.faint}>{facts.filter(Boolean).join(' · ')}</div>;
}
