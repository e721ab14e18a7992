import { Role, type Message } from '@matfleet/protocol';

/** A message before it takes its place: `result` is what a function gave, which the model reads as if its user had said it. */
export interface Turn {
  readonly role: 'system' | 'user' | 'model' | 'result';
  readonly text: string;
}

const ROLES = { system: Role.ROLE_SYSTEM, user: Role.ROLE_USER, model: Role.ROLE_MODEL, result: Role.ROLE_USER } as const;

/** Gemma's turns alternate: results that follow one another, and what the user adds to them, become one turn. */
export function toTurns(turns: readonly Turn[]): Message[] {
  const joined: Turn[] = [];
  for (const turn of turns) {
    const before = joined.at(-1);
    if (before?.role === 'result' && (turn.role === 'result' || turn.role === 'user'))
      joined[joined.length - 1] = { role: turn.role, text: `${before.text}\n\n${turn.text}` };
    else joined.push(turn);
  }
  return joined.map(({ role, text }) => ({ role: ROLES[role], parts: [{ content: { $case: 'text', value: text } }] }));
}
