import { Metadata, status, type ServiceError } from '@grpc/grpc-js';
import type { ArtifactServiceClient } from '@matfleet/protocol';
import { NoSuchMetadata, TrustClient, TrustState, type TargetEntry, type TrustStore } from '@matfleet/trust';
import { readStateFile, writeFileDurably } from './state-file.js';

const FETCH_TIMEOUT_MS = 30_000;

/** The trusted metadata as one file, replaced whole. */
export class TrustFile implements TrustStore {
  private state: TrustState | undefined;

  constructor(private readonly path: string) {
    this.state = readStateFile(path, TrustState);
  }

  load(): TrustState | undefined {
    return this.state;
  }

  save(state: TrustState): void {
    writeFileDurably(this.path, `${JSON.stringify(state)}\n`);
    this.state = state;
  }
}

/** A control plane that knows no signed metadata. */
export class NoTrustService extends Error {}

/** One file of signed metadata in pieces; who breaks off ends the call. */
export async function* fetchTrustMetadata(client: ArtifactServiceClient, name: string, timeoutMs = FETCH_TIMEOUT_MS): AsyncIterable<Uint8Array> {
  const call = client.fetchTrustMetadata({ name }, new Metadata(), { deadline: Date.now() + timeoutMs });
  // The iterator reports errors only while it is read.
  call.on('error', () => undefined);
  try {
    for await (const { data } of call as AsyncIterable<{ data: Uint8Array }>) yield data;
  } catch (error) {
    const { code, details } = error as ServiceError;
    if (code === status.NOT_FOUND) throw new NoSuchMetadata(details, { cause: error });
    if (code === status.UNIMPLEMENTED) throw new NoTrustService('the control plane serves no signed metadata', { cause: error });
    throw error;
  } finally {
    call.cancel();
  }
}

export interface DeviceTrustParts {
  /** Where the trusted metadata lasts. */
  readonly file: string;
  readonly client: () => ArtifactServiceClient;
  /** The fleet's root metadata, where it came with the device; without it the first root that the pinned control plane names is taken. */
  readonly root?: Uint8Array | undefined;
  readonly nowMs?: () => number;
}

/** Which model versions the fleet's keys allow this device. */
export class DeviceTrust {
  private readonly client: TrustClient;

  constructor(private readonly parts: DeviceTrustParts) {
    this.client = new TrustClient({
      store: new TrustFile(parts.file),
      fetch: (name) => fetchTrustMetadata(parts.client(), name),
      nowMs: parts.nowMs ?? Date.now,
      monotonicMs: () => performance.now(),
    });
    if (parts.root) this.client.begin(parts.root);
  }

  /**
   * What the signed metadata says of a model version's manifest. Throws when it does not list it or cannot be trusted. Undefined where neither the
   * device nor its control plane has any: then the channel alone vouches for it.
   */
  async targetOf(modelVersionId: string): Promise<TargetEntry | undefined> {
    if (!this.client.begun) {
      const root = await collect(fetchTrustMetadata(this.parts.client(), 'root.json')).catch((error: unknown) => {
        if (error instanceof NoTrustService) return undefined;
        throw error;
      });
      if (!root) return undefined;
      this.client.begin(root);
    }
    const entry = (await this.client.refresh()).find(({ path }) => path === modelVersionId);
    if (!entry) throw new Error(`model version ${modelVersionId} is not in the signed metadata: nobody whom this device trusts has published it`);
    if (entry.sha256 !== modelVersionId) throw new Error(`the signed metadata gives model version ${modelVersionId} the SHA-256 ${entry.sha256}`);
    return entry;
  }
}

const ROOT_BYTES_MAX = 512_000;

async function collect(source: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const pieces: Uint8Array[] = [];
  let bytes = 0;
  for await (const piece of source) {
    bytes += piece.length;
    if (bytes > ROOT_BYTES_MAX) throw new Error(`root metadata of more than ${ROOT_BYTES_MAX} bytes`);
    pieces.push(piece);
  }
  return Buffer.concat(pieces);
}
