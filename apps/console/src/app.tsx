import { useCallback, useEffect, useState } from 'react';
import { checkSession, isSignedOut, signOut } from './api.js';
import { Login } from './components/login.js';
import { Page } from './components/page.js';
import { LiveProvider } from './live.js';

/** Signed in or not; the page itself begins after that. */
export function App() {
  const [session, setSession] = useState<'unknown' | 'signed-in' | 'signed-out' | 'ended'>('unknown');
  useEffect(() => {
    // Nobody answering is not a refusal: the page then shows its own "connection lost".
    checkSession().then(
      () => setSession('signed-in'),
      (error: unknown) => setSession(isSignedOut(error) ? 'signed-out' : 'signed-in'),
    );
  }, []);
  const onSignedOut = useCallback(() => setSession('ended'), []);
  const leave = useCallback(() => void signOut().finally(() => setSession('signed-out')), []);
  if (session === 'unknown') return null;
  if (session !== 'signed-in') return <Login ended={session === 'ended'} onSignedIn={() => setSession('signed-in')} />;
  return (
    <LiveProvider onSignedOut={onSignedOut}>
      <Page onSignOut={leave} />
    </LiveProvider>
  );
}
