import { parentPort } from 'node:worker_threads';
import { encodePiece, type Encoding } from './encode-piece.js';
import type { EncoderAnswer } from './encoders.js';
import type { RawRows } from './raw-rows.js';

// One thread of `Encoders`.

parentPort!.on('message', ({ piece, encoding }: { piece: RawRows; encoding: Encoding }) => {
  try {
    const encoded = encodePiece(piece, encoding);
    const buffers = [...encoded.parts, ...(encoded.scales ? [encoded.scales] : [])].map(({ buffer }) => buffer as ArrayBuffer);
    parentPort!.postMessage({ encoded } satisfies EncoderAnswer, buffers);
  } catch (error) {
    parentPort!.postMessage({ error: error instanceof Error ? error.message : String(error) } satisfies EncoderAnswer);
  }
});
