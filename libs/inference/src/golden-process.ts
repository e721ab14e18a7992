// A child process of an import: makes the golden answers of a package whose manifest is not written yet. It may be killed at any time, and ends when
// the import does.
import { goldenPrompts } from './golden.js';
import type { FromGolden, ToGolden } from './golden-child.js';

const send = (message: FromGolden, then = (): void => undefined): void => void (process.connected && process.send!(message, then));

process.on('disconnect', () => process.exit(1));
process.on('SIGINT', () => {}); // Ctrl-C reaches the whole group; the import ends this process.
process.once('message', ({ manifest, storeDir }: ToGolden) => {
  void goldenPrompts(manifest, storeDir, (progress) => send({ progress }))
    .then(
      (prompts): FromGolden => ({ prompts }),
      (error: unknown): FromGolden => ({ error: error instanceof Error ? error.message : String(error) }),
    )
    .then((message) => send(message, () => process.exit(0)));
});
