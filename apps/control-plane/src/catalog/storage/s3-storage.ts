import { Readable } from 'node:stream';
import {
  DeleteObjectCommand,
  GetObjectCommand,
  HeadBucketCommand,
  HeadObjectCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  S3Client,
  S3ServiceException,
} from '@aws-sdk/client-s3';
import { getSignedUrl } from '@aws-sdk/s3-request-presigner';
import { DomainError } from '../../errors.js';
import { checkChunkId, verified, type ChunkStorage, type StoredChunk } from './chunk-storage.js';

export interface S3Options {
  readonly bucket: string;
  readonly region: string;
  /** Of a server that is not Amazon's. */
  readonly endpoint?: string | undefined;
  /** Before each chunk's id, for example `models/`. */
  readonly prefix: string;
  /** `<endpoint>/<bucket>/…` instead of `<bucket>.<endpoint>/…`. */
  readonly pathStyle: boolean;
}

/** Chunks in a bucket of S3 or of a server that speaks it. Credentials come the SDK's usual ways (AWS_ACCESS_KEY_ID, profiles, roles). */
export class S3Storage implements ChunkStorage {
  private readonly client: S3Client;

  constructor(private readonly options: S3Options) {
    const { region, endpoint, pathStyle } = options;
    this.client = new S3Client({
      region,
      forcePathStyle: pathStyle,
      ...(endpoint !== undefined && { endpoint }),
      // What goes wrong is thrown; the SDK's own remarks are not for our log.
      logger: { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} },
      // The name is the checksum; others are for servers that know them.
      requestChecksumCalculation: 'WHEN_REQUIRED',
      responseChecksumValidation: 'WHEN_REQUIRED',
    });
    // The payload's hash is known before its bytes are: it goes into the signature, and a server that checks it refuses anything else.
    this.client.middlewareStack.add(
      (next, { commandName }) =>
        (args) => {
          const { request, input } = args as { request: { headers: Record<string, string> }; input: { Key?: string } };
          if (commandName === 'PutObjectCommand') request.headers['x-amz-content-sha256'] = input.Key!.slice(this.options.prefix.length);
          return next(args);
        },
      { step: 'build', name: 'payloadHash' },
    );
  }

  async open(): Promise<void> {
    const { bucket, endpoint } = this.options;
    await this.client.send(new HeadBucketCommand({ Bucket: bucket })).catch((cause: unknown) => {
      throw new Error(`the bucket ${bucket} cannot be reached${endpoint ? ` at ${endpoint}` : ''}: ${reason(cause)}`, { cause });
    });
  }

  async bytesOf(id: string): Promise<number | undefined> {
    try {
      return (await this.client.send(new HeadObjectCommand(this.object(id)))).ContentLength;
    } catch (error) {
      if (error instanceof S3ServiceException && error.$metadata.httpStatusCode === 404) return undefined;
      throw unavailable(id, error);
    }
  }

  async put(id: string, bytes: number, source: Readable): Promise<void> {
    const body = Readable.from(verified(checkChunkId(id), bytes, source), { objectMode: false, highWaterMark: 1 << 20 });
    let refused: unknown;
    // The SDK waits for ever for a body that failed.
    const given = new AbortController();
    body.on('error', (error) => {
      refused = error;
      given.abort();
    });
    try {
      // A body that ends early is never an object: the server waits for all of its announced length.
      await this.client.send(new PutObjectCommand({ ...this.object(id), Body: body, ContentLength: bytes }), { abortSignal: given.signal });
    } catch (error) {
      // Not every server drops what was cut short; another upload of the same chunk may have ended meanwhile.
      if ((await this.bytesOf(id).catch(() => bytes)) !== bytes) await this.remove(id).catch(() => undefined);
      throw refused ?? unavailable(id, error);
    } finally {
      body.destroy();
    }
  }

  async read(id: string, from: number, to: number): Promise<Readable> {
    try {
      const { Body } = await this.client.send(new GetObjectCommand({ ...this.object(id), Range: `bytes=${from}-${to - 1}` }));
      return Body as Readable;
    } catch (error) {
      throw unavailable(id, error);
    }
  }

  async remove(id: string): Promise<void> {
    await this.client.send(new DeleteObjectCommand(this.object(id))).catch((error: unknown) => {
      throw unavailable(id, error);
    });
  }

  async *list(): AsyncIterable<StoredChunk> {
    const { bucket, prefix } = this.options;
    for (let token: string | undefined; ;) {
      const page = await this.client.send(new ListObjectsV2Command({ Bucket: bucket, Prefix: prefix, ContinuationToken: token }));
      for (const { Key = '', Size = 0, LastModified } of page.Contents ?? []) {
        const id = Key.slice(prefix.length);
        if (/^[0-9a-f]{64}$/.test(id)) yield { id, bytes: Size, storedAt: LastModified ?? new Date() };
      }
      token = page.NextContinuationToken;
      if (token === undefined) return;
    }
  }

  signedUrl(id: string, seconds: number): Promise<string> {
    return getSignedUrl(this.client, new GetObjectCommand(this.object(id)), { expiresIn: seconds });
  }

  private object(id: string): { Bucket: string; Key: string } {
    return { Bucket: this.options.bucket, Key: `${this.options.prefix}${checkChunkId(id)}` };
  }
}

const reason = (cause: unknown): string => (cause instanceof Error ? `${cause.name} ${cause.message}`.trim() : String(cause));

const unavailable = (id: string, cause: unknown): Error =>
  cause instanceof DomainError
    ? cause
    : new DomainError('unavailable', `the artifact store does not answer for chunk ${id}: ${reason(cause)}`, { cause });
