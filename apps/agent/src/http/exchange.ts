import type { IncomingMessage, ServerResponse } from 'node:http';
import { badRequest, HttpError, type toHttpError } from './http-error.js';

const MAX_BODY_BYTES = 4 * 2 ** 20;
const BODY_TIMEOUT_MS = 30_000;

/** One HTTP request and its response. */
export class Exchange {
  readonly #gone = new AbortController();
  /** Aborts when the caller goes away before the response has ended. */
  readonly gone = this.#gone.signal;

  constructor(
    readonly request: IncomingMessage,
    readonly response: ServerResponse,
    /** A caller that reads nothing for this long loses its answer. */
    private readonly stallMs: number,
  ) {
    response.once('close', () => {
      if (!response.writableFinished) this.#gone.abort(new Error('the caller is gone'));
    });
  }

  header(name: string): string | undefined {
    const value = this.request.headers[name];
    return Array.isArray(value) ? value[0] : value;
  }

  /** Throws HttpError when the body is no JSON, is too long or does not come. */
  async json(): Promise<unknown> {
    const chunks: Buffer[] = [];
    let bytes = 0;
    const timer = setTimeout(() => this.request.destroy(), BODY_TIMEOUT_MS);
    try {
      for await (const chunk of this.request as AsyncIterable<Buffer>) {
        bytes += chunk.length;
        if (bytes > MAX_BODY_BYTES) throw new HttpError(413, 'request_too_large', `the body has more than ${MAX_BODY_BYTES} bytes`);
        chunks.push(chunk);
      }
    } finally {
      clearTimeout(timer);
    }
    try {
      return JSON.parse(Buffer.concat(chunks).toString('utf8')) as unknown;
    } catch (error) {
      throw badRequest(`the body is no JSON: ${(error as Error).message}`);
    }
  }

  get started(): boolean {
    return this.response.headersSent;
  }

  send(status: number, body: unknown, headers: Record<string, string> = {}): void {
    if (this.response.destroyed) return;
    this.response.writeHead(status, { 'content-type': 'application/json; charset=utf-8', ...headers }).end(JSON.stringify(body));
  }

  sendError({ status, details: { retryAfterMs } }: ReturnType<typeof toHttpError>, body: unknown): void {
    this.send(status, body, retryAfterMs === undefined ? {} : { 'retry-after': String(Math.ceil(retryAfterMs / 1_000)) });
  }

  startStream(contentType: string, headers: Record<string, string>): void {
    this.response.writeHead(200, { 'content-type': contentType, 'cache-control': 'no-cache', ...headers });
    // Tokens are small and each one matters: no waiting for a full packet.
    this.response.socket?.setNoDelay(true);
  }

  /** Resolves once the caller has room again; at once when it is gone. */
  write(text: string): void | Promise<void> {
    const { response, gone } = this;
    if (gone.aborted || response.write(text)) return undefined;
    return new Promise((resolve) => {
      const done = (): void => {
        clearTimeout(timer);
        response.off('drain', done);
        gone.removeEventListener('abort', done);
        resolve();
      };
      const timer = setTimeout(() => response.destroy(), this.stallMs);
      response.once('drain', done);
      gone.addEventListener('abort', done, { once: true });
    });
  }

  end(): void {
    this.response.end();
  }
}
