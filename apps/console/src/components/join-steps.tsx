import { Button, TextInput } from '@mantine/core';
import { useState } from 'react';
import { createJoinToken } from '../api.js';
import type { JoinToken } from '../api-types.js';
import { clock } from '../format.js';
import { joinCommand } from '../join-command.js';
import { CopyCommand } from './copy-command.js';
import styles from './join-steps.module.css';

/** Makes a join token and shows the command to paste on the box. */
export function JoinSteps() {
  const [token, setToken] = useState<JoinToken | null>(null);
  const [name, setName] = useState('kiosk');
  const [memory, setMemory] = useState('2MiB');
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<string | null>(null);

  function create() {
    setBusy(true);
    setError(null);
    createJoinToken()
      .then(setToken, (cause: Error) => setError(cause.message))
      .finally(() => setBusy(false));
  }

  return (
    <ol className={styles.steps}>
      <li>
        <div className={styles.fields}>
          <TextInput size="xs" label="Device name" value={name} onChange={(event) => setName(event.currentTarget.value)} />
          <TextInput
            size="xs"
            label="Memory for the model"
            description="Weights, K/V and activations together"
            inputWrapperOrder={['label', 'input', 'description']}
            value={memory}
            onChange={(event) => setMemory(event.currentTarget.value)}
          />
        </div>
      </li>
      <li>
        <Button size="xs" loading={busy} onClick={create}>
          {token ? 'Make another token' : 'Make a join token'}
        </Button>
        <span className={styles.note}>
          {token
            ? `For ${token.usesLeft === 1 ? 'one device' : `${token.usesLeft} devices`}, until ${clock(token.expiresAt)}. It is shown only here.`
            : 'For one device, valid for an hour.'}
        </span>
        {error && (
          <p className={styles.error} role="alert">
            {error}
          </p>
        )}
      </li>
      <li>
        <span>Run this on the device:</span>
        <CopyCommand
          text={joinCommand({ deviceUrl: token?.deviceUrl ?? `https://${location.hostname}:7443`, token: token?.token, name, memory })}
          ready={token !== null}
        />
      </li>
    </ol>
  );
}
