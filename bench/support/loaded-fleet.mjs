// What an operator asks of a fleet that is there: a page of its list, and a command to one of its devices.
import { randomUUID } from 'node:crypto';
import { metric } from './fleet-rig.mjs';

const LISTS = 100;
const PAGE = 100;
const COMMANDS = 200;
const FILTER = 'cores >= 4 && architecture == "arm64"';

/**
 * Milliseconds. A command is an inference that any device may answer: from its submission to its answer, which is followed as an event stream, and
 * from the start of its attempt to the first word of its device. A simulated device speaks at once and takes 10 to 30 ms to answer.
 */
export async function loadedFleet(controlPlanes, devices) {
  const lists = [];
  for (let i = 0, after = ''; i < LISTS; i += 1) {
    const startedAt = performance.now();
    const path = `/api/v1/devices?${new URLSearchParams({ filter: FILTER, limit: String(PAGE), after })}`;
    const page = await (await call(controlPlanes[0], 'GET', path)).json();
    lists.push(performance.now() - startedAt);
    if (devices > 10 * PAGE && page.length === 0) throw new Error('the filter matches no device');
    after = page.length === PAGE ? page.at(-1).name : '';
  }
  const commands = [];
  for (let i = 0; i < COMMANDS; i += 1) {
    const controlPlane = controlPlanes[i % controlPlanes.length];
    const startedAt = performance.now();
    const { id } = await (await call(controlPlane, 'POST', '/api/v1/inferences', { prompt: randomUUID() })).json();
    await answered(controlPlane, id);
    commands.push(performance.now() - startedAt);
  }
  const reach = await metric(controlPlanes, 'matfleet_attempt_reach_seconds_bucket');
  return {
    listP50Ms: quantile(lists, 0.5),
    listP95Ms: quantile(lists, 0.95),
    commandP50Ms: quantile(commands, 0.5),
    commandP99Ms: quantile(commands, 0.99),
    reachHereP99Ms: bucketQuantileMs(reach, 'here', 0.99),
    reachPeerP50Ms: bucketQuantileMs(reach, 'peer', 0.5),
    reachPeerP99Ms: bucketQuantileMs(reach, 'peer', 0.99),
    reachedByPeer: reach.get('le="+Inf",via="peer"') ?? 0,
  };
}

async function call({ httpUrl, apiKey }, method, path, body) {
  const headers = { authorization: `Bearer ${apiKey}`, ...(body && { 'content-type': 'application/json' }) };
  const response = await fetch(httpUrl + path, { method, headers, ...(body && { body: JSON.stringify(body) }) });
  if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`);
  return response;
}

/** Follows the inference to its end. */
async function answered(controlPlane, id) {
  const response = await call(controlPlane, 'GET', `/api/v1/inferences/${id}/events`);
  let text = '';
  for await (const bytes of response.body) {
    text += Buffer.from(bytes).toString();
    const done = /^event: done\n(?:id: .*\n)?data: (.*)\n/m.exec(text);
    if (!done) continue;
    const { state, error } = JSON.parse(done[1]);
    if (state !== 'succeeded') throw new Error(`inference ${id} ${state}: ${error}`);
    return;
  }
  throw new Error(`the events of inference ${id} ended without an answer`);
}

/** The upper end of the bucket in which the quantile lies; null without a sample. */
function bucketQuantileMs(samples, via, q) {
  const count = samples.get(`le="+Inf",via="${via}"`) ?? 0;
  if (count === 0) return null;
  const bounds = [...samples.keys()].flatMap((labels) => {
    const [, le, of] = /^le="(.*)",via="(.*)"$/.exec(labels) ?? [];
    return of === via ? [le === '+Inf' ? Infinity : Number(le)] : [];
  });
  const bound = bounds.sort((a, b) => a - b).find((le) => samples.get(`le="${le === Infinity ? '+Inf' : le}",via="${via}"`) >= q * count);
  return Number((1_000 * bound).toFixed(1));
}

const quantile = (values, q) => Number([...values].sort((a, b) => a - b)[Math.min(values.length - 1, Math.ceil(q * values.length) - 1)].toFixed(1));
