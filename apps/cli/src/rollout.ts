import { setTimeout as sleep } from 'node:timers/promises';
import { type Command, Option } from 'commander';
import { z } from 'zod';
import { connect, withApiOptions, type Api, type ApiOptions } from './api.js';
import type { Register } from './command.js';
import { Ended, EXIT } from './failure.js';
import { FILTER_HELP, findDevice } from './fleet.js';
import { planOf, type PlanOptions } from './rollout-options.js';
import { showRollout } from './rollout-progress.js';
import {
  isEnded,
  NextStep,
  nameOf,
  renderExplanation,
  renderRollout,
  renderRollouts,
  Rollout,
  RolloutEvent,
  RolloutTarget,
  waitsForOperator,
} from './rollout-views.js';
import type { Output } from './output.js';

const POLL_MS = 500;
const pathOf = (rollout: string): string => `/api/v1/rollouts/${encodeURIComponent(rollout)}`;

/** Bringing devices to a model version, wave after wave. */
export const registerRolloutCommands: Register = (program, { output, signal }) => {
  const rollouts = program.command('rollout').description('bring devices to a model version, wave after wave');

  withPlanOptions(withApiOptions(rollouts.command('start').description('start a rollout').argument('<model-version-id>')))
    .option('--name <name>', 'unique; the other commands take it in place of the id')
    .option('--device <name...>', 'names or ids; default: all devices')
    .addOption(new Option('--filter <cel>', FILTER_HELP).conflicts('device'))
    .option('--no-wait', 'do not wait until it has ended')
    .action(
      async (modelVersionId: string, options: ApiOptions & PlanOptions & { name?: string; device?: string[]; filter?: string; wait: boolean }) => {
        const plan = await planOf(options);
        const api = await connect(options, signal);
        const deviceIds = options.device && (await Promise.all(options.device.map(async (name) => (await findDevice(api, name)).id)));
        const body = { modelVersionId, plan, ...(options.name !== undefined && { name: options.name }) };
        const rollout = await api.post(
          '/api/v1/rollouts',
          { ...body, ...(deviceIds && { deviceIds }), ...(options.filter !== undefined && { filter: options.filter }) },
          Rollout,
        );
        if (options.wait) return follow(api, rollout, output, signal);
        output.result(rollout, renderRollout);
      },
    );

  withApiOptions(rollouts.command('list').description('list the rollouts, newest first')).action(async (options: ApiOptions) => {
    const api = await connect(options, signal);
    output.result(await api.get('/api/v1/rollouts', z.array(Rollout)), renderRollouts);
  });

  withApiOptions(
    rollouts
      .command('watch')
      .description(
        `follow a rollout until it ends (exit code 0, or ${EXIT.stopped} when it went back or was aborted) or waits for you (${EXIT.waits})`,
      )
      .argument('<rollout>', 'name or id'),
  ).action(async (rollout: string, options: ApiOptions) => {
    const api = await connect(options, signal);
    await follow(api, await api.get(pathOf(rollout), Rollout), output, signal);
  });

  const command = (name: string, description: string) =>
    withApiOptions(rollouts.command(name).description(description).argument('<rollout>', 'name or id'));
  const post = async (rollout: string, verb: string, body: object, options: ApiOptions): Promise<void> => {
    const api = await connect(options, signal);
    output.result(await api.post(`${pathOf(rollout)}/${verb}`, body, Rollout), renderRollout);
  };
  command('pause', 'begin nothing more; what is on its way goes on').action((rollout: string, options: ApiOptions) =>
    post(rollout, 'pause', {}, options),
  );
  command('resume', 'go on; what stopped it is let pass').action((rollout: string, options: ApiOptions) => post(rollout, 'resume', {}, options));
  command('approve', 'let the rollout begin, or the wave that waits for it').action((rollout: string, options: ApiOptions) =>
    post(rollout, 'approve', {}, options),
  );
  command('abort', 'end it; its devices go back to what they ran before')
    .option('--no-roll-back', 'leave the devices as they are')
    .option('--reason <text>', 'shown with the rollout')
    .action((rollout: string, options: ApiOptions & { rollBack: boolean; reason?: string }) =>
      post(rollout, 'abort', { rollBack: options.rollBack, ...(options.reason !== undefined && { reason: options.reason }) }, options),
    );

  command('explain', 'show why it is where it is, what its devices wait for, and what happened').action(async (name: string, options: ApiOptions) => {
    const api = await connect(options, signal);
    const rollout = await api.get(pathOf(name), Rollout);
    const [events, next, failed] = await Promise.all([
      api.get(`${pathOf(rollout.id)}/events`, z.array(RolloutEvent)),
      api.get(`${pathOf(rollout.id)}/next`, NextStep),
      api.get(`${pathOf(rollout.id)}/targets?state=failed&limit=20`, z.array(RolloutTarget)),
    ]);
    output.result({ rollout, events, holds: next.holds, failed }, renderExplanation);
  });
};

/** Shows progress until the rollout has ended or waits for somebody; the exit code says which. */
async function follow(api: Api, rollout: Rollout, output: Output, signal: AbortSignal): Promise<void> {
  const shown = showRollout(output);
  let now = rollout;
  try {
    for (;;) {
      shown.update(now);
      if (isEnded(now) || waitsForOperator(now)) break;
      await sleep(POLL_MS, undefined, { signal });
      now = await api.get(pathOf(now.id), Rollout);
    }
  } finally {
    shown.stop();
  }
  output.result(now, renderRollout);
  if (waitsForOperator(now)) {
    output.note(now.state === 'paused' ? `matfleet rollout resume, or abort: ${nameOf(now)}` : `matfleet rollout approve ${nameOf(now)}`);
    throw new Ended(EXIT.waits);
  }
  if (now.state !== 'succeeded') throw new Ended(EXIT.stopped);
}

const withPlanOptions = (command: Command): Command =>
  command
    .option('--plan <file>', 'YAML or JSON with the whole plan; the options below go before it')
    .option('--wave <part...>', 'in order: a count, a percentage, a filter, or rest; default: one wave of all')
    .option('--observe <time>', 'watch each wave for so long before its gates are judged, for example 10m')
    .option('--success <percent>', 'of a wave that must run it before the next begins (default 95)')
    .option('--error <percent>', 'failures that stop it (default 10)')
    .option('--min-sample <n>', 'nothing is decided on fewer devices (default 5)')
    .addOption(new Option('--on-error <reaction>', 'default roll-back').choices(['pause', 'abort', 'roll-back']))
    .option('--gate <name=value...>', 'ttft=1.2, inter-token=1.2 (times the control group’s p95), errors=2 (points), agreement=99 (percent)')
    .option('--rate <n>', 'devices begun in a minute')
    .option('--spread <label[:n]>', 'at most n (default 1) with the same value of this label at once')
    .option('--window <cron>', 'devices change over only then, on their own clock, and fetch before')
    .option('--window-for <time>', 'how long the window stays open, for example 2h')
    .option('--retry <class=times...>', 'classes: unreachable, unfit, device, timeout')
    .option('--soft', 'devices change over when they have nothing to answer')
    .option('--force-at <time>', 'soft until then, ISO 8601')
    .option('--download-only', 'bring the bytes and leave what runs')
    .option('--dynamic', 'also devices that come to match while it runs')
    .option('--supersede', 'take devices over from older rollouts; default: those go first')
    .option('--approval', 'nothing begins before somebody approves it')
    .option('--seed <n>', 'chooses who is in which wave (default 1)');
