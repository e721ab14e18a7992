import { Readable } from 'node:stream';
import { DomainError } from './errors.js';

/** The body of an `application/octet-stream` request, which is handed on unread. */
export function streamBody(body: unknown): Readable {
  if (body instanceof Readable) return body;
  throw new DomainError('unsupported-media-type', 'send the bytes as content-type: application/octet-stream');
}

/** All bytes of a small body. */
export async function readAll(source: Readable, bytesMax: number, what: string): Promise<Buffer> {
  const parts: Buffer[] = [];
  let bytes = 0;
  for await (const part of source as AsyncIterable<Buffer>) {
    bytes += part.length;
    if (bytes > bytesMax) throw new DomainError('payload-too-large', `${what} has more than ${bytesMax} bytes`);
    parts.push(part);
  }
  return Buffer.concat(parts);
}
