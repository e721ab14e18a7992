// What an operator asks of a fleet that is there: a page of its list, and a command to one of its devices.
import { readFile } from 'node:fs/promises';
import { randomUUID } from 'node:crypto';

const LISTS = 100;
const PAGE = 100;
const COMMANDS = 100;
const FILTER = 'cores >= 4 && architecture == "arm64"';

/** Milliseconds. A command is an inference that any device may answer, from its submission to its answer; a simulated device takes 10 to 30 ms of that. */
export async function loadedFleet(controlPlane, devices) {
  const key = (await readFile(controlPlane.apiKeyFile, 'utf8')).trim();
  const headers = { authorization: `Bearer ${key}`, 'content-type': 'application/json' };
  const call = async (method, path, body) => {
    const response = await fetch(controlPlane.httpUrl + path, { method, headers, ...(body && { body: JSON.stringify(body) }) });
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`);
    return response.json();
  };
  const lists = [];
  for (let i = 0, after = ''; i < LISTS; i += 1) {
    const startedAt = performance.now();
    const page = await call('GET', `/api/v1/devices?${new URLSearchParams({ filter: FILTER, limit: String(PAGE), after })}`);
    lists.push(performance.now() - startedAt);
    if (devices > 10 * PAGE && page.length === 0) throw new Error('the filter matches no device');
    after = page.length === PAGE ? page.at(-1).name : '';
  }
  const commands = [];
  for (let i = 0; i < COMMANDS; i += 1) {
    const startedAt = performance.now();
    const { id } = await call('POST', '/api/v1/inferences', { prompt: randomUUID() });
    for (;;) {
      const { state, error } = await call('GET', `/api/v1/inferences/${id}`);
      if (state === 'failed') throw new Error(`inference ${id} failed: ${error}`);
      if (state === 'succeeded') break;
    }
    commands.push(performance.now() - startedAt);
  }
  return {
    listP50Ms: quantile(lists, 0.5),
    listP95Ms: quantile(lists, 0.95),
    commandP50Ms: quantile(commands, 0.5),
    commandP99Ms: quantile(commands, 0.99),
  };
}

const quantile = (values, q) => Number([...values].sort((a, b) => a - b)[Math.min(values.length - 1, Math.ceil(q * values.length) - 1)].toFixed(1));
