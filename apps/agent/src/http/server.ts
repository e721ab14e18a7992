import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { isIP } from 'node:net';
import { Exchange } from './exchange.js';
import { guard, isLoopback, type GuardPolicy } from './guard.js';
import { HttpError, toHttpError } from './http-error.js';
import { ollamaRoutes } from './ollama/routes.js';
import { errorBody } from './openai/responses.js';
import { openAiRoutes } from './openai/routes.js';
import type { Route, Serving } from './routes.js';

export interface HttpAddress {
  readonly host: string;
  /** 0: any free one. */
  readonly port: number;
}

export interface HttpOptions extends GuardPolicy {
  readonly address: HttpAddress;
  readonly clientStallMs: number;
}

export interface LocalHttp {
  /** Answers the URL that it listens on. */
  start(): Promise<string>;
  /** Takes no new request; resolves once those that run have ended, at the latest after `timeoutMs`. */
  stop(timeoutMs: number): Promise<void>;
}

/** Beyond what one device's applications need; each one holds memory. */
const MAX_CONNECTIONS = 256;

/** The APIs of OpenAI and Ollama on one port. On node:http alone: ten routes need no framework, and nothing stands between a caller that goes away and the engine. */
export function createLocalHttp(options: HttpOptions, serving: Serving): LocalHttp {
  const { address } = options;
  if (!isLoopback(address.host) && options.token === undefined)
    throw new Error(`the HTTP address ${address.host} can be reached from other devices: it needs a token (MATFLEET_HTTP_TOKEN)`);
  const routes = [...openAiRoutes(serving), ...ollamaRoutes(serving)];
  const server = createServer({ requestTimeout: 60_000, headersTimeout: 10_000, keepAliveTimeout: 30_000 }, (request, response) => {
    void handle(request, response);
  });
  server.maxConnections = MAX_CONNECTIONS;

  async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const exchange = new Exchange(request, response, options.clientStallMs);
    const path = (request.url ?? '/').split('?', 1)[0]!;
    const route = routes.find((one) => one.path.test(path) && one.method === request.method);
    try {
      const verdict = guard({ host: request.headers.host, origin: exchange.header('origin'), authorization: request.headers.authorization }, options);
      if (verdict !== 'pass') throw new HttpError(verdict.status, verdict.status === 401 ? 'unauthorized' : 'forbidden', verdict.message);
      if (!route) throw noRoute(routes, request.method ?? '', path);
      await route.run(exchange, route.path.exec(path)!.slice(1));
    } catch (error) {
      if (exchange.started || exchange.gone.aborted) response.destroy();
      else {
        const httpError = toHttpError(error);
        exchange.sendError(httpError, (route?.errorBody ?? errorBody)(httpError));
      }
    }
  }

  return {
    async start() {
      await new Promise<void>((resolve, reject) => {
        server.once('error', (cause) =>
          reject(
            new Error(`cannot listen for HTTP on ${address.host}:${address.port}: ${cause.message} (--http sets another address, --http off none)`, {
              cause,
            }),
          ),
        );
        server.listen(address.port, address.host, resolve);
      });
      const bound = server.address() as { address: string; port: number };
      return `http://${isIP(bound.address) === 6 ? `[${bound.address}]` : bound.address}:${bound.port}`;
    },

    async stop(timeoutMs) {
      if (!server.listening) return;
      await new Promise<void>((resolve) => {
        const timer = setTimeout(() => server.closeAllConnections(), timeoutMs);
        // A connection becomes idle when its answer ends.
        const idle = setInterval(() => server.closeIdleConnections(), 50);
        server.close(() => {
          clearTimeout(timer);
          clearInterval(idle);
          resolve();
        });
        server.closeIdleConnections();
      });
    },
  };
}

function noRoute(routes: readonly Route[], method: string, path: string): HttpError {
  const allowed = routes.filter((one) => one.path.test(path)).map((one) => one.method);
  return allowed.length > 0
    ? new HttpError(405, 'method_not_allowed', `${path} takes ${allowed.join(' and ')}, not ${method}`)
    : new HttpError(404, 'not_found', `there is no ${method} ${path}`);
}
