import { Button, PasswordInput } from '@mantine/core';
import { useState, type FormEvent } from 'react';
import { isSignedOut, signIn } from '../api.js';
import styles from './login.module.css';
import { Mark } from './mark.js';

/** Trades the API key for a session cookie; the key is not kept. */
export function Login({ ended, onSignedIn }: { readonly ended: boolean; readonly onSignedIn: () => void }) {
  const [apiKey, setApiKey] = useState('');
  const [error, setError] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);

  async function submit(event: FormEvent) {
    event.preventDefault();
    setBusy(true);
    setError(null);
    try {
      await signIn(apiKey.trim());
      onSignedIn();
    } catch (cause) {
      setError(isSignedOut(cause) ? 'This key is not known here, or it was revoked.' : `Signing in failed: ${(cause as Error).message}`);
    } finally {
      setBusy(false);
    }
  }

  return (
    <main className={styles.screen}>
      <form className={styles.card} onSubmit={(event) => void submit(event)}>
        <h1 className={styles.title}>
          <Mark /> Matfleet
        </h1>
        <p className={styles.lead}>{ended ? 'Your session has ended. Sign in again to go on.' : 'Sign in to see and steer the fleet.'}</p>
        <PasswordInput
          label="API key"
          name="api-key"
          autoComplete="current-password"
          data-autofocus
          autoFocus
          required
          withAsterisk={false}
          value={apiKey}
          onChange={(event) => setApiKey(event.currentTarget.value)}
          error={error}
        />
        <Button type="submit" fullWidth mt="md" loading={busy}>
          Sign in
        </Button>
        <p className={styles.hint}>
          The control plane wrote the first key to <code>admin-api-key</code> in its data directory and named that path when it started.
        </p>
      </form>
    </main>
  );
}
