import { lstat, unlink } from 'node:fs/promises';
import { connect } from 'node:net';

/** The kernel's limit on the path of a Unix socket, without its closing zero. */
const MAX_SOCKET_PATH_BYTES = process.platform === 'linux' ? 107 : 103;
const ANSWER_TIMEOUT_MS = 1_000;

/**
 * Makes room for a Unix socket at `path`: removes the one of an agent that was killed. Rejects when something answers there, when another kind of
 * file stands there, and when the path is too long.
 */
export async function clearSocketPath(path: string): Promise<void> {
  const bytes = Buffer.byteLength(path);
  if (bytes > MAX_SOCKET_PATH_BYTES) throw new Error(`socket path ${path} has ${bytes} bytes; the system allows ${MAX_SOCKET_PATH_BYTES}`);
  const found = await lstat(path).catch(() => undefined);
  if (!found) return;
  if (!found.isSocket()) throw new Error(`${path} exists and is not a socket`);
  if (await answers(path)) throw new Error(`another process serves on ${path}`);
  await unlink(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error;
  });
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    const end = (answered: boolean): void => {
      socket.destroy();
      resolve(answered);
    };
    socket.once('connect', () => end(true));
    // Only a refusal proves that nobody listens; a full backlog does not.
    socket.once('error', (error: NodeJS.ErrnoException) => end(error.code !== 'ECONNREFUSED' && error.code !== 'ENOENT'));
    socket.setTimeout(ANSWER_TIMEOUT_MS, () => end(true));
  });
}
