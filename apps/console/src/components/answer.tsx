import type { ModelVersion } from '../api-types.js';
import { shortVersion, duration } from '../format.js';
import { finished } from '../settle.js';
import type { Asked } from '../use-inferences.js';
import styles from './answer.module.css';
import { AttemptTrace } from './attempt-trace.js';

const words = { queued: 'Queued', running: 'Answering', succeeded: 'Answered', failed: 'Failed' } as const;

/** One inference: the prompt, the answer as it grows, who gave it, and every attempt. */
export function Answer({
  asked: { prompt, inference },
  models,
  open,
}: {
  readonly asked: Asked;
  readonly models: readonly ModelVersion[] | undefined;
  readonly open: boolean;
}) {
  const { state, attempts, answer, error } = inference;
  const last = attempts.at(-1);
  const sliceId = inference.sliceId ?? last?.sliceId;
  const versionId = inference.modelVersionId ?? last?.modelVersionId;
  const sliceName = models?.find(({ id }) => id === versionId)?.slices.find(({ id }) => id === sliceId)?.name ?? sliceId;
  return (
    <li className={styles.answer} data-inference={state}>
      <div className={styles.prompt}>{prompt}</div>
      {/* The whole text is announced once, when it is complete; the stream itself would read as noise. */}
      <div className={styles.text} aria-live="polite" aria-busy={!finished(inference)} data-field="answer">
        {answer}
        {!finished(inference) && <span className={styles.caret} aria-hidden="true" />}
        {error && <span className={styles.error}>{error}</span>}
      </div>
      <div className={styles.by}>
        <span className={styles.state} data-state={state}>
          {words[state]}
        </span>
        {last && (
          <span data-field="answered-by">
            {state === 'failed' ? 'last tried' : 'by'}{' '}
            <strong>{(inference.deviceId && attempts.find(({ deviceId }) => deviceId === inference.deviceId)?.deviceName) ?? last.deviceName}</strong>
            , slice {sliceName}
            {versionId && (
              <>
                {' '}
                of <code>{shortVersion(versionId)}</code>
              </>
            )}
          </span>
        )}
        {inference.finishedAt && <span className="numbers">in {duration(Date.parse(inference.finishedAt) - Date.parse(inference.createdAt))}</span>}
      </div>
      {attempts.length > 0 && (
        <details className={styles.trace} open={open || attempts.length > 1 || undefined}>
          <summary>
            {attempts.length} {attempts.length === 1 ? 'attempt' : 'attempts'}
          </summary>
          <AttemptTrace attempts={attempts} />
        </details>
      )}
    </li>
  );
}
