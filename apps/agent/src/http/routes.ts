import type { Supervisor } from '../engine/supervisor.js';
import type { Answering } from '../serving/answer.js';
import type { Exchange } from './exchange.js';
import type { ToolPrompt } from './tools.js';
import type { HttpError } from './http-error.js';

/** What the routes answer with. */
export interface Serving {
  readonly supervisor: Supervisor;
  readonly answering: Answering;
  readonly toolPrompt: ToolPrompt;
}

export interface Route {
  readonly method: 'GET' | 'POST';
  readonly path: RegExp;
  /** `groups` of the path. May throw HttpError or ServingError while nothing has been sent. */
  run(exchange: Exchange, groups: readonly string[]): void | Promise<void>;
  /** Errors in the words of the API that the route belongs to. */
  errorBody(error: HttpError): object;
}
