import type { Inference } from './api-types.js';

export const finished = (inference: Inference): boolean => inference.state === 'succeeded' || inference.state === 'failed';

/** Which of two views of one inference is the later: events and plain reads of it may cross on the way. */
export function later(known: Inference, read: Inference): Inference {
  if (finished(known) !== finished(read)) return finished(read) ? read : known;
  if (known.attempts.length !== read.attempts.length) return read.attempts.length > known.attempts.length ? read : known;
  return (read.answer?.length ?? 0) >= (known.answer?.length ?? 0) ? read : known;
}
