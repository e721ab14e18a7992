import { once } from 'node:events';
import { connect } from 'node:http2';
import type { Fleet } from '@matfleet/harness';

export interface Oversized {
  readonly messages: number;
  /** Of them those that were refused with an error of gRPC, or whose connection was ended. */
  readonly refused: number;
  /** Growth of the replica's memory from before the first to after the last, bytes. */
  readonly grownBytes: number;
}

const MESSAGES = 50;
const MESSAGE_BYTES = 8 << 20;
const PIECE_BYTES = 64 << 10;
const ANSWER_MS = 10_000;
const PATH = '/matfleet.device.v1.DeviceService/Enroll';

/** Calls that anybody may make, with messages of 8 MB; every other one only claims its size and sends a part. */
export async function sendOversized(fleet: Fleet): Promise<Oversized> {
  const url = `https://127.0.0.1:${new URL(fleet.controlPlane.deviceUrl).port}`;
  const before = await residentBytes(fleet);
  let refused = 0;
  for (let sent = 0; sent < MESSAGES; sent++) if (await isRefused(url, sent % 2 === 0 ? MESSAGE_BYTES : PIECE_BYTES)) refused += 1;
  return { messages: MESSAGES, refused, grownBytes: (await residentBytes(fleet)) - before };
}

async function isRefused(url: string, sendBytes: number): Promise<boolean> {
  const session = connect(url, { rejectUnauthorized: false });
  session.on('error', () => undefined);
  const call = session.request({ ':method': 'POST', ':path': PATH, 'content-type': 'application/grpc', te: 'trailers' });
  let status: unknown;
  const hear = (headers: object): void => void (status ??= (headers as Record<string, unknown>)['grpc-status']);
  // The answer ends its half of the call; our half stays open, as that of a client that does not stop.
  const answered = new Promise<boolean>((resolve) => {
    call
      .on('response', hear)
      .on('trailers', hear)
      .on('end', () => resolve(true))
      .on('close', () => resolve(true))
      .on('error', () => resolve(true));
    setTimeout(() => resolve(false), ANSWER_MS).unref();
  });
  call.resume();
  const prefix = Buffer.alloc(5);
  prefix.writeUInt32BE(MESSAGE_BYTES, 1);
  call.write(prefix);
  let over = false;
  void answered.then(() => (over = true));
  for (let sent = 0; sent < sendBytes && call.writable && !over; sent += PIECE_BYTES)
    if (!call.write(Buffer.alloc(PIECE_BYTES))) await Promise.race([once(call, 'drain').catch(() => undefined), answered]);
  const isAnswered = await answered;
  session.destroy();
  return isAnswered && (status === undefined || Number(status) !== 0);
}

async function residentBytes(fleet: Fleet): Promise<number> {
  const { httpUrl, apiKey } = fleet.controlPlane;
  const text = await (await fetch(`${httpUrl}/metrics`, { headers: { authorization: `Bearer ${apiKey}` } })).text();
  return Number(/^matfleet_process_resident_memory_bytes (\S+)$/m.exec(text)?.[1]);
}
