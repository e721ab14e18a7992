import { randomUUID } from 'node:crypto';
import { Injectable, Logger } from '@nestjs/common';
import { interval, Observable, Subject, takeUntil } from 'rxjs';
import { keepScope } from '../database/scope.js';
import { DomainError } from '../errors.js';
import { FleetEvents } from '../events/fleet-events.js';
import { QueueService } from '../queue/queue.service.js';
import { viewOf, type InferenceView, type SubmitInference } from './inference.js';
import { InferenceRepository } from './inference.repository.js';

/**
 * What a follower of one inference gets, in this order: a state first, the end last. The answer so far is its first `offset` characters and then
 * `text`; a device that could not go on from what another one wrote begins at 0 again.
 */
export type InferenceNews =
  | { readonly event: 'state'; readonly inference: InferenceView }
  | { readonly event: 'delta'; readonly attempt: number; readonly offset: number; readonly text: string }
  | { readonly event: 'done'; readonly inference: InferenceView };

const LOOK_MS = 2_000;

interface Live {
  readonly attempt: number;
  readonly text: string;
}

/** Takes inferences, and shows them while they run. */
@Injectable()
export class InferenceService {
  private readonly log = new Logger('inference');
  /** Ends every follower: this process stops. */
  private readonly closing = new Subject<void>();
  /** What running inferences have of their answers. */
  private readonly live = new Map<string, Live>();
  private readonly streamed = new Subject<{ inferenceId: string; attempt: number; text: string }>();

  constructor(
    private readonly inferences: InferenceRepository,
    private readonly queue: QueueService,
    private readonly events: FleetEvents,
  ) {}

  async submit(body: SubmitInference): Promise<InferenceView> {
    const id = randomUUID();
    const messages = body.messages ?? [{ role: 'user' as const, text: body.prompt! }];
    await this.inferences.create({
      id,
      request: { messages, sampling: body.sampling ?? null, maxTokens: body.maxTokens ?? 0 },
      task: body.task ?? null,
      qualityFloor: body.qualityFloor ?? null,
      deadlineAt: new Date(Date.now() + body.deadlineMs),
    });
    // It is accepted once it stands in the database: what the queue did not take, the leader enqueues again.
    await this.queue
      .enqueue('run-inference', { inferenceId: id })
      .catch((error: unknown) => this.log.warn(error instanceof Error ? error.message : String(error)));
    this.changed(id);
    return this.get(id);
  }

  async get(id: string): Promise<InferenceView> {
    const inference = await this.inferences.find(id);
    if (!inference) throw new DomainError('not-found', `there is no inference ${id.slice(0, 80)}`);
    return viewOf(inference, this.live.get(id)?.text);
  }

  /** Newest first, at most 100. */
  async list(): Promise<InferenceView[]> {
    return (await this.inferences.list()).map((inference) => viewOf(inference, this.live.get(inference.id)?.text));
  }

  /** Follows one inference to its end. A follower that comes late gets what was written so far as its first delta. */
  follow(id: string): Observable<InferenceNews> {
    const here = keepScope();
    return new Observable<InferenceNews>((follower) => {
      let told = '';
      let reading = Promise.resolve();
      const tell = ({ attempt, text }: Live): void => {
        if (told.startsWith(text)) return;
        const offset = text.startsWith(told) ? told.length : 0;
        follower.next({ event: 'delta', attempt, offset, text: text.slice(offset) });
        told = text;
      };
      const read = async (): Promise<void> => {
        const inference = await this.get(id);
        const ended = inference.state === 'succeeded' || inference.state === 'failed';
        follower.next({ event: ended ? 'done' : 'state', inference });
        const live = this.live.get(id);
        if (ended) follower.complete();
        else if (live) tell(live);
      };
      const next = (): void => void (reading = reading.then(() => here(read)).catch((error: unknown) => follower.error(error)));
      const changes = this.events.on('inference-changed').subscribe((event) => event.inferenceId === id && !this.isDelta(id) && next());
      // News of another replica may be lost on its way.
      const looks = interval(LOOK_MS).subscribe(next);
      const deltas = this.streamed.subscribe((delta) => delta.inferenceId === id && tell(delta));
      next();
      return () => {
        changes.unsubscribe();
        deltas.unsubscribe();
        looks.unsubscribe();
      };
    }).pipe(takeUntil(this.closing));
  }

  /** Followers are sent away, to another replica, before the requests that still run are waited for. */
  stopFollowers(): void {
    this.closing.next();
  }

  /** Called while an attempt writes. */
  wrote(inferenceId: string, attempt: number, text: string): void {
    this.live.set(inferenceId, { attempt, text });
    this.streamed.next({ inferenceId, attempt, text });
    this.telling = inferenceId;
    this.events.receive({ kind: 'inference-changed', inferenceId });
    this.telling = undefined;
  }

  /** Called when nobody works on its answer here any more. */
  ended(inferenceId: string): void {
    this.live.delete(inferenceId);
  }

  /** Called when a state changed. */
  changed(inferenceId: string): void {
    this.events.emit({ kind: 'inference-changed', inferenceId });
  }

  /** Events are told in place, so that this is set only while one of `wrote` is. */
  private telling: string | undefined;
  private readonly isDelta = (id: string): boolean => this.telling === id;
}
