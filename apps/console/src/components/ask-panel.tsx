import { Button, NumberInput, Select, Textarea } from '@mantine/core';
import { useState, type FormEvent, type KeyboardEvent } from 'react';
import type { Device, InferenceRequest, ModelVersion } from '../api-types.js';
import { meetsFloor, tasksOf } from '../floor.js';
import type { Asked } from '../use-inferences.js';
import { Answer } from './answer.js';
import styles from './ask-panel.module.css';
import { Panel } from './panel.js';

interface Props {
  readonly devices: readonly Device[];
  readonly models: readonly ModelVersion[] | undefined;
  readonly asked: readonly Asked[];
  readonly ask: (request: InferenceRequest) => Promise<void>;
}

/** Sends a queued inference to the fleet and shows who answers it. */
export function AskPanel({ devices, models, asked, ask }: Props) {
  const [prompt, setPrompt] = useState('');
  const [task, setTask] = useState<string | null>(null);
  const [floorPercent, setFloorPercent] = useState<number | string>('');
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<string | null>(null);
  const qualityFloor = typeof floorPercent === 'number' ? floorPercent / 100 : undefined;
  const tasks = tasksOf(models ?? []);

  async function submit(event?: FormEvent) {
    event?.preventDefault();
    if (busy || prompt.trim() === '') return;
    setBusy(true);
    setError(null);
    try {
      await ask({ prompt: prompt.trim(), ...(task !== null && { task }), ...(qualityFloor !== undefined && { qualityFloor }) });
    } catch (cause) {
      setError((cause as Error).message);
    } finally {
      setBusy(false);
    }
  }

  const onKeyDown = (event: KeyboardEvent) => {
    if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) void submit();
  };

  return (
    <Panel title="Ask the fleet" anchor="ask">
      <form className={styles.form} onSubmit={(event) => void submit(event)}>
        <Textarea
          label="Prompt"
          placeholder="turn on the lamp in the hall"
          autosize
          minRows={2}
          maxRows={8}
          maxLength={32_000}
          value={prompt}
          onChange={(event) => setPrompt(event.currentTarget.value)}
          onKeyDown={onKeyDown}
        />
        <div className={styles.options}>
          <Select
            size="xs"
            label="Task"
            placeholder="any"
            clearable
            data={[...tasks]}
            value={task}
            onChange={setTask}
            disabled={tasks.length === 0}
          />
          <NumberInput
            size="xs"
            label="Quality floor"
            placeholder="none"
            suffix=" %"
            min={0}
            max={100}
            step={5}
            decimalScale={1}
            value={floorPercent}
            onChange={setFloorPercent}
          />
          <Button type="submit" size="xs" loading={busy} disabled={prompt.trim() === ''}>
            Send
          </Button>
        </div>
        {qualityFloor !== undefined && <Floor names={meetsFloor(devices, models ?? [], qualityFloor, task ?? undefined)} total={devices.length} />}
        {error && (
          <p className={styles.error} role="alert">
            {error}
          </p>
        )}
      </form>
      {asked.length > 0 && (
        <ol className={styles.answers} aria-label="Answers, newest first">
          {asked.map((one, i) => (
            <Answer key={one.inference.id} asked={one} models={models} open={i === 0} />
          ))}
        </ol>
      )}
    </Panel>
  );
}

function Floor({ names, total }: { readonly names: readonly string[]; readonly total: number }) {
  const some = names.slice(0, 4).join(', ') + (names.length > 4 ? ` and ${names.length - 4} more` : '');
  return <p className={styles.note}>{names.length === 0 ? `None of ${total} devices meets this floor now.` : `Met by ${some}.`}</p>;
}
