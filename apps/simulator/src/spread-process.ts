// One process of a spread simulation: told by its parent what to do, until the parent is gone.
import { HistoryFile } from '@matfleet/history';
import { NO_FAULTS, readScript } from './network/script.js';
import { Simulation } from './simulation.js';
import type { FromProcess, Share, ToProcess } from './spread.js';

const COUNTS_EVERY_MS = 500;

let simulation: Simulation | undefined;
let history: HistoryFile | undefined;

/** Into nothing when the parent is gone: its end is this process's own. */
const send = (message: FromProcess): void => void (process.connected && process.send!(message, undefined, undefined, () => undefined));
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => undefined);
process.once('disconnect', () => process.exit());
process.on('message', (message: ToProcess) => {
  obey(message).catch((error: unknown) => send({ kind: 'failed', message: error instanceof Error ? error.message : String(error) }));
});

async function obey(message: ToProcess): Promise<void> {
  switch (message.kind) {
    case 'share':
      return open(message.share);
    case 'start':
      await simulation!.start();
      break;
    case 'play':
      await simulation!.playScript();
      break;
    case 'reset-acks':
      return simulation!.resetAcks();
    case 'stop':
      await simulation?.stop();
      history?.close();
      break;
  }
  send({ kind: 'counts', counts: simulation!.counts() });
  send({ kind: 'done', of: message.kind });
}

function open({ script, history: historyPath, ...share }: Share): void {
  history = historyPath === undefined ? undefined : new HistoryFile(historyPath);
  simulation = new Simulation({
    ...share,
    script: script === undefined ? NO_FAULTS : readScript(script),
    record: (event) => history?.add(event),
  });
  setInterval(() => send({ kind: 'counts', counts: simulation!.counts() }), COUNTS_EVERY_MS).unref();
}
