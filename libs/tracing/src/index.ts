export { startTracing, type Tracing } from './exporter.js';
export { openSpan, traced, traceParent, type Attributes, type OpenSpan, type SpanKind, type SpanOptions } from './span.js';
