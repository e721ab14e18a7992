import { Button, Drawer, Select, Tabs } from '@mantine/core';
import { Fragment, useCallback, useEffect, useState, type ReactNode } from 'react';
import { evaluateDevice, listAssignments } from '../api.js';
import type { Assignment, Device, ModelVersion } from '../api-types.js';
import { bytes, clock, shortVersion, significant } from '../format.js';
import { Boundary } from './boundary.js';
import { CandidateTable } from './candidate-table.js';
import styles from './explanation-drawer.module.css';
import { Timeline } from './timeline.js';

interface Props {
  readonly device: Device | null;
  readonly models: readonly ModelVersion[] | undefined;
  readonly onClose: () => void;
}

/** Why a device runs its slice, every candidate of an assignment with its numbers; and what happened to the device. */
export function ExplanationDrawer({ device, models, onClose }: Props) {
  return (
    <Drawer
      opened={device !== null}
      onClose={onClose}
      position="right"
      size="min(720px, 100vw)"
      title={device ? `Why this slice on ${device.name}` : ''}
      closeButtonProps={{ 'aria-label': 'Close' }}
    >
      {device && (
        <Boundary key={device.id} what="The explanation">
          <Tabs defaultValue="why" keepMounted={false}>
            <Tabs.List mb={14}>
              <Tabs.Tab value="why">Why</Tabs.Tab>
              <Tabs.Tab value="timeline">Timeline</Tabs.Tab>
            </Tabs.List>
            <Tabs.Panel value="why">
              <Explanation device={device} models={models} />
            </Tabs.Panel>
            <Tabs.Panel value="timeline">
              <Timeline deviceId={device.id} />
            </Tabs.Panel>
          </Tabs>
        </Boundary>
      )}
    </Drawer>
  );
}

function Explanation({ device, models }: { readonly device: Device; readonly models: readonly ModelVersion[] | undefined }) {
  const { assignments, error, evaluating, evaluate } = useAssignments(device);
  const [picked, setPicked] = useState<string | null>(null);
  const shown = assignments?.find(({ generation }) => String(generation) === picked) ?? assignments?.[0];
  return (
    <div className={styles.explanation}>
      {error && (
        <p className={styles.error} role="alert">
          {error}
        </p>
      )}
      {!assignments && !error && <p className={styles.quiet}>Reading the assignments…</p>}
      {assignments?.length === 0 && (
        <p className={styles.quiet}>This device has had no assignment. It gets one when a model is published or when it is evaluated.</p>
      )}
      {shown && (
        <>
          <p className={styles.reason}>{shown.reason}</p>
          <Facts assignment={shown} model={models?.find(({ id }) => id === shown.modelVersionId)} />
          <CandidateTable explanation={shown.explanation} />
        </>
      )}
      <div className={styles.actions}>
        {assignments && assignments.length > 1 && (
          <Select
            size="xs"
            w={280}
            label="Assignment"
            allowDeselect={false}
            value={String(shown?.generation)}
            onChange={setPicked}
            data={assignments.map((one, i) => ({
              value: String(one.generation),
              label: `Generation ${one.generation}, ${clock(one.createdAt)}${i === 0 ? ' (current)' : ''}`,
            }))}
          />
        )}
        <Button size="xs" variant="default" loading={evaluating} onClick={evaluate}>
          Evaluate now
        </Button>
      </div>
    </div>
  );
}

/** The numbers that the decision was made with: the device's present ones may differ. */
function Facts({
  assignment: { modelVersionId, explanation },
  model,
}: {
  readonly assignment: Assignment;
  readonly model: ModelVersion | undefined;
}) {
  const { measured, memoryBandwidthBytesPerSecond: bandwidth } = explanation;
  const facts: readonly (readonly [string, ReactNode])[] = [
    [
      'Model version',
      <>
        {model?.name} <code title={modelVersionId}>{shortVersion(modelVersionId)}</code>
      </>,
    ],
    ['Memory limit', `${bytes(explanation.memoryLimitBytes)} (${explanation.memoryLimitFrom})`],
    ['Latency target', `${significant(explanation.targetInterTokenMs)} ms per token`],
    ['Measured then', measured ? `${significant(measured.interTokenMs)} ms per token over ${measured.tokens} tokens` : 'nothing yet'],
    [
      'Prediction',
      `${bandwidth > 0 ? `${significant(bandwidth / 1e9)} GB/s of memory bandwidth` : 'bandwidth not measured'}, × ${explanation.latencyCorrection.toFixed(2)} learned from measurements`,
    ],
    ['Context', `${explanation.contextTokens} tokens`],
  ];
  return (
    <dl className={styles.facts}>
      {facts.map(([term, fact]) => (
        <Fragment key={term}>
          <dt>{term}</dt>
          <dd>{fact}</dd>
        </Fragment>
      ))}
    </dl>
  );
}

/** Read again with every new generation of the device's desired document. */
function useAssignments(device: Device) {
  const [assignments, setAssignments] = useState<readonly Assignment[]>();
  const [error, setError] = useState<string | null>(null);
  const [evaluating, setEvaluating] = useState(false);
  const read = useCallback(
    () =>
      listAssignments(device.id).then(
        (found) => {
          setAssignments(found);
          setError(null);
        },
        (cause: Error) => setError(`The assignments could not be read: ${cause.message}`),
      ),
    [device.id],
  );
  useEffect(() => void read(), [read, device.desired?.generation]);
  const evaluate = () => {
    setEvaluating(true);
    evaluateDevice(device.id)
      .then(read, (cause: Error) => setError(`The evaluation failed: ${cause.message}`))
      .finally(() => setEvaluating(false));
  };
  return { assignments, error, evaluating, evaluate };
}
