/** Lets text through up to the first of some stop texts. */
export interface StopText {
  /** What of the text so far is certain to stand before every stop text. */
  push(text: string): { readonly text: string; readonly stopped: boolean };
  /** What was held back, since it could have become a stop text. */
  end(): string;
}

export function createStopText(stops: readonly string[]): StopText {
  if (stops.includes('')) throw new Error('a stop text is empty');
  let held = '';
  return {
    push(text) {
      held += text;
      const at = stops.map((stop) => held.indexOf(stop)).filter((index) => index >= 0);
      const stopped = at.length > 0;
      const certain = stopped ? Math.min(...at) : held.length - longestBeginning(held, stops);
      const out = held.slice(0, certain);
      held = stopped ? '' : held.slice(certain);
      return { text: out, stopped };
    },
    end() {
      const out = held;
      held = '';
      return out;
    },
  };
}

/** Length of the longest end of `text` that begins a stop text. */
function longestBeginning(text: string, stops: readonly string[]): number {
  for (let length = Math.min(text.length, Math.max(0, ...stops.map((stop) => stop.length - 1))); length > 0; length--) {
    const end = text.slice(text.length - length);
    if (stops.some((stop) => stop.startsWith(end))) return length;
  }
  return 0;
}
