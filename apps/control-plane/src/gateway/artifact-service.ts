import { status, type sendUnaryData, type ServerUnaryCall, type ServerWritableStream } from '@grpc/grpc-js';
import type {
  ArtifactServiceServer,
  FetchChunkRequest,
  FetchChunkResponse,
  FetchTrustMetadataRequest,
  FetchTrustMetadataResponse,
  GetManifestRequest,
  GetManifestResponse,
} from '@matfleet/protocol';
import type { CatalogService } from '../catalog/catalog.service.js';
import { inTenant } from '../database/scope.js';
import type { IdentityService } from '../identity/identity.service.js';
import type { TrustService } from '../trust/trust.service.js';
import { identify } from './device-auth.js';
import { grpcError } from './device-service.js';

/** How often a long download asks again whether its device may still have it. */
const CHECK_MS = 1_000;
const PIECE_BYTES = 256 * 1024;

export interface ArtifactServiceParts {
  readonly catalog: CatalogService;
  readonly identity: IdentityService;
  readonly trust: TrustService;
  readonly insecure: boolean;
  readonly report: (error: unknown) => void;
}

/** Manifests, ranged chunks and signed metadata for enrolled devices: of their own tenant. */
export function artifactService({ catalog, identity, trust, insecure, report }: ArtifactServiceParts): ArtifactServiceServer {
  const failed = (error: unknown) => {
    const refusal = grpcError(error);
    if (refusal.code === status.INTERNAL) report(error);
    return refusal;
  };
  return {
    getManifest: (call: ServerUnaryCall<GetManifestRequest, GetManifestResponse>, done: sendUnaryData<GetManifestResponse>) => {
      identify(call, identity, insecure)
        .then(({ tenantId }) => inTenant(tenantId, () => catalog.manifestBytes(call.request.modelVersionId)))
        .then(
          (bytes) => done(null, { manifest: Buffer.from(bytes) }),
          (error: unknown) => done(failed(error)),
        );
    },
    fetchChunk: (call: ServerWritableStream<FetchChunkRequest, FetchChunkResponse>) => {
      stream(call, { catalog, identity, insecure }).then(
        () => call.end(),
        (error: unknown) => call.cancelled || call.emit('error', failed(error)),
      );
    },
    fetchTrustMetadata: (call: ServerWritableStream<FetchTrustMetadataRequest, FetchTrustMetadataResponse>) => {
      identify(call, identity, insecure)
        .then(({ tenantId }) => inTenant(tenantId, () => trust.file(call.request.name)))
        .then(
          (bytes) => {
            for (let at = 0; at < bytes.length; at += PIECE_BYTES) call.write({ data: Buffer.from(bytes.subarray(at, at + PIECE_BYTES)) });
            call.end();
          },
          (error: unknown) => call.cancelled || call.emit('error', failed(error)),
        );
    },
  };
}

/** One piece in memory at a time: the next is read when the device has room for it. */
async function stream(
  call: ServerWritableStream<FetchChunkRequest, FetchChunkResponse>,
  parts: Omit<ArtifactServiceParts, 'report' | 'trust'>,
): Promise<void> {
  const { deviceId, tenantId } = await identify(call, parts.identity, parts.insecure);
  await inTenant(tenantId, () => send(call, deviceId, parts));
}

async function send(
  call: ServerWritableStream<FetchChunkRequest, FetchChunkResponse>,
  deviceId: string,
  { catalog, identity }: Omit<ArtifactServiceParts, 'report' | 'trust'>,
): Promise<void> {
  const { chunkId, offset, length } = call.request;
  const source = await catalog.openChunk(chunkId, Number(offset), Number(length));
  call.once('cancelled', () => source.destroy());
  let checkedAtMs = performance.now();
  for await (const data of source as AsyncIterable<Buffer>) {
    if (call.cancelled) return;
    if (performance.now() - checkedAtMs > CHECK_MS) {
      await identity.readmit(deviceId);
      checkedAtMs = performance.now();
    }
    if (!call.write({ data }))
      await new Promise<void>((resolve) => void call.once('drain', resolve).once('cancelled', resolve).once('close', resolve));
  }
}
