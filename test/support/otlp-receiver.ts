import { once } from 'node:events';
import { createServer } from 'node:http';
import protobuf from 'protobufjs';

/** The parts of OpenTelemetry's trace protocol (opentelemetry/proto/collector/trace/v1) that specs look at. */
const { root } = protobuf.parse(`syntax = "proto3";
message ExportTraceServiceRequest { repeated ResourceSpans resource_spans = 1; }
message ResourceSpans { Resource resource = 1; repeated ScopeSpans scope_spans = 2; }
message Resource { repeated KeyValue attributes = 1; }
message ScopeSpans { repeated Span spans = 2; }
message Span { bytes trace_id = 1; bytes span_id = 2; bytes parent_span_id = 4; string name = 5; int32 kind = 6; repeated KeyValue attributes = 9; Status status = 15; }
message Status { string message = 2; int32 code = 3; }
message KeyValue { string key = 1; AnyValue value = 2; }
message AnyValue { oneof value { string string_value = 1; bool bool_value = 2; int64 int_value = 3; double double_value = 4; } }`);
const Request = root.lookupType('ExportTraceServiceRequest');

type Attributes = Readonly<Record<string, string | number | boolean>>;
interface KeyValue {
  readonly key: string;
  readonly value: Readonly<Record<string, string | number | boolean>>;
}

export interface ReceivedSpan {
  readonly traceId: string;
  readonly spanId: string;
  /** Empty of a trace's first span. */
  readonly parentId: string;
  readonly name: string;
  readonly service: string;
  readonly instance: string;
  readonly attributes: Attributes;
}

export interface OtlpReceiver {
  readonly url: string;
  readonly spans: ReceivedSpan[];
  /** Everything that came, as it came. */
  readonly bodies: Buffer[];
  stop(): Promise<void>;
}

/** What any collector is to an exporter: OTLP as protobuf over HTTP, on a free port. */
export async function startOtlpReceiver(): Promise<OtlpReceiver> {
  const spans: ReceivedSpan[] = [];
  const bodies: Buffer[] = [];
  const server = createServer((request, response) => {
    const parts: Buffer[] = [];
    request.on('data', (part: Buffer) => parts.push(part));
    request.on('end', () => {
      if (request.url !== '/v1/traces' || request.headers['content-type'] !== 'application/x-protobuf') return response.writeHead(415).end();
      const body = Buffer.concat(parts);
      bodies.push(body);
      spans.push(...decode(body));
      return response.writeHead(200, { 'content-type': 'application/x-protobuf' }).end();
    });
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('the OTLP receiver has no port');
  return {
    ...{ url: `http://127.0.0.1:${address.port}`, spans, bodies },
    stop: async () => {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
}

function decode(body: Buffer): ReceivedSpan[] {
  const { resourceSpans } = Request.toObject(Request.decode(body), { bytes: Buffer, longs: Number, arrays: true, objects: true }) as {
    resourceSpans: {
      resource: { attributes: KeyValue[] };
      scopeSpans: { spans: { traceId: Buffer; spanId: Buffer; parentSpanId?: Buffer; name: string; attributes: KeyValue[] }[] }[];
    }[];
  };
  return resourceSpans.flatMap(({ resource, scopeSpans }) => {
    const { 'service.name': service, 'service.instance.id': instance } = attributesOf(resource.attributes);
    return scopeSpans.flatMap(({ spans }) =>
      spans.map(({ traceId, spanId, parentSpanId, name, attributes }) => ({
        ...{ traceId: traceId.toString('hex'), spanId: spanId.toString('hex'), parentId: parentSpanId?.toString('hex') ?? '', name },
        ...{ service: String(service), instance: String(instance), attributes: attributesOf(attributes) },
      })),
    );
  });
}

const attributesOf = (attributes: readonly KeyValue[]): Attributes =>
  Object.fromEntries(attributes.map(({ key, value }) => [key, Object.values(value)[0]!]));
