import { useState } from 'react';
import type { Device } from '../api-types.js';
import { byName } from '../fleet.js';
import { useLive } from '../live.js';
import { useFleet } from '../use-fleet.js';
import { useInferences } from '../use-inferences.js';
import { useModels } from '../use-models.js';
import { usePlace } from '../use-place.js';
import { useRollouts } from '../use-rollouts.js';
import { AddDevice } from './add-device.js';
import { AskPanel } from './ask-panel.js';
import { AuditPage } from './audit-page.js';
import { ConnectionBanner } from './connection-banner.js';
import { DeviceList } from './device-list.js';
import { ExplanationDrawer } from './explanation-drawer.js';
import { Header } from './header.js';
import { IdentityPage } from './identity-page.js';
import styles from './page.module.css';
import { RolloutPanel } from './rollout-panel.js';

/** Everything an operator sees once signed in. */
export function Page({ onSignOut }: { readonly onSignOut: () => void }) {
  const { state } = useLive();
  const { fleet, error } = useFleet();
  const { rollouts, add } = useRollouts();
  const models = useModels();
  const { asked, ask } = useInferences();
  const place = usePlace();
  const [explainedId, setExplainedId] = useState<string | null>(null);
  const [adding, setAdding] = useState(false);
  const entries = fleet && byName(fleet);
  const devices: readonly Device[] = entries?.map(({ device }) => device) ?? [];
  return (
    <>
      <Header fleet={fleet} place={place} onAddDevice={() => setAdding(true)} onSignOut={onSignOut} />
      <ConnectionBanner error={error} />
      <main className={place === 'fleet' ? styles.main : styles.single} data-stale={state.kind === 'lost' || undefined}>
        {place === 'identity' && <IdentityPage devices={devices} />}
        {place === 'audit' && <AuditPage devices={devices} />}
        {place === 'fleet' && (
          <>
            <DeviceList entries={entries} models={models} onExplain={setExplainedId} />
            <div className={styles.side}>
              <AskPanel devices={devices} models={models} asked={asked} ask={ask} />
              <RolloutPanel rollouts={rollouts} models={models} devices={devices} onChanged={add} />
            </div>
          </>
        )}
      </main>
      <ExplanationDrawer device={(explainedId && fleet?.get(explainedId)?.device) || null} models={models} onClose={() => setExplainedId(null)} />
      <AddDevice opened={adding} onClose={() => setAdding(false)} />
    </>
  );
}
