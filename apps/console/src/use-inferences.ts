import { useCallback, useEffect, useRef, useState } from 'react';
import { createInference, getInference } from './api.js';
import type { Inference, InferenceRequest } from './api-types.js';
import { inferenceChanged } from './documents.js';
import { useLive } from './live.js';
import { finished, later } from './settle.js';

export interface Asked {
  readonly prompt: string;
  readonly inference: Inference;
}

const kept = 20;
const readEveryMs = 5_000;

/** The inferences sent from this page, newest first, each followed until it has finished. */
export function useInferences(): { readonly asked: readonly Asked[]; readonly ask: (request: InferenceRequest) => Promise<void> } {
  const { connection } = useLive();
  const [asked, setAsked] = useState<readonly Asked[]>([]);
  const following = useRef(new Map<string, () => void>());

  const receive = useCallback((view: Inference) => {
    if (finished(view)) following.current.get(view.id)?.();
    setAsked((known) => known.map((one) => (one.inference.id === view.id ? { ...one, inference: later(one.inference, view) } : one)));
  }, []);

  const ask = useCallback(
    async (request: InferenceRequest) => {
      const inference = await createInference(request);
      setAsked((known) => [{ prompt: request.prompt, inference }, ...known].slice(0, kept));
      if (connection && !finished(inference)) following.current.set(inference.id, follow(connection, inference.id, receive, following.current));
    },
    [connection, receive],
  );

  useEffect(() => {
    const all = following.current;
    return () => all.forEach((stop) => stop());
  }, []);
  return { asked, ask };
}

/** Events carry the stream; a plain read now and then covers what happened before the subscription began or while it was away. */
function follow(
  connection: NonNullable<ReturnType<typeof useLive>['connection']>,
  id: string,
  receive: (view: Inference) => void,
  all: Map<string, () => void>,
) {
  const read = () => getInference(id).then(receive, (cause: unknown) => console.error(`inference ${id} could not be read`, cause));
  const unsubscribe = connection.subscribe<{ inferenceChanged: Inference }>(inferenceChanged, (event) => receive(event.inferenceChanged), { id });
  const timer = setInterval(() => void read(), readEveryMs);
  void read();
  return () => {
    clearInterval(timer);
    unsubscribe();
    all.delete(id);
  };
}
