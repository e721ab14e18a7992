import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';

const RETRY_MS = 250;
/** Nobody listens yet; or the server recovers from a crash, starts, or stops. */
const COMES_BACK = new Set(['ECONNREFUSED', 'ECONNRESET', 'EHOSTUNREACH', 'ENOTFOUND', 'EAI_AGAIN', '57P01', '57P02', '57P03']);

/** Waits until the database takes connections, so that a replica may be started beside it. Every other refusal is told at once. */
export async function awaitDatabase(databaseUrl: string, timeoutMs = 60_000): Promise<void> {
  for (const deadline = performance.now() + timeoutMs; ; await sleep(RETRY_MS)) {
    const client = new pg.Client({ connectionString: databaseUrl, connectionTimeoutMillis: 10_000 });
    client.on('error', () => undefined);
    try {
      await client.connect();
      return await client.end();
    } catch (cause) {
      await client.end().catch(() => undefined);
      if (!COMES_BACK.has(codeOf(cause))) throw cause;
      if (performance.now() > deadline) throw new Error(`PostgreSQL was not there within ${timeoutMs} ms: ${(cause as Error).message}`, { cause });
    }
  }
}

/** Of a refusal, or of the first of several: a name may stand for several addresses. */
function codeOf(error: unknown): string {
  const { code, errors } = error as { code?: string; errors?: { code?: string }[] };
  return code ?? errors?.[0]?.code ?? '';
}
