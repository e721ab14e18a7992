import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { status } from '@grpc/grpc-js';
import {
  beginActivation,
  channelOptions,
  commit,
  deviceCredentials,
  DeviceSession,
  Reconciler,
  RemoteInferences,
  type Identity,
  type RemoteInference,
  type Slot,
} from '@matfleet/device';
import type { HistoryEvent, HistorySlot } from '@matfleet/history';
import {
  DeviceServiceClient,
  FinishReason,
  Phase,
  type Capabilities,
  type GenerateResponse,
  type SessionRequest,
  type SessionResponse,
} from '@matfleet/protocol';
import type { MessageFaults } from '../network/message-faults.js';
import type { Statistics } from '../statistics.js';
import type { DeviceClass } from './catalogue.js';
import { MemoryJournal } from './memory-journal.js';
import { tappedClient, type SessionTap } from './tapped-client.js';

/** What a group's script does to its devices at this moment. */
export interface GroupWeather {
  readonly messages: Omit<MessageFaults, 'random'>;
  readonly skewMs: number;
}

export interface VirtualDeviceOptions {
  readonly identity: Identity;
  readonly box: DeviceClass;
  readonly capabilities: Capabilities;
  /** `host:port` to dial: the control plane's, or a proxy's. */
  readonly target: string;
  /** Uniform in [0, 1), this device's own. */
  readonly random: () => number;
  readonly weather: () => GroupWeather;
  readonly statistics: Statistics;
  readonly record: (event: HistoryEvent) => void;
}

const ANSWER_MS = 20;
const VERSION = '0.1.0-simulated';
/** Beats on their way whose answer is timed. */
const BEATS_TIMED = 4;

/** Refused as the agent refuses; the router may read why. */
class Refused extends Error {
  readonly code = status.FAILED_PRECONDITION;
}

/** One device of the simulation: the agent's session, reconciler and journal rules over a real connection; store and engine only take the time that real ones would. */
export class VirtualDevice {
  private readonly journal = new MemoryJournal();
  private readonly fetched = new Set<string>();
  private stopping = new AbortController();
  private loops: Promise<unknown>[] = [];
  private session: DeviceSession | undefined;
  private reconciler: Reconciler | undefined;
  private online = false;
  private settled = false;
  private retired = false;

  constructor(private readonly options: VirtualDeviceOptions) {}

  get id(): string {
    return this.options.identity.deviceId;
  }

  start(): void {
    const { identity, capabilities, target, random, statistics, weather } = this.options;
    const bootId = randomUUID();
    const { signal } = (this.stopping = new AbortController());
    const nowMs = (): number => Date.now() + weather().skewMs;
    this.journal.reopen(nowMs());
    const reconciler = (this.reconciler = new Reconciler({
      journal: this.journal,
      view: (slot) => ({ manifest: true, missingChunks: this.fetched.has(keyOf(slot)) ? [] : [keyOf(slot)] }),
      canFetch: () => this.online,
      fetchManifest: () => Promise.resolve(),
      fetch: async (slot, chunkIds, until) => {
        reconciler.report(slot.generation, Phase.PHASE_FETCHING);
        await delay(this.take(this.options.box.fetchMs), undefined, { signal: until });
        for (const id of chunkIds) this.fetched.add(id);
      },
      activate: async (slot, until) => {
        reconciler.report(slot.generation, Phase.PHASE_ACTIVATING);
        this.journal.update((state) => beginActivation(state, slot));
        await delay(this.take(this.options.box.activateMs), undefined, { signal: until });
        this.journal.update(commit);
        this.options.record({ kind: 'slot-applied', device: this.id, ...historySlot(slot) });
        return true;
      },
      tidy: () => {
        const { active, previous } = this.journal.current;
        const kept = [active, previous].filter((slot) => slot !== undefined).map(keyOf);
        for (const key of this.fetched) if (!kept.includes(key)) this.fetched.delete(key);
        return Promise.resolve();
      },
      stopServing: () => Promise.resolve(),
      report: (report) => {
        this.session?.report(report);
        this.settle();
      },
      nowMs,
    }));
    const remote = new RemoteInferences(
      {
        generateRemote: (start, emit, until) => this.answer(start, emit, until),
        refusalOf: (error) => (error instanceof Refused ? error : undefined),
      },
      (event) => this.session?.inferenceEvent(event) ?? false,
    );
    const session = (this.session = new DeviceSession({
      dial: () =>
        tappedClient(new DeviceServiceClient(target, deviceCredentials(identity), channelOptions), this.tap(), () => ({
          ...weather().messages,
          random,
        })),
      random,
      handlers: {
        hello: () => ({
          bootId,
          agentVersion: VERSION,
          capabilities,
          storedGeneration: BigInt(this.journal.current.desired?.generation ?? 0),
          observed: reconciler.observed(),
        }),
        heartbeat: () => ({
          queueLength: 0,
          inFlight: 0,
          availableMemoryBytes: capabilities.availableMemoryBytes,
          engineRssBytes: 0n,
          engineReady: this.journal.current.active !== undefined,
          latency: [],
          memoryBandwidthBytesPerSecond: 0n,
          condition: undefined,
        }),
        restoreLatency: () => undefined,
        desired: (desired) => {
          if (reconciler.accept(desired)) this.settle();
        },
        startInference: (start) => remote.start(start),
        cancelInference: (attemptId) => remote.cancel(attemptId),
        online: (online, why) => {
          if (online !== this.online) statistics.online(online);
          if (!online && !signal.aborted) statistics.lost(why);
          this.online = online;
          if (online) reconciler.nudge();
          else remote.abortAll();
        },
      },
    }));
    reconciler.reportPosition();
    this.loops = [session.run(signal), reconciler.run(signal)];
  }

  /** Reports again where it is, as an agent does whose state has changed. */
  tell(): void {
    this.reconciler?.reportPosition();
  }

  /** As `kill -9` of an agent, and its start on the same disk. */
  async restart(): Promise<void> {
    await this.halt();
    if (!this.retired) this.start();
  }

  stop(): Promise<void> {
    this.retired = true;
    return this.halt();
  }

  private async halt(): Promise<void> {
    this.stopping.abort();
    await Promise.allSettled(this.loops);
  }

  /** What runs in the end. */
  recordEnd(): void {
    const { active, failure } = this.journal.current;
    this.options.record({
      kind: 'device-ended',
      device: this.id,
      ...(active && { runs: historySlot(active) }),
      ...(failure?.final && { gaveUp: failure.generation }),
    });
  }

  private settle(): void {
    const { desired, active } = this.journal.current;
    const settled = desired !== undefined && active?.generation === desired.generation;
    if (settled !== this.settled) this.options.statistics.settled(settled);
    this.settled = settled;
  }

  private async answer(start: RemoteInference, emit: (event: GenerateResponse) => void | Promise<void>, until: AbortSignal): Promise<void> {
    const { active } = this.journal.current;
    if (!active || (start.sliceId !== '' && (active.sliceId !== start.sliceId || active.modelVersionId !== start.modelVersionId)))
      throw new Refused(`slice ${active?.sliceId ?? '(none)'} is active, not ${start.sliceId}`);
    this.options.record({ kind: 'command-ran', device: this.id, command: start.attemptId });
    const { modelVersionId, modelName, sliceId } = active;
    const started = { requestId: start.attemptId, deviceId: this.id, modelVersionId, modelName, sliceId, promptTokens: 1, queueMs: 0 };
    await emit({ event: { $case: 'started', value: started } });
    await delay(this.take(ANSWER_MS), undefined, { signal: until });
    await emit({ event: { $case: 'delta', value: { text: 'simulated', tokenIds: [1] } } });
    const finished = {
      reason: FinishReason.FINISH_REASON_STOP,
      outputTokens: 1,
      cachedPromptTokens: 0,
      ttftMs: ANSWER_MS,
      tokensPerSecond: 1_000 / ANSWER_MS,
    };
    await emit({ event: { $case: 'finished', value: finished } });
  }

  private tap(): SessionTap {
    const { record, statistics } = this.options;
    const device = this.id;
    const beats = new Map<bigint, number>();
    return {
      opened: (epoch) => record({ kind: 'session-opened', device, epoch }),
      closed: (epoch) => record({ kind: 'session-closed', device, epoch }),
      sent: ({ message }: SessionRequest, epoch) => {
        if (message?.$case === 'heartbeat') {
          beats.set(message.value.sequence, performance.now());
          if (beats.size > BEATS_TIMED) beats.delete(beats.keys().next().value!);
        }
        if (message?.$case !== 'report') return;
        statistics.reports += 1;
        const { sequence, generation, phase } = message.value;
        record({ kind: 'report-sent', device, epoch, sequence: Number(sequence), generation: Number(generation), phase: PHASES[phase] ?? 'unknown' });
      },
      received: ({ message }: SessionResponse, epoch) => {
        if (message?.$case === 'heartbeatAck') {
          const sentAt = beats.get(message.value.sequence);
          if (sentAt !== undefined) statistics.acknowledged(performance.now() - sentAt);
          beats.delete(message.value.sequence);
        }
        if (message?.$case === 'desired') {
          const { generation, modelVersionId, sliceId } = message.value;
          record({ kind: 'desired-received', device, epoch, generation: Number(generation), modelVersionId, sliceId });
        }
        if (message?.$case === 'reportAck') record({ kind: 'report-acknowledged', device, epoch, sequence: Number(message.value.sequence) });
      },
    };
  }

  /** Between half and one and a half of `ms`. */
  private take(ms: number): number {
    return ms * (0.5 + this.options.random());
  }
}

const PHASES: Partial<Record<Phase, string>> = {
  [Phase.PHASE_FETCHING]: 'fetching',
  [Phase.PHASE_VERIFYING]: 'verifying',
  [Phase.PHASE_ACTIVATING]: 'activating',
  [Phase.PHASE_ACTIVE]: 'active',
  [Phase.PHASE_FAILED]: 'failed',
  [Phase.PHASE_FETCHED]: 'fetched',
};

const keyOf = (slot: Slot): string => `${slot.modelVersionId}/${slot.sliceId}`;
const historySlot = ({ generation, modelVersionId, sliceId }: Slot): HistorySlot => ({ generation, modelVersionId, sliceId });
