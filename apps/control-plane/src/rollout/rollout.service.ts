import { randomUUID } from 'node:crypto';
import { Injectable, Logger } from '@nestjs/common';
import type { Actor } from '../audit/audit.js';
import { CatalogService } from '../catalog/catalog.service.js';
import { chooseMembers } from '../domain/rollout-membership.js';
import { RolloutPlan, type RolloutPlanInput } from '../domain/rollout-plan.js';
import { isEnded, type RolloutState, type RolloutStep } from '../domain/rollout-sight.js';
import { countOf, openCount } from '../domain/rollout.js';
import { DomainError } from '../errors.js';
import { FleetEvents } from '../events/fleet-events.js';
import { DeviceViews } from '../fleet/device-views.js';
import { FleetService } from '../fleet/fleet.service.js';
import { describeIssues } from '../zod.pipe.js';
import { windowProblem } from './maintenance-window.js';
import type { Rollout, RolloutEvent, RolloutTarget } from './rollout.js';
import { RolloutRepository } from './rollout.repository.js';
import { RolloutRunner } from './rollout.runner.js';
import { RolloutTargetRepository, type TargetQuery } from './rollout-target.repository.js';

const PAUSED_BY_HAND = 'paused by an operator';

export interface NewRollout {
  readonly modelVersionId: string;
  /** Unique among all rollouts. */
  readonly name?: string | undefined;
  readonly deviceIds?: readonly string[] | undefined;
  /** See libs/filter. */
  readonly filter?: string | undefined;
  readonly plan?: RolloutPlanInput | undefined;
}

/** What operators do with rollouts. The runner does the rest. */
@Injectable()
export class RolloutService {
  private readonly log = new Logger('rollout');

  constructor(
    private readonly rollouts: RolloutRepository,
    private readonly targetRows: RolloutTargetRepository,
    private readonly runner: RolloutRunner,
    private readonly catalog: CatalogService,
    private readonly fleet: FleetService,
    private readonly views: DeviceViews,
    private readonly events: FleetEvents,
  ) {}

  /** Starts a rollout to these devices, to those that a filter means, or to the whole fleet: then its version is also what new devices get, once it has succeeded. */
  async start({ modelVersionId, name, ...of }: NewRollout, actor: Actor): Promise<Rollout> {
    if (of.deviceIds && of.filter !== undefined) throw new DomainError('invalid-argument', 'a rollout names its devices or a filter, not both');
    const plan = parsePlan(of.plan ?? {});
    if (plan.membership.kind === 'dynamic' && of.deviceIds)
      throw new DomainError('invalid-argument', 'a list of devices is frozen: a dynamic rollout takes a filter');
    const version = await this.catalog.version(modelVersionId);
    if (!version.publishedAt)
      throw new DomainError('failed-precondition', `model version ${modelVersionId.slice(0, 12)} of ${version.name} is not published`);
    if (name !== undefined && (await this.rollouts.find(name))) throw new DomainError('already-exists', `there is a rollout ${name} already`);
    const fleet = new Set(await this.fleet.ids());
    const deviceIds = of.filter === undefined ? of.deviceIds : (await this.views.idsOf(of.filter)).filter((id) => fleet.has(id));
    if (of.filter !== undefined && deviceIds?.length === 0 && plan.membership.kind === 'frozen')
      throw new DomainError('failed-precondition', 'the filter matches no device');
    const unknown = deviceIds?.filter((id) => !fleet.has(id)) ?? [];
    if (unknown.length > 0)
      throw new DomainError('not-found', `there is no device ${unknown.slice(0, 3).join(', ')}, or it is revoked or in quarantine`);
    const choices = [];
    for (const wave of plan.waves)
      choices.push({ plan: wave, matching: wave.filter === undefined ? null : new Set(await this.views.idsOf(wave.filter)) });
    const { members } = chooseMembers([...(deviceIds ?? fleet)], choices, plan.seed);
    // What no wave took is one more wave.
    const waves = members.map((_, at) => plan.waves[at] ?? { approval: false, observeMs: 0 });
    const state: RolloutState = plan.approval ? 'awaiting-approval' : 'running';
    const id = randomUUID();
    await this.rollouts.create({
      ...{
        id,
        name: name ?? null,
        modelVersionId,
        state,
        reason: plan.approval ? 'waits for somebody to approve it' : null,
        plan: { ...plan, waves },
      },
      ...{ filter: of.filter ?? null, wholeFleet: deviceIds === undefined, actor, members },
    });
    this.log.log({ rolloutId: id, modelVersionId, devices: members.flat().length, waves: waves.length, msg: 'rollout started' });
    return this.changed(id);
  }

  /** Newest first; at most 100. */
  list(): Promise<Rollout[]> {
    return this.rollouts.list();
  }

  find(idOrName: string): Promise<Rollout | undefined> {
    return this.rollouts.find(idOrName);
  }

  async get(idOrName: string): Promise<Rollout> {
    const rollout = await this.rollouts.find(idOrName);
    if (!rollout) throw new DomainError('not-found', `there is no rollout ${idOrName.slice(0, 80)}`);
    return rollout;
  }

  /** By name of the device, a page. */
  async targets(idOrName: string, query: TargetQuery = {}): Promise<RolloutTarget[]> {
    return this.targetRows.page((await this.get(idOrName)).id, query);
  }

  /** What rollouts did to a device, the newest first. */
  async ofDevice(deviceId: string): Promise<RolloutTarget[]> {
    await this.fleet.record(deviceId);
    return this.targetRows.ofDevice(deviceId);
  }

  /** Oldest first; the newest 1000. */
  async history(idOrName: string): Promise<RolloutEvent[]> {
    return this.rollouts.events((await this.get(idOrName)).id);
  }

  /** What would be done now, and why devices wait. */
  async foresee(idOrName: string): Promise<RolloutStep> {
    return this.runner.foresee(await this.get(idOrName));
  }

  /** Begins nothing more. What is on its way goes on. */
  pause(idOrName: string, actor: Actor): Promise<Rollout> {
    return this.command(idOrName, ['running'], 'pause', { state: 'paused', reason: PAUSED_BY_HAND, actor, action: 'rollout.paused' });
  }

  /** Goes on. What stopped the wave is let pass: only what fails from now on stops it again. */
  async resume(idOrName: string, actor: Actor): Promise<Rollout> {
    const rollout = await this.get(idOrName);
    const wave = rollout.waves.find(({ state }) => state !== 'succeeded');
    const waived = wave &&
      rollout.reason !== PAUSED_BY_HAND && {
        ordinal: wave.ordinal,
        waived: { failed: countOf(wave.tally).failed, gone: Number.MAX_SAFE_INTEGER, outcome: openCount(wave.tally) === 0 },
      };
    return this.command(idOrName, ['paused'], 'resume', { state: 'running', reason: null, actor, action: 'rollout.resumed' }, waived || undefined);
  }

  /** Ends it: devices go back to what they ran before, or stay as they are. */
  async abort(idOrName: string, { rollBack, reason }: { rollBack: boolean; reason: string }, actor: Actor): Promise<Rollout> {
    const rollout = await this.get(idOrName);
    const wave = rollout.waves.find(({ state }) => state !== 'succeeded' && state !== 'pending');
    const begun = rollout.state !== 'awaiting-approval';
    const state: RolloutState = rollBack && begun ? 'rolling-back' : 'aborted';
    return this.command(
      idOrName,
      ['awaiting-approval', 'running', 'paused', ...(rollBack ? (['succeeded'] as const) : [])],
      'abort',
      { state, reason, actor, action: 'rollout.aborted' },
      wave && { ordinal: wave.ordinal, failed: reason },
      (id, tx) => this.targetRows.skipOpen(id, state === 'aborted', `the rollout was aborted: ${reason}`, tx),
    );
  }

  /** Lets the rollout begin, or the wave that waits for it. */
  async approve(idOrName: string, actor: Actor): Promise<Rollout> {
    const rollout = await this.get(idOrName);
    if (rollout.state === 'awaiting-approval')
      return this.command(idOrName, ['awaiting-approval'], 'approve', { state: 'running', reason: null, actor, action: 'rollout.approved' });
    const wave = rollout.waves.find(({ state }) => state === 'awaiting-approval');
    if (!wave)
      throw new DomainError('failed-precondition', `nothing of rollout ${rollout.name ?? rollout.id} waits for an approval: it is ${rollout.state}`);
    return this.command(
      idOrName,
      ['running', 'paused'],
      'approve',
      { state: rollout.state, reason: rollout.reason, actor, action: 'rollout.approved' },
      { ordinal: wave.ordinal, approvedAt: new Date() },
    );
  }

  private async command(
    idOrName: string,
    from: readonly RolloutState[],
    verb: string,
    to: Parameters<RolloutRepository['command']>[1],
    wave?: Parameters<RolloutRepository['command']>[2],
    also?: (rolloutId: string, tx: Parameters<NonNullable<Parameters<RolloutRepository['command']>[3]>>[0]) => Promise<void>,
  ): Promise<Rollout> {
    for (let tries = 0; tries < 5; tries += 1) {
      const rollout = await this.get(idOrName);
      if (!from.includes(rollout.state)) {
        const why = isEnded(rollout.state) ? 'it has ended' : `it is ${rollout.state}`;
        throw new DomainError('failed-precondition', `${verb}: rollout ${rollout.name ?? rollout.id} is not ${from.join(' or ')}; ${why}`);
      }
      if (await this.rollouts.command(rollout, to, wave, also && ((tx) => also(rollout.id, tx)))) return this.changed(rollout.id);
    }
    throw new DomainError('unavailable', `${verb}: rollout ${idOrName.slice(0, 80)} keeps changing; try again`);
  }

  private changed(rolloutId: string): Promise<Rollout> {
    this.events.emit({ kind: 'rollout-changed', rolloutId });
    return this.get(rolloutId);
  }
}

function parsePlan(input: RolloutPlanInput): RolloutPlan {
  const parsed = RolloutPlan.safeParse(input);
  if (!parsed.success) throw new DomainError('invalid-argument', `plan: ${describeIssues(parsed.error)}`);
  const problem = parsed.data.window && windowProblem(parsed.data.window);
  if (problem) throw new DomainError('invalid-argument', `plan.${problem}`);
  return parsed.data;
}
