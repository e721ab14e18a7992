import type * as Api from '@opentelemetry/api';

/** Ids, names, counts and durations; never what people ask, what models answer, or a secret. */
export type Attributes = Readonly<Record<string, string | number | boolean | undefined>>;
export type SpanKind = 'internal' | 'server' | 'client' | 'producer' | 'consumer';

export interface SpanOptions {
  readonly kind?: SpanKind;
  readonly attributes?: Attributes;
  /** W3C `traceparent` of the span that this one belongs to; absent or not valid: the active span. */
  readonly parent?: string | undefined;
  /** Begins a trace where there is no parent. Without it there is no span then: what nobody asked for is in no trace. */
  readonly entry?: boolean;
}

export interface OpenSpan {
  /** Runs `work` with this span as the active one. */
  run<T>(work: () => T): T;
  set(attributes: Attributes): void;
  rename(name: string): void;
  /** With what went wrong: its code or class is told, its message is not. */
  end(error?: unknown): void;
}

interface Backend {
  readonly api: typeof Api;
  readonly tracer: Api.Tracer;
}

const NO_SPAN: OpenSpan = { run: (work) => work(), set: () => {}, rename: () => {}, end: () => {} };

let backend: Backend | undefined;

/** Until this is called nothing of OpenTelemetry is loaded, and a span costs one comparison. */
export function record(to: Backend | undefined): void {
  backend = to;
}

export function openSpan(name: string, { kind = 'internal', attributes = {}, parent, entry = false }: SpanOptions = {}): OpenSpan {
  if (!backend) return NO_SPAN;
  const { api, tracer } = backend;
  const active = api.context.active();
  const given = parent === undefined ? active : api.propagation.extract(api.ROOT_CONTEXT, { traceparent: parent });
  const within = api.trace.getSpanContext(given) ? given : active;
  if (!entry && !api.trace.getSpanContext(within)) return NO_SPAN;
  const span = tracer.startSpan(name, { kind: kindOf(api, kind), attributes: known(attributes) }, within);
  const inside = api.trace.setSpan(within, span);
  return {
    run: (work) => api.context.with(inside, work),
    set: (more) => void span.setAttributes(known(more)),
    rename: (to) => void span.updateName(to),
    end: (error) => {
      if (error !== undefined) {
        span.setStatus({ code: api.SpanStatusCode.ERROR });
        span.setAttribute('error.type', nameOf(error));
      }
      span.end();
    },
  };
}

/** Runs `work` inside a span that ends with it. */
export async function traced<T>(name: string, options: SpanOptions, work: (span: OpenSpan) => Promise<T> | T): Promise<T> {
  const span = openSpan(name, options);
  if (span === NO_SPAN) return work(span);
  try {
    const value = await span.run(() => work(span));
    span.end();
    return value;
  } catch (error) {
    span.end(error ?? 'error');
    throw error;
  }
}

/** W3C `traceparent` of the active span, to travel with a message or a job; undefined where there is none. */
export function traceParent(): string | undefined {
  if (!backend) return undefined;
  const { api } = backend;
  const carrier: { traceparent?: string } = {};
  api.propagation.inject(api.context.active(), carrier);
  return carrier.traceparent;
}

const kindOf = (api: typeof Api, kind: SpanKind): Api.SpanKind =>
  ({
    internal: api.SpanKind.INTERNAL,
    server: api.SpanKind.SERVER,
    client: api.SpanKind.CLIENT,
    producer: api.SpanKind.PRODUCER,
    consumer: api.SpanKind.CONSUMER,
  })[kind];

const known = (attributes: Attributes): Api.Attributes =>
  Object.fromEntries(Object.entries(attributes).filter(([, value]) => value !== undefined)) as Api.Attributes;

function nameOf(error: unknown): string {
  if (typeof error === 'string') return error;
  const { code, name } = error as { code?: unknown; name?: unknown };
  return typeof code === 'string' || typeof code === 'number' ? String(code) : String(name ?? 'error');
}
