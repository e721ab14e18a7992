import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { connect, withApiOptions, type Api, type ApiOptions } from './api.js';
import { labelPatch, parseNumber, parseWhole } from './arguments.js';
import type { Register } from './command.js';
import { Failure } from './failure.js';
import { Assignment, Device, Inference, isFinal, renderAssignments, renderDevices, renderInference, renderLabels } from './fleet-views.js';

/** Thin calls of the REST API: one request, one table. */
export const registerFleetCommands: Register = (program, { output, signal }) => {
  withApiOptions(program.command('devices').description('list the devices, each with its slice'))
    .option('--filter <cel>', FILTER_HELP)
    .action(async (options: ApiOptions & { filter?: string }) => {
      const api = await connect(options, signal);
      const { filter } = options;
      const devices = await listDevices(api, filter === undefined ? {} : { filter });
      output.result(devices, (found) => (found.length === 0 && filter !== undefined ? 'no device matches the filter' : renderDevices(found)));
    });

  withApiOptions(program.command('label').description('change the labels of a device').argument('<device>', 'name or id'))
    .argument('<change...>', 'key=value sets a label, key- takes it away')
    .action(async (device: string, changes: string[], options: ApiOptions) => {
      const patch = labelPatch(changes);
      const api = await connect(options, signal);
      const { id } = await findDevice(api, device);
      output.result(await api.patch(`/api/v1/devices/${encodeURIComponent(id)}/labels`, patch, Device), renderLabels);
    });

  withApiOptions(
    program.command('assignments').description('show why a device has its slice, newest first').argument('<device>', 'name or id'),
  ).action(async (device: string, options: ApiOptions) => {
    const api = await connect(options, signal);
    const { id } = await findDevice(api, device);
    output.result(await api.get(`/api/v1/devices/${encodeURIComponent(id)}/assignments`, z.array(Assignment)), renderAssignments);
  });

  withApiOptions(program.command('infer').description('queue an inference on the fleet and follow its answer'))
    .requiredOption('--prompt <text>', 'the user’s message')
    .option('--task <name>', 'choose by the quality measured for this task')
    .option('--quality-floor <q>', 'least acceptable quality, 0 to 1')
    .option('--deadline-ms <ms>', 'give up after this long')
    .option('--max-tokens <n>')
    .action(async (options: ApiOptions & { prompt: string; task?: string; qualityFloor?: string; deadlineMs?: string; maxTokens?: string }) => {
      const request = {
        prompt: options.prompt,
        ...(options.task !== undefined && { task: options.task }),
        ...(options.qualityFloor !== undefined && { qualityFloor: parseNumber('--quality-floor', options.qualityFloor, 0, 1) }),
        ...(options.deadlineMs !== undefined && { deadlineMs: parseWhole('--deadline-ms', options.deadlineMs, 1) }),
        ...(options.maxTokens !== undefined && { maxTokens: parseWhole('--max-tokens', options.maxTokens, 1) }),
      };
      const api = await connect(options, signal);
      let inference = await api.post('/api/v1/inferences', request, Inference);
      let shown = '';
      const show = () => {
        // After a fallback the answer starts again, on another device.
        const answer = inference.answer ?? '';
        output.stream(answer.startsWith(shown) ? answer.slice(shown.length) : `\n${answer}`);
        shown = answer;
      };
      while (!isFinal(inference)) {
        await sleep(POLL_MS, undefined, { signal });
        inference = await api.get(`/api/v1/inferences/${encodeURIComponent(inference.id)}`, Inference);
        show();
      }
      show();
      if (inference.state === 'failed')
        throw new Failure(
          'inference-failed',
          `inference ${inference.id} failed: ${inference.error ?? 'no reason given'}\n${renderInference(inference)}`,
        );
      output.result(inference, (document) => `\n\n${renderInference(document)}`);
    });
};

const POLL_MS = 250;
export const FILTER_HELP = `which devices, for example 'labels.site == "berlin" && presence == "online"'`;

/** What the control plane answers at once, at most. */
const DEVICE_PAGE = 1_000;

/** By name, page after page. */
async function listDevices(api: Api, query: { filter?: string } = {}): Promise<Device[]> {
  const devices: Device[] = [];
  for (let after: string | undefined; ; after = devices.at(-1)!.name) {
    const parameters = new URLSearchParams({ ...query, ...(after !== undefined && { after }) }).toString();
    const page = await api.get(`/api/v1/devices${parameters === '' ? '' : `?${parameters}`}`, z.array(Device));
    devices.push(...page);
    if (page.length < DEVICE_PAGE) return devices;
  }
}

/** By id, or by name. */
export async function findDevice(api: Api, nameOrId: string): Promise<Device> {
  const devices = await listDevices(api);
  const found = devices.find((device) => device.id === nameOrId) ?? devices.find((device) => device.name === nameOrId);
  if (!found)
    throw new Failure(
      'not-found',
      `there is no device ${JSON.stringify(nameOrId)}; there ${devices.length === 1 ? 'is' : 'are'} ${devices.map((device) => device.name).join(', ') || 'none'}`,
    );
  return found;
}
