import { randomUUID } from 'node:crypto';
import { mkdirSync } from 'node:fs';
import { statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import {
  abandon,
  CRASH_POLICY,
  crashLooping,
  deliver,
  DeviceSession,
  JournalFile,
  Pace,
  Reconciler,
  recordCrash,
  RemoteInferences,
  revert,
  writeFileDurably,
  type Slot,
} from '@matfleet/device';
import { largestMatrixBytes, mappedBytes, preparedBytes, qualityOf, sliceById } from '@matfleet/model';
import { Phase, Privacy, type Capabilities, type Condition, type Desired, type Hello } from '@matfleet/protocol';
import type { Logger } from 'pino';
import { activate, engineSpec } from './activation.js';
import { ChunkStore } from './chunk-store.js';
import type { Config } from './config.js';
import { createEngineHost } from './engine/child-engine-host.js';
import type { EngineHost, EngineSpec } from './engine/engine-host.js';
import { prepareSlice } from './engine/prepare-slice.js';
import { createSupervisor, type Supervisor } from './engine/supervisor.js';
import { FleetAnswers } from './fleet-answers.js';
import { isNews, readCondition } from './hardware/condition.js';
import { measureMemory } from './hardware/memory.js';
import { probeHardware } from './hardware/probe.js';
import { createLatencyRecorder } from './latency/latency-recorder.js';
import { Membership } from './membership.js';
import { PressureLoop } from './pressure/pressure-loop.js';
import { createLocalServing, type LocalAddress, type LocalServing, type LocalServingOptions } from './serving/local-serving.js';
import { ServingError } from './serving/serving-error.js';
import { AGENT_VERSION } from './version.js';

/** For a step towards a slice to end before the models are removed under it. */
const WIPE_WAIT_MS = 10_000;

/** The loops of one device and how they are wired: serve locally, hold the session, move towards what is desired. */
export class Agent {
  private readonly bootId = randomUUID();
  private readonly stopping = new AbortController();
  private readonly journal: JournalFile;
  private readonly store: ChunkStore;
  private readonly pace: Pace;
  private readonly latency = createLatencyRecorder();
  private readonly host: EngineHost;
  private readonly supervisor: Supervisor;
  private readonly serving: LocalServing;
  private readonly pressure: PressureLoop;
  private readonly remote: RemoteInferences;
  private readonly reconciler: Reconciler;
  private readonly membership: Membership | undefined;
  private readonly reconciling = new AbortController();
  private session: DeviceSession | undefined;
  private capabilities: Capabilities | undefined;
  private online = false;
  private toldCondition: Condition | undefined;
  private loops: Promise<unknown>[] = [];

  constructor(
    private readonly config: Config,
    private readonly log: Logger,
  ) {
    mkdirSync(config.data, { recursive: true, mode: 0o700 });
    this.journal = new JournalFile(join(config.data, 'journal.json'), Date.now());
    this.store = new ChunkStore(config.data);
    this.pace = new Pace({ bytesPerSecond: config.bandwidth, quietHours: config.quietHours });
    const { join: joinUrl, token, name: deviceName, data: dataDir, trustRoot } = config;
    if (joinUrl) {
      const renewed = (): void => this.session?.redialNext();
      this.membership = new Membership({ joinUrl, token, deviceName, dataDir, trustRoot, log, renewed, wipe: () => this.wipe() });
    }
    this.host = createEngineHost({
      modelMemoryBytes: config.modelMemory ?? 0,
      availableMemoryBytes: () => measureMemory().availableBytes,
      box: config.box,
      provider: config.provider,
      ...(config.acceleratorMemory !== undefined && { acceleratorMemoryBytes: config.acceleratorMemory }),
      ...(config.threads !== undefined && { threads: config.threads }),
      ...(config.memoryLimit && { memoryLimit: config.memoryLimit }),
      onWatchdog: (reason) => log.warn({ reason }, 'no control group holds the engine; a watchdog does'),
    });
    this.supervisor = createSupervisor({ host: this.host, log: (message) => log.warn(message) });
    this.pressure = new PressureLoop({
      supervisor: this.supervisor,
      manifest: (modelVersionId) => this.store.manifest(modelVersionId),
      onChange: (sliceId, reason) => {
        log.warn({ sliceId, reason: reason || 'the box has recovered' }, 'another slice answers');
        this.serving.changeSlice(sliceId);
      },
    });
    this.serving = createLocalServing({
      supervisor: this.supervisor,
      latency: this.latency,
      socketPath: config.socket,
      port: config.port,
      ...(config.http && { http: { address: config.http, token: config.httpToken, hosts: config.httpHost, toolPrompt: config.toolPrompt } }),
      queueLimit: config.queueLimit,
      fallback: this.fallback(config.fallback),
      effective: () => this.pressure.effective,
      stopTimeoutMs: 2_000,
      state: () => ({
        deviceId: this.membership?.identity?.deviceId ?? '',
        deviceName: this.membership?.identity?.deviceName ?? config.name,
        online: this.online,
        desiredGeneration: this.journal.current.desired?.generation ?? 0,
        observedGeneration: this.journal.current.active?.generation ?? 0,
      }),
    });
    this.remote = new RemoteInferences(
      {
        generateRemote: (start, emit, signal) => this.serving.generateRemote(start, emit, signal),
        refusalOf: (error) => (error instanceof ServingError ? error : undefined),
      },
      (event) => this.session?.inferenceEvent(event) ?? false,
    );
    this.reconciler = new Reconciler({
      journal: this.journal,
      view: (slot) => this.store.view(slot),
      canFetch: () => this.membership?.artifacts !== undefined && this.online,
      fetchManifest: async ({ modelVersionId }) => this.store.putManifest(modelVersionId, await this.membership!.fetchManifest(modelVersionId)),
      fetch: (slot, chunkIds, signal) => this.fetch(slot, chunkIds, signal),
      activate: (slot, signal) => this.activate(slot, signal),
      tidy: () => {
        const { active, previous, desired } = this.journal.current;
        return this.store.collectGarbage([active, previous, desired]);
      },
      isIdle: () => this.serving.inFlight() + this.serving.queueLength() === 0,
      stopServing: () => this.supervisor.clear(),
      report: (report) => this.session?.report(report),
      failed: ({ generation, attempts, final, error }) =>
        log.error({ generation, attempt: attempts, final, reason: error }, 'could not reach what is desired'),
      nowMs: Date.now,
    });
  }

  /** Serves the last committed slice at once, and joins the fleet beside that. Resolves when the local sockets are open. */
  async start(): Promise<LocalAddress> {
    const { active } = this.journal.current;
    if (active) this.supervisor.resume(engineSpec(this.store, active, this.config.hotRowBytes));
    this.supervisor.onCrash((spec, reason) => this.crashed(spec, reason));
    const address = await this.serving.start();
    const announce = (): void => this.announce(address);
    announce();
    this.supervisor.onChange(announce);
    this.loops = [this.reconciler.run(AbortSignal.any([this.stopping.signal, this.reconciling.signal])), this.fleetLoop()];
    return address;
  }

  async stop(): Promise<void> {
    this.stopping.abort();
    this.pressure.stop();
    this.reconciler.nudge();
    this.remote.abortAll();
    await Promise.all([this.serving.stop(), this.supervisor.stop(), Promise.race([Promise.allSettled(this.loops), delay(3_000)])]);
    this.membership?.close();
  }

  // -- the fleet

  private async fleetLoop(): Promise<void> {
    const { membership } = this;
    const { signal } = this.stopping;
    if (!membership || !(await membership.join(signal))) return;
    this.capabilities = await probeHardware(this.config.data, { modelMemoryBytes: this.config.modelMemory ?? 0 });
    this.session = new DeviceSession({
      dial: () => membership.dial(),
      handlers: {
        hello: () => this.hello(),
        heartbeat: (roundTripMs) => {
          const stats = this.supervisor.stats();
          return {
            queueLength: this.serving.queueLength(),
            inFlight: this.serving.inFlight(),
            availableMemoryBytes: BigInt(measureMemory().availableBytes),
            engineRssBytes: BigInt(stats.engine?.rssBytes ?? 0),
            engineReady: stats.ready,
            latency: this.latency.drain(),
            memoryBandwidthBytesPerSecond: 0n,
            condition: this.news(roundTripMs),
            effective: this.pressure.effective,
          };
        },
        restoreLatency: (reports) => this.latency.restore(reports),
        desired: (desired) => this.accept(desired),
        startInference: (start) => this.remote.start(start),
        cancelInference: (attemptId) => this.remote.cancel(attemptId),
        online: (online, why) => {
          if (online !== this.online) this.log.info({ online, why }, online ? 'session open' : 'session lost');
          this.online = online;
          this.toldCondition = undefined;
          if (!online) this.remote.abortAll();
          else this.reconciler.nudge();
        },
        welcomed: ({ renewInMs }) => renewInMs !== undefined && membership.renewIn(Number(renewInMs)),
        refused: (refusal) => membership.refused(refusal),
      },
    });
    this.reconciler.reportPosition();
    await this.session.run(signal);
  }

  /** Nothing of the fleet's models stays on this device. */
  private async wipe(): Promise<void> {
    this.reconciling.abort();
    this.reconciler.nudge();
    await Promise.race([this.loops[0], delay(WIPE_WAIT_MS)]);
    this.remote.abortAll();
    await this.supervisor.clear();
    this.journal.update(() => ({}));
    await this.store.clear();
  }

  private hello(): Hello {
    const { engine } = this.supervisor.stats();
    return {
      bootId: this.bootId,
      agentVersion: AGENT_VERSION,
      capabilities: this.capabilities && {
        ...this.capabilities,
        availableMemoryBytes: BigInt(measureMemory().availableBytes),
        ...(engine && {
          runtimeMemoryBytes: BigInt(engine.runtimeBytes),
          runtimeVersion: engine.runtimeVersion,
          executionProviders: [...engine.executionProviders],
        }),
      },
      storedGeneration: BigInt(this.journal.current.desired?.generation ?? 0),
      observed: this.reconciler.observed(),
    };
  }

  /** How the box is doing, where that has changed since this session told it. */
  private news(roundTripMs: number | undefined): Condition | undefined {
    const condition = { ...readCondition(), roundTripMs };
    if (!isNews(condition, this.toldCondition)) return undefined;
    this.toldCondition = condition;
    return condition;
  }

  private accept(desired: Desired): void {
    const { generation, sliceId, modelVersionId, reason } = desired;
    if (this.reconciler.accept(desired)) this.log.info({ generation: Number(generation), sliceId, modelVersionId, reason }, 'desired');
  }

  private fallback(reach: Config['fallback']): NonNullable<LocalServingOptions['fallback']> {
    return {
      others: new FleetAnswers(
        () => this.membership?.fallback,
        () => this.online,
      ),
      furthest: { device: Privacy.PRIVACY_DEVICE, site: Privacy.PRIVACY_SITE, fleet: Privacy.PRIVACY_FLEET }[reach],
      active: () => {
        const { spec } = this.supervisor.stats();
        const manifest = spec && this.store.manifest(spec.modelVersionId);
        const slice = manifest && sliceById(manifest, spec.sliceId);
        return slice && { sliceName: slice.name, quality: (task) => qualityOf(slice, task || undefined)?.value };
      },
    };
  }

  // -- towards what is desired

  private async fetch(slot: Slot, chunkIds: readonly string[], signal: AbortSignal): Promise<void> {
    const wanted = this.store.chunks(slot).filter(({ id }) => chunkIds.includes(id));
    const totalBytes = BigInt(wanted.reduce((sum, { bytes }) => sum + bytes, 0));
    let fetchedBytes = 0n;
    let toldAt = 0;
    const tell = (): void => {
      toldAt = Date.now();
      this.reconciler.report(slot.generation, Phase.PHASE_FETCHING, { fetchedBytes, totalBytes });
    };
    tell();
    this.log.info({ generation: slot.generation, chunks: wanted.length, totalBytes: Number(totalBytes) }, 'fetching');
    await deliver(this.membership!.artifacts!, wanted, {
      what: `slice ${slot.sliceId} of ${slot.modelName}`,
      directory: join(this.store.directory, 'chunks'),
      pathOf: (id) => this.store.chunkPath(id),
      parallel: this.config.downloads,
      pace: this.pace,
      signal,
      onBytes: (count) => {
        fetchedBytes += BigInt(count);
        if (Date.now() - toldAt >= 500) tell();
      },
    });
    tell();
  }

  private async activate(slot: Slot, signal: AbortSignal): Promise<boolean> {
    const { journal, store, host, supervisor } = this;
    const onStep = (): void => {
      const verifying = journal.current.activation?.step === 'verifying';
      this.reconciler.report(slot.generation, verifying ? Phase.PHASE_VERIFYING : Phase.PHASE_ACTIVATING);
    };
    const prepare = (candidate: EngineSpec, until: AbortSignal): Promise<void> => this.prepare(candidate, until);
    const availableMemoryBytes = (): number => measureMemory().availableBytes;
    const { hotRowBytes } = this.config;
    const damaged = await activate(slot, { journal, store, host, supervisor, prepare, onStep, availableMemoryBytes, hotRowBytes }, signal);
    if (damaged.length > 0) {
      journal.note(abandon);
      this.log.warn({ chunks: damaged }, 'chunks were damaged on disk; fetching them again');
      return false;
    }
    const { generation, sliceId, modelVersionId } = slot;
    const { tokens, previousTokens, interTokenMs } = journal.current.activation ?? {};
    this.log.info({ generation, sliceId, modelVersionId, golden: tokens, previous: previousTokens, interTokenMs }, 'active');
    return true;
  }

  /** Without prepared weights a slice runs too, in more private memory: whatever goes wrong is a warning. */
  private async prepare(candidate: EngineSpec, signal: AbortSignal): Promise<void> {
    const { store, config, log } = this;
    // An accelerator takes the weights as they are.
    if (config.provider !== 'cpu') return;
    const { active } = this.journal.current;
    const keep = active && active.modelVersionId !== '' ? [engineSpec(store, active)] : [];
    const manifest = store.manifest(candidate.modelVersionId)!;
    const slice = sliceById(manifest, candidate.sliceId);
    try {
      const packed = preparedBytes(manifest, slice);
      const { bavail, bsize } = await statfs(config.data);
      // A disk that reports no free block does not know.
      if (packed > bavail * bsize && bavail > 0)
        throw new Error(`packing takes ${Math.ceil(packed / 1e6)} MB of disk in ${config.data}, ${Math.floor((bavail * bsize) / 1e6)} MB are free`);
      const done = await prepareSlice(
        { storeDir: store.directory, slices: [candidate, ...keep], ...(config.threads !== undefined && { threads: config.threads }) },
        {
          mappedBytes: mappedBytes(manifest, slice),
          largestMatrixBytes: largestMatrixBytes(manifest, slice),
          availableBytes: measureMemory().availableBytes,
          signal,
        },
      );
      if (done?.made) log.info({ sliceId: candidate.sliceId, bytes: done.bytes, ms: Math.round(done.ms) }, 'weights packed for this processor');
    } catch (error) {
      signal.throwIfAborted();
      log.warn(
        { sliceId: candidate.sliceId, reason: (error as Error).message },
        'weights are not packed ahead: the engine packs them in private memory',
      );
    }
  }

  /** The count is durable: an agent that ends with its engine goes on counting. */
  private crashed(spec: EngineSpec, reason: string): void {
    const { active } = this.journal.current;
    if (!active || active.sliceId !== spec.sliceId || active.modelVersionId !== spec.modelVersionId) return;
    const counted = this.journal.note((state) => recordCrash(state, Date.now()));
    if (!crashLooping(counted)) return;
    const minutes = CRASH_POLICY.windowMs / 60_000;
    const why = `slice ${active.sliceId} ended ${CRASH_POLICY.crashes} times within ${minutes} minutes, the last time because ${reason}`;
    const after = this.journal.note((state) => revert(state, why, Date.now()));
    if (!after.active || after.active === active) return;
    this.log.error({ from: active.sliceId, to: after.active.sliceId, reason: why }, 'back to the previous slice');
    this.supervisor.resume(engineSpec(this.store, after.active, this.config.hotRowBytes));
    this.reconciler.report(active.generation, Phase.PHASE_FAILED, { error: why });
  }

  private announce(address: LocalAddress): void {
    if (!this.config.readyFile) return;
    const { enginePid } = this.supervisor.stats();
    writeFileDurably(this.config.readyFile, `${JSON.stringify({ ...address, pid: process.pid, ...(enginePid > 0 && { enginePid }) })}\n`);
  }
}
