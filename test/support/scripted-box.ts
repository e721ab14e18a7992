import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { enrol } from '@matfleet/device';
import { openEngine, type Engine, type GenerateOptions } from '@matfleet/inference';
import { Manifest } from '@matfleet/model';
import { Finished, FinishReason, Phase, Started, type GenerateResponse, type StartInference } from '@matfleet/protocol';
import { FakeDevice } from '@matfleet/protocol/testing';

const BEAT_MS = 200;
/** Longer than anybody waits for a token of nano. */
const PAUSE_MS = 600;

/** How a box ends an answer after some of its tokens. */
export type Mishap =
  /** Its engine died. */
  | 'engine'
  /** Its session is gone. */
  | 'vanished'
  /** Nothing comes any more, as from a process that was stopped. */
  | 'frozen'
  /** It says nothing for a while, and then goes on. */
  | 'pauses'
  /** A token that no vocabulary has. */
  | 'nonsense'
  /** It says that it is done, and tokens are missing. */
  | 'swallowed';

export interface ScriptedBoxOptions {
  readonly name: string;
  readonly deviceUrl: string;
  readonly token: string;
  /** Of its own, for its identity. */
  readonly directory: string;
  readonly modelMemoryBytes: bigint;
  /** The package that the control plane is expected to assign. */
  readonly package: { readonly dir: string; readonly versionId: string };
  /** What others are said to wait for here. */
  readonly queueLength: number;
}

/** A device over a real session whose answers come from the real engine, and break off where a test says. */
export class ScriptedBox {
  /** Of the next answer, after so many tokens of its own. */
  mishap: { readonly kind: Mishap; readonly afterTokens: number } | undefined;
  readonly starts: StartInference[] = [];
  private readonly beats: NodeJS.Timeout;
  private serving: Promise<void> = Promise.resolve();
  private closed = false;

  private constructor(
    private readonly options: ScriptedBoxOptions,
    private readonly device: FakeDevice,
    private readonly engine: Engine,
  ) {
    this.beats = setInterval(() => this.beat(), BEAT_MS);
    this.beat();
    this.serving = this.serve();
  }

  static async start(options: ScriptedBoxOptions): Promise<ScriptedBox> {
    const { deviceUrl, name, token, directory } = options;
    const identity = await enrol({ joinUrl: deviceUrl, deviceName: name, token, directory });
    const device = new FakeDevice({ target: new URL(deviceUrl).host, caPem: identity.caPem, certificate: identity });
    const sliceId = await open(device, options);
    const manifest = Manifest.parse(JSON.parse(await readFile(join(options.package.dir, 'manifest.json'), 'utf8')));
    return new ScriptedBox(options, device, await openEngine({ manifest, storeDir: options.package.dir, sliceId, contextTokens: 256 }));
  }

  /** What this device would write after such a prompt. */
  async textAfter(prompt: string, options: GenerateOptions): Promise<string> {
    const tokens = this.engine.generate(this.engine.tokenizeText(prompt), { ...options, reuse: 'off' });
    let text = '';
    for (;;) {
      const step = await tokens.next();
      if (step.done) return text + step.value.tail;
      text += step.value.text;
    }
  }

  get sliceId(): string {
    return this.engine.sliceId;
  }

  async stop(): Promise<void> {
    this.closed = true;
    clearInterval(this.beats);
    this.device.close();
    await this.serving;
    await this.engine.close();
  }

  private beat(): void {
    this.device.heartbeat({ queueLength: this.options.queueLength, inFlight: 0 });
  }

  private async serve(): Promise<void> {
    while (!this.closed) {
      const start = await this.device.next('startInference', 200).catch(() => undefined);
      if (start) await this.answer(start);
    }
  }

  private async answer(start: StartInference): Promise<void> {
    this.starts.push(start);
    const { mishap } = this;
    this.mishap = undefined;
    const { attemptId, modelVersionId, sliceId, request } = start;
    let sequence = 0n;
    const emit = (event: GenerateResponse['event']): void =>
      this.device.send({
        message: { $case: 'inferenceEvent', value: { attemptId, sequence: ++sequence, event: { $case: 'response', value: { event } } } },
      });
    emit({ $case: 'started', value: Started.fromPartial({ modelVersionId, sliceId }) });
    const { prompt, messages, maxTokens, answered, output } = request!;
    const user = messages[0]?.parts[0]?.content?.value ?? '';
    const promptIds = prompt === undefined ? this.engine.tokenize([{ role: 'user', text: user }]) : this.engine.tokenizeText(prompt);
    const tokens = this.engine.generate(promptIds, {
      ...{ answered: answered?.tokenIds ?? [], reuse: 'off' },
      ...(maxTokens > 0 && { maxTokens }),
      ...(output?.format?.form?.$case === 'grammar' && { format: { grammar: output.format.form.value } }),
    });
    for (let told = 0; ; told++) {
      if (mishap?.kind === 'pauses' && told === mishap.afterTokens) await sleep(PAUSE_MS);
      else if (mishap && told >= mishap.afterTokens && mishap.kind !== 'pauses') {
        await tokens.return(undefined as never);
        return this.breakOff(mishap.kind, emit, start);
      }
      const step = await tokens.next();
      if (step.done) {
        const { outputTokens, ttftMs, tokensPerSecond, tail } = step.value;
        if (tail !== '') emit({ $case: 'delta', value: { text: tail, tokenIds: [] } });
        const value = Finished.fromPartial({ reason: FinishReason.FINISH_REASON_STOP, outputTokens, ttftMs, tokensPerSecond });
        return emit({ $case: 'finished', value });
      }
      emit({ $case: 'delta', value: { text: step.value.text, tokenIds: [step.value.tokenId] } });
    }
  }

  private async breakOff(
    kind: Exclude<Mishap, 'pauses'>,
    emit: (event: GenerateResponse['event']) => void,
    { attemptId }: StartInference,
  ): Promise<void> {
    switch (kind) {
      case 'frozen':
        return;
      case 'nonsense':
        return emit({ $case: 'delta', value: { text: '?', tokenIds: [4_000_000_000] } });
      case 'swallowed':
        return emit({ $case: 'finished', value: Finished.fromPartial({ reason: FinishReason.FINISH_REASON_STOP, outputTokens: 1_000 }) });
      case 'engine': {
        const failure = { code: 14, message: 'the engine ended' };
        return this.device.send({
          message: { $case: 'inferenceEvent', value: { attemptId, sequence: 99n, event: { $case: 'failure', value: failure } } },
        });
      }
      case 'vanished':
        this.device.vanish();
        await open(this.device, this.options);
        this.beat();
    }
  }
}

/** Says Hello, and reports that what is desired runs. Answers the slice. */
async function open(device: FakeDevice, { modelMemoryBytes, package: { versionId } }: ScriptedBoxOptions): Promise<string> {
  device.open({
    capabilities: {
      ...{ architecture: 'x64', platform: 'linux', cores: 2, modelMemoryBytes, totalMemoryBytes: 8n << 30n, availableMemoryBytes: 4n << 30n },
      memoryBandwidthBytesPerSecond: 10_000_000_000n,
    },
  });
  await device.next('welcome');
  const { generation, modelVersionId, sliceId } = await device.next('desired');
  if (modelVersionId !== versionId) throw new Error(`assigned ${modelVersionId}, the test's package is ${versionId}`);
  const observed = { generation, modelVersionId, sliceId };
  const value = {
    sequence: generation,
    generation,
    phase: Phase.PHASE_ACTIVE,
    observed,
    fetchedBytes: 1n,
    totalBytes: 1n,
    error: '',
    activation: undefined,
  };
  device.send({ message: { $case: 'report', value } });
  await device.next('reportAck');
  return sliceId;
}
