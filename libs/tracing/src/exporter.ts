import { record } from './span.js';

export interface Tracing {
  /** Sends what was gathered, within `timeoutMs`, and records nothing more. */
  close(timeoutMs?: number): Promise<void>;
}

export interface TracingOptions {
  /** Name of the service, where OTEL_SERVICE_NAME gives no other. */
  readonly service: string;
  /** Of the process, beside OTEL_RESOURCE_ATTRIBUTES. */
  readonly attributes?: Readonly<Record<string, string>>;
  /** Told what the exporter cannot deliver, at most once a minute. */
  readonly onProblem: (message: string) => void;
}

const PROTOCOL = 'http/protobuf';
const QUIET_MS = 60_000;
const CLOSE_TIMEOUT_MS = 2_000;

/**
 * Sends spans by OTLP when OpenTelemetry's own variables name an endpoint (OTEL_EXPORTER_OTLP_ENDPOINT or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT); they also
 * say with which headers, sampler, batches and limits. Otherwise undefined, and nothing is loaded. Throws for a protocol other than http/protobuf.
 */
export async function startTracing({ service, attributes = {}, onProblem }: TracingOptions): Promise<Tracing | undefined> {
  const { env } = process;
  const asked = env['OTEL_EXPORTER_OTLP_TRACES_ENDPOINT'] || env['OTEL_EXPORTER_OTLP_ENDPOINT'];
  if (!asked || env['OTEL_SDK_DISABLED']?.toLowerCase() === 'true' || env['OTEL_TRACES_EXPORTER'] === 'none') return undefined;
  const protocol = env['OTEL_EXPORTER_OTLP_TRACES_PROTOCOL'] || env['OTEL_EXPORTER_OTLP_PROTOCOL'] || PROTOCOL;
  if (protocol !== PROTOCOL) throw new Error(`OTEL_EXPORTER_OTLP_PROTOCOL is ${protocol}: spans are sent as ${PROTOCOL}`);
  const [api, core, sdk, resources, { OTLPTraceExporter }] = await Promise.all([
    import('@opentelemetry/api'),
    import('@opentelemetry/core'),
    import('@opentelemetry/sdk-trace-node'),
    import('@opentelemetry/resources'),
    import('@opentelemetry/exporter-trace-otlp-proto'),
  ]);
  let quietUntilMs = -Infinity;
  const tell = (message: string): void => {
    if (performance.now() < quietUntilMs) return;
    quietUntilMs = performance.now() + QUIET_MS;
    onProblem(message);
  };
  const quiet = (): void => {};
  api.diag.setLogger(
    { error: tell, warn: tell, info: quiet, debug: quiet, verbose: quiet },
    { logLevel: api.DiagLogLevel.WARN, suppressOverrideMessage: true },
  );
  const provider = new sdk.NodeTracerProvider({
    resource: resources
      .defaultResource()
      .merge(resources.resourceFromAttributes({ 'service.name': service, ...attributes }))
      .merge(resources.detectResources({ detectors: [resources.envDetector] })),
    spanProcessors: [new sdk.BatchSpanProcessor(new OTLPTraceExporter())],
  });
  provider.register({ propagator: new core.W3CTraceContextPropagator() });
  record({ api, tracer: provider.getTracer('matfleet') });
  return {
    close: async (timeoutMs = CLOSE_TIMEOUT_MS) => {
      record(undefined);
      let late: NodeJS.Timeout | undefined;
      const gaveUp = new Promise<void>((resolve) => (late = setTimeout(resolve, timeoutMs)));
      await Promise.race([provider.shutdown().catch((error: unknown) => tell(String(error))), gaveUp]).finally(() => clearTimeout(late));
    },
  };
}
