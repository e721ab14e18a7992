import type { ChatMessage } from './engine-api.js';

/** A control token (by content) or ordinary text between two of them. */
export type ChatPart = { readonly control: '<bos>' | '<start_of_turn>' | '<end_of_turn>' } | { readonly text: string };

/**
 * The official Gemma 3n chat template, ending in the opening of the model's turn. Text between two control tokens is one part, so that runs
 * of newlines across template and content become the same tokens as in the rendered string; user text never becomes a control token.
 *
 * Throws if the turns do not alternate user, model, …, user. A system message may come first; it is put in front of the first user turn.
 */
export function chatParts(messages: readonly ChatMessage[]): ChatPart[] {
  const system = messages[0]?.role === 'system' ? messages[0] : undefined;
  const turns = system ? messages.slice(1) : messages;
  checkAlternation(turns, system ? 1 : 0);
  const parts: ChatPart[] = [{ control: '<bos>' }];
  turns.forEach((turn, index) => {
    const prefix = index === 0 && system ? `${system.text}\n\n` : '';
    parts.push({ control: '<start_of_turn>' }, { text: `${turn.role}\n${prefix}${strip(turn.text)}` }, { control: '<end_of_turn>' }, { text: '\n' });
  });
  parts.push({ control: '<start_of_turn>' }, { text: 'model\n' });
  return parts;
}

function checkAlternation(turns: readonly ChatMessage[], offset: number): void {
  if (turns.length === 0) throw new RangeError('chat: there is no user message');
  turns.forEach((turn, index) => {
    const expected = index % 2 === 0 ? 'user' : 'model';
    if (turn.role !== expected)
      throw new RangeError(
        `chat: message ${index + offset + 1} has role ${turn.role}, expected ${expected}: turns alternate user, model, user, and only the first message may be system`,
      );
  });
  if (turns.length % 2 === 0) throw new RangeError(`chat: message ${turns.length + offset} has role model, but the last message must be the user's`);
}

/** Python's str.strip(), which the template's `trim` means: unlike String.trim it removes U+001C-U+001F and U+0085 and leaves U+FEFF. */
const strip = (text: string): string =>
  text
    .replace(/^[\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+/, '')
    .replace(/[\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+$/, '');
