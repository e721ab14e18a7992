import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { status } from '@grpc/grpc-js';
import { Privacy, Refusal_Code, type AnswerRequest, type Finished, type GenerateRequest, type GenerateResponse, type Hop } from '@matfleet/protocol';
import type { Answering, Emit, Terms } from './answer.js';
import { ServingError } from './serving-error.js';

/** Answers of other devices of the fleet. */
export interface OtherDevices {
  /** Whether they can be asked now. */
  readonly reachable: boolean;
  /** Emits what they say; rejects with ServingError. */
  answer(request: AnswerRequest, emit: Emit, signal: AbortSignal): Promise<void>;
}

export interface FallbackOptions {
  readonly local: Answering;
  readonly others: OtherDevices;
  /** As far as requests may go that say nothing; a request may go less far, never further. */
  readonly furthest: Privacy;
  /** What this device answers with now; undefined while it has nothing. */
  readonly active: () => { readonly quality: (task: string) => number | undefined; readonly sliceName: string } | undefined;
  readonly device: () => { readonly deviceId: string; readonly deviceName: string };
}

/** Deaths of the engine under one answer that is tried again here, when no other device takes it: a second one may be the request's own doing. */
const RESUMES = 1;
/** A request without a deadline waits so long for an engine. */
const WITHOUT_DEADLINE_MS = 30_000;
const LONGEST_MS = 600_000;

/**
 * The best answer that this device can give, else that of another one, also from the middle on: the caller sees one stream. Rejects with the
 * ServingError of this device, which also says why no other one answered.
 */
export class FallbackAnswerer implements Answering {
  constructor(private readonly options: FallbackOptions) {}

  async answer(request: GenerateRequest, emit: Emit, signal: AbortSignal, terms: Terms = {}): Promise<void> {
    const { local, others, furthest } = this.options;
    const arrivedAt = performance.now();
    const told = new ToldAnswer(request, emit, this.options.device);
    const remaining = (): Terms => (terms.remainingMs === undefined ? {} : { remainingMs: terms.remainingMs - (performance.now() - arrivedAt) });
    const privacy = narrower(request.privacy, furthest);
    const waitsUntil = arrivedAt + (terms.remainingMs ?? WITHOUT_DEADLINE_MS);
    let deaths = 0;
    for (;;) {
      const short = this.belowFloor(request);
      const why = await (short ? Promise.reject(short) : local.answer(told.rest(), told.emitLocal, signal, { ...terms, ...remaining() })).then(
        () => undefined,
        (error: unknown) => error,
      );
      if (why === undefined) return;
      if (!(why instanceof ServingError) || signal.aborted || !anotherCould(why)) throw why;
      if (told.runsHere) deaths++;
      told.gaveUp(why.message);
      let alsoWhy = '';
      if (privacy !== Privacy.PRIVACY_DEVICE && others.reachable) {
        const remainingMs = Math.max(1, Math.floor(Math.min(remaining().remainingMs ?? LONGEST_MS, LONGEST_MS)));
        try {
          const call = { request: { ...told.rest(), privacy }, remainingMs, modelVersionId: told.modelVersionId, reason: why.message };
          return await others.answer(call, told.emitOther, signal);
        } catch (error) {
          if (signal.aborted || !(error instanceof ServingError)) throw error;
          alsoWhy = `; no other device answers: ${error.message}`;
        }
      }
      if (isEngineLoss(why) && deaths <= RESUMES && (await this.engineMayReturn(why, waitsUntil - performance.now(), signal))) continue;
      throw new ServingError(why.code, why.message + alsoWhy, why.refusal && { ...why.refusal, message: why.message + alsoWhy }, { cause: why });
    }
  }

  /** Waits for the engine's restart as long as the caller's deadline has room. */
  private async engineMayReturn({ refusal }: ServingError, remainingMs: number, signal: AbortSignal): Promise<boolean> {
    const waitMs = Math.max(100, Math.min(refusal?.retryAfterMs ?? 0, 1_000));
    if (remainingMs <= waitMs) return false;
    await sleep(waitMs, undefined, { signal }).catch(() => undefined);
    return !signal.aborted;
  }

  private belowFloor({ qualityFloor, task }: GenerateRequest): ServingError | undefined {
    const active = this.options.active();
    if (qualityFloor === undefined || !active) return undefined;
    const quality = active.quality(task);
    if (quality !== undefined && quality >= qualityFloor) return undefined;
    const has = quality === undefined ? 'no known quality' : `a quality of ${percent(quality)}`;
    const what = task === '' ? '' : ` for ${task}`;
    return new ServingError(status.FAILED_PRECONDITION, `${active.sliceName} has ${has}${what}; the floor is ${percent(qualityFloor)}`, {
      code: Refusal_Code.CODE_QUALITY,
      message: '',
      retryAfterMs: 0,
    });
  }
}

/** What the caller has of its answer: where any device goes on. */
class ToldAnswer {
  private readonly tokenIds: number[];
  private readonly hops: Hop[] = [];
  private readonly arrivedAt = performance.now();
  private firstAt: number | undefined;
  private started = false;
  /** Of the part that runs here. */
  private here: { sliceId: string; tokens: number } | undefined;
  modelVersionId = '';

  constructor(
    private readonly request: GenerateRequest,
    private readonly emit: Emit,
    private readonly device: () => { readonly deviceId: string; readonly deviceName: string },
  ) {
    this.tokenIds = [...(request.answered?.tokenIds ?? [])];
  }

  /** Its answer has begun here and has not ended. */
  get runsHere(): boolean {
    return this.here !== undefined;
  }

  /** The request for what is still to be said. */
  rest(): GenerateRequest {
    return this.tokenIds.length === 0 ? this.request : { ...this.request, answered: { tokenIds: [...this.tokenIds] } };
  }

  /** The part that ran here is over. */
  gaveUp(error: string): void {
    if (this.here) this.hops.push({ ...this.device(), sliceId: this.here.sliceId, outputTokens: this.here.tokens, reason: 'its own device', error });
    this.here = undefined;
  }

  readonly emitLocal: Emit = (response) => {
    const { event } = response;
    if (event?.$case === 'started') {
      this.here = { sliceId: event.value.sliceId, tokens: 0 };
      this.modelVersionId = event.value.modelVersionId;
    }
    if (event?.$case === 'delta' && this.here) this.here.tokens += event.value.tokenIds.length;
    if (event?.$case === 'finished' && this.hops.length > 0 && this.here) {
      const { sliceId, tokens } = this.here;
      const last: Hop = { ...this.device(), sliceId, outputTokens: tokens, reason: 'its engine is back', error: '' };
      return this.finish({ ...event.value, route: { hops: [...this.hops, last] } });
    }
    return this.pass(response);
  };

  readonly emitOther: Emit = (response) => {
    const { event } = response;
    if (event?.$case === 'finished') return this.finish({ ...event.value, route: { hops: [...this.hops, ...(event.value.route?.hops ?? [])] } });
    return this.pass(response);
  };

  private pass(response: GenerateResponse): void | Promise<void> {
    const { event } = response;
    if (event?.$case === 'started') {
      if (this.started) return undefined;
      this.started = true;
    }
    if (event?.$case === 'delta') {
      this.firstAt ??= performance.now();
      this.tokenIds.push(...event.value.tokenIds);
    }
    return this.emit(response);
  }

  /** The caller's own first token counts, whichever device told it. */
  private finish(value: Finished): void | Promise<void> {
    const ttftMs = this.firstAt === undefined ? value.ttftMs : this.firstAt - this.arrivedAt;
    return this.emit({ event: { $case: 'finished', value: { ...value, ttftMs } } });
  }
}

/** Refusals and failures that say something about this device, not about the request. */
function anotherCould({ code, refusal }: ServingError): boolean {
  return code === status.UNAVAILABLE || code === status.INTERNAL || (refusal !== undefined && refusal.code !== Refusal_Code.CODE_UNSPECIFIED);
}

const isEngineLoss = ({ code }: ServingError): boolean => code === status.UNAVAILABLE || code === status.INTERNAL;

const narrower = (wish: Privacy | undefined, furthest: Privacy): Privacy => (wish ? (Math.min(wish, furthest) as Privacy) : furthest);

const percent = (quality: number): string => `${(quality * 100).toFixed(1)} %`;
