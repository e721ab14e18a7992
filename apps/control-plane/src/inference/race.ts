import type { BegunAnswer } from '../domain/begun-answer.js';
import type { AttemptOutcome } from './attempt.js';
import type { AttemptEvent } from './attempt-hub.js';
import type { AnswerWatcher, FleetAttempt } from './fleet-answers.js';

/** Another device spoke first. */
export class Overtaken extends Error {}

/** What a running attempt tells. */
export interface AttemptHooks {
  readonly onEvent: (event: AttemptEvent) => void;
  /** All the text so far, and what another device could go on from. */
  readonly onProgress: (text: string, begun: BegunAnswer) => void;
}

export interface Race {
  readonly first: FleetAttempt;
  readonly run: (attempt: FleetAttempt, hooks: AttemptHooks, signal: AbortSignal) => Promise<AttemptOutcome>;
  /** Silence, ms, after which a second device is asked beside this one. */
  readonly patienceMs: (attempt: FleetAttempt, spoke: boolean) => number;
  /** The attempt on a second device, which goes on from `begun`; undefined when there is none, or no budget for one. */
  readonly challenger: (silent: FleetAttempt, begun: BegunAnswer) => Promise<FleetAttempt | undefined>;
  readonly watcher: AnswerWatcher;
}

export interface Finished {
  readonly attempt: FleetAttempt;
  readonly outcome: AttemptOutcome;
}

interface Runner {
  readonly attempt: FleetAttempt;
  readonly abort: AbortController;
  started: AttemptEvent | undefined;
  spoke: boolean;
}

/**
 * Runs one attempt; while it is silent for longer than expected, a second one beside it. Whichever speaks first goes on, the other one is
 * cancelled. Resolves with all attempts that ended, in that order; the last one decides. Only what the leading attempt says is heard.
 */
export function race({ first, run, patienceMs, challenger, watcher }: Race, signal: AbortSignal): Promise<Finished[]> {
  return new Promise((resolve, reject) => {
    const ended: Finished[] = [];
    let leader: Runner;
    let rival: Runner | undefined;
    let begun = first.begun;
    let patience: NodeJS.Timeout | undefined;
    let running = 0;

    const stop = (): void => [leader, rival].forEach((one) => one?.abort.abort(signal.reason));
    const dismiss = (loser: Runner, winner: Runner): void => loser.abort.abort(new Overtaken(`${winner.attempt.device.name} was faster`));
    const beSilent = (): void => {
      clearTimeout(patience);
      patience = setTimeout(() => void challenge().catch(fail), patienceMs(leader.attempt, leader.spoke));
    };
    const fail = (error: unknown): void => {
      clearTimeout(patience);
      stop();
      signal.removeEventListener('abort', stop);
      reject(error as Error);
    };

    async function challenge(): Promise<void> {
      const silent = leader;
      const from = { ...begun, tokenIds: [...begun.tokenIds] };
      const goneOn = (): boolean => leader !== silent || running === 0 || begun.tokenIds.length !== from.tokenIds.length;
      const attempt = await challenger(silent.attempt, from);
      if (!attempt || rival || goneOn()) return;
      await watcher.begins(attempt);
      if (!goneOn()) rival = launch(attempt);
      else await watcher.ended(attempt, { kind: 'failed', error: `${silent.attempt.device.name} spoke again`, retryable: true, begun: from });
    }

    const speaks = (runner: Runner, event: AttemptEvent): void => {
      if (runner.abort.signal.aborted) return;
      if (event.kind === 'started') {
        runner.started = event;
        if (runner !== leader) return;
      } else {
        runner.spoke = true;
        if (runner === rival) [leader, rival] = [rival, leader];
        const overtaken = rival;
        rival = undefined;
        if (overtaken) {
          if (runner.started) watcher.hears?.(runner.attempt, runner.started);
          dismiss(overtaken, runner);
        }
      }
      watcher.hears?.(runner.attempt, event);
      if (event.kind === 'finished') clearTimeout(patience);
      else beSilent();
    };

    const launch = (attempt: FleetAttempt): Runner => {
      const runner: Runner = { attempt, abort: new AbortController(), started: undefined, spoke: false };
      running++;
      const hooks: AttemptHooks = {
        onEvent: (event) => speaks(runner, event),
        onProgress: (text, told) => {
          if (runner !== leader) return;
          begun = told;
          watcher.wrote(attempt, text);
        },
      };
      run(attempt, hooks, runner.abort.signal)
        .then((outcome) => settled(runner, outcome))
        .catch(fail);
      return runner;
    };

    async function settled(runner: Runner, outcome: AttemptOutcome): Promise<void> {
      const last = { attempt: runner.attempt, outcome };
      if (runner === leader) {
        clearTimeout(patience);
        // What it leaves, the next one goes on from.
        if (rival) [leader, rival] = [rival, undefined];
      } else if (runner === rival) rival = undefined;
      await watcher.ended(last.attempt, outcome);
      running--;
      // An answer, however late its loser ends, is the last word.
      ended.push(last);
      if (running > 0) return;
      clearTimeout(patience);
      signal.removeEventListener('abort', stop);
      resolve(ended.sort((a, b) => Number(a.outcome.kind === 'answered') - Number(b.outcome.kind === 'answered')));
    }

    signal.addEventListener('abort', stop, { once: true });
    leader = launch(first);
    beSilent();
    if (signal.aborted) stop();
  });
}
