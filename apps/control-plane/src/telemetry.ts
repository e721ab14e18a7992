import { Injectable, type LoggerService } from '@nestjs/common';
import { pino, type Logger } from 'pino';
import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client';

/** Fields that never reach a log, wherever they stand: what people ask and what models answer, and secrets. */
const REDACTED = ['prompt', 'messages', 'answer', 'text', 'request', 'authorization', 'cookie', 'apiKey', 'token', 'secret', 'password'];

export function createLogger(level: string): Logger {
  return pino({
    level,
    base: { service: 'control-plane' },
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label) => ({ level: label }) },
    redact: { paths: REDACTED.flatMap((field) => [field, `*.${field}`, `*.*.${field}`]), censor: '[redacted]' },
  });
}

/** Nest's log lines through pino. The last text parameter is Nest's context: the feature that speaks. */
export class PinoNestLogger implements LoggerService {
  constructor(private readonly pino: Logger) {}

  log = (message: unknown, ...rest: unknown[]): void => this.write('info', message, rest);
  error = (message: unknown, ...rest: unknown[]): void => this.write('error', message, rest);
  warn = (message: unknown, ...rest: unknown[]): void => this.write('warn', message, rest);
  debug = (message: unknown, ...rest: unknown[]): void => this.write('debug', message, rest);
  verbose = (message: unknown, ...rest: unknown[]): void => this.write('trace', message, rest);
  fatal = (message: unknown, ...rest: unknown[]): void => this.write('fatal', message, rest);

  private write(level: 'info' | 'error' | 'warn' | 'debug' | 'trace' | 'fatal', message: unknown, rest: unknown[]): void {
    const context = typeof rest.at(-1) === 'string' ? rest.at(-1) : undefined;
    // Nest tells its own wiring at `info`: 200 lines that nobody asked for.
    const quiet =
      level === 'info' &&
      typeof context === 'string' &&
      /^(InstanceLoader|RouterExplorer|RoutesResolver|NestFactory|GraphQLModule|NestApplication)$/.test(context);
    // An object is fields, its `msg` the text.
    const fields = { context, ...(message instanceof Error ? { err: message } : typeof message === 'object' ? message : { msg: String(message) }) };
    this.pino[quiet ? 'debug' : level](fields);
  }
}

/** Every metric of the control plane, under `matfleet_`. */
@Injectable()
export class Metrics {
  readonly registry = new Registry();
  readonly httpSeconds = new Histogram({
    name: 'matfleet_http_request_duration_seconds',
    help: 'HTTP requests by route and status.',
    labelNames: ['method', 'route', 'status'] as const,
    buckets: [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10],
    registers: [this.registry],
  });
  readonly jobs = new Counter({
    name: 'matfleet_jobs_total',
    help: 'Job attempts by name and outcome.',
    labelNames: ['job', 'outcome'] as const,
    registers: [this.registry],
  });
  readonly jobSeconds = new Histogram({
    name: 'matfleet_job_duration_seconds',
    help: 'Run time of one job attempt.',
    labelNames: ['job'] as const,
    buckets: [0.01, 0.05, 0.1, 0.5, 1, 5, 15, 60, 300],
    registers: [this.registry],
  });
  readonly waitingJobs = new Gauge({
    name: 'matfleet_jobs_waiting',
    help: 'Jobs that wait for a worker.',
    labelNames: ['job'] as const,
    registers: [this.registry],
  });
  readonly nudges = new Counter({
    name: 'matfleet_nudges_total',
    help: 'Nudges to other replicas, by outcome: sent, lost (no Redis), dropped (too many waited), unknown (of another version).',
    labelNames: ['outcome'] as const,
    registers: [this.registry],
  });
  readonly rolloutTargets = new Counter({
    name: 'matfleet_rollout_targets_total',
    help: 'Devices of rollouts that ended, by outcome.',
    labelNames: ['outcome'] as const,
    registers: [this.registry],
  });
  readonly attempts = new Counter({
    name: 'matfleet_inference_attempts_total',
    help: 'Attempts of queued inferences, by outcome; an attempt past an inference’s first is a fallback.',
    labelNames: ['outcome', 'fallback'] as const,
    registers: [this.registry],
  });
  readonly hedges = new Counter({
    name: 'matfleet_inference_hedges_total',
    help: 'Second devices that were asked beside a silent one.',
    registers: [this.registry],
  });
  readonly attemptReachSeconds = new Histogram({
    name: 'matfleet_attempt_reach_seconds',
    help: 'From the start of an attempt to the first word of its device, by where the session of the device is: here, or with a peer.',
    labelNames: ['via'] as const,
    buckets: [0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.025, 0.035, 0.05, 0.1, 0.25, 1, 10],
    registers: [this.registry],
  });
  readonly uploadedBytes = new Counter({
    name: 'matfleet_chunk_uploaded_bytes_total',
    help: 'Bytes of chunks taken from publishers.',
    registers: [this.registry],
  });
  readonly timelineEntries = new Counter({
    name: 'matfleet_timeline_entries_total',
    help: 'Entries of device timelines, by outcome: written, lost (the database refused them), dropped (too many waited).',
    labelNames: ['outcome'] as const,
    registers: [this.registry],
  });
  readonly refusedSessions = new Counter({
    name: 'matfleet_sessions_refused_total',
    help: 'Connections and sessions that were not taken, by reason.',
    labelNames: ['reason'] as const,
    registers: [this.registry],
  });

  constructor() {
    collectDefaultMetrics({ register: this.registry, prefix: 'matfleet_' });
  }
}
