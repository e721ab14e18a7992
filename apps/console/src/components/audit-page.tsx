import { Button, Select } from '@mantine/core';
import { useCallback, useState } from 'react';
import { listAudit } from '../api.js';
import type { AuditRecord, Device } from '../api-types.js';
import { useReading } from '../use-reading.js';
import { Panel } from './panel.js';
import { Table } from './table.js';
import styles from './table.module.css';

/** Who changed what, newest first, with what was before and after. */
export function AuditPage({ devices }: { readonly devices: readonly Device[] }) {
  const [deviceId, setDeviceId] = useState<string | null>(null);
  const [older, setOlder] = useState<readonly AuditRecord[]>([]);
  const [ended, setEnded] = useState(false);
  const subject = deviceId === null ? undefined : `device:${deviceId}`;
  const { value: newest, error, act } = useReading(useCallback(() => listAudit(subject === undefined ? {} : { subject }), [subject]));
  const seen = newest ?? [];
  const last = older.at(-1) ?? seen.at(-1);
  const records = [...seen, ...older.filter(({ sequence }) => sequence < (seen.at(-1)?.sequence ?? Infinity))];
  const more = (): void =>
    void act(async () => {
      const page = await listAudit({ before: last!.sequence, ...(subject !== undefined && { subject }) });
      setOlder((known) => [...known, ...page]);
      setEnded(page.length === 0);
    });
  const nameOf = (text: string): string => {
    const [thing, id] = text.split(':', 2);
    const device = thing === 'device' ? devices.find((one) => one.id === id) : undefined;
    return device ? `device ${device.name}` : `${thing} ${id?.slice(0, 12) ?? ''}`;
  };
  return (
    <Panel title="Audit log" anchor="audit">
      {error && (
        <p className={styles.error} role="alert">
          {error}
        </p>
      )}
      <div className={styles.bar}>
        <Select
          size="xs"
          label="Of one device"
          placeholder="everything"
          clearable
          searchable
          limit={50}
          value={deviceId}
          onChange={(id) => {
            setDeviceId(id);
            setOlder([]);
            setEnded(false);
          }}
          data={devices.map(({ id, name }) => ({ value: id, label: name }))}
        />
        <p className={styles.quiet}>
          Each record carries the hash of the one before. <code>matfleet audit verify</code> checks the chain offline.
        </p>
      </div>
      {newest && records.length === 0 && <p className={styles.quiet}>Nothing was changed yet.</p>}
      {records.length > 0 && (
        <Table
          label="Audit records"
          columns={['#', 'When', 'Who', 'What', 'Of', 'Before and after']}
          rows={records.map((record) => ({
            key: record.sequence,
            cells: [
              record.sequence,
              <time dateTime={record.at}>{new Date(record.at).toLocaleString()}</time>,
              nameOf(record.actor),
              record.action,
              <span title={record.subject}>{nameOf(record.subject)}</span>,
              <Change record={record} />,
            ],
          }))}
        />
      )}
      {last && last.sequence > 1 && !ended && (
        <Button mt={12} size="xs" variant="default" onClick={more}>
          Older
        </Button>
      )}
    </Panel>
  );
}

function Change({ record: { before, after, hash } }: { readonly record: AuditRecord }) {
  const text = (value: unknown): string => JSON.stringify(value, null, 1).replace(/\n\s*/g, ' ');
  return (
    <details>
      <summary>{before === null ? 'new' : after === null ? 'ended' : 'changed'}</summary>
      <div className={styles.detail}>
        {before !== null && <div>before {text(before)}</div>}
        {after !== null && <div>after {text(after)}</div>}
        <div>hash {hash}</div>
      </div>
    </details>
  );
}
