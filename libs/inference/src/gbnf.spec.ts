import { describe, expect, it } from '@jest/globals';
import { parseGrammar } from './gbnf.js';
import { compileGrammar } from './grammar.js';
import { DEAD, GrammarMachine } from './grammar-machine.js';

function accepts(grammar: string, text: string): boolean {
  const { root, rules } = parseGrammar(grammar);
  const machine = new GrammarMachine(compileGrammar(root, rules));
  let state = machine.start;
  for (const byte of Buffer.from(text)) if ((state = machine.step(state, byte)) === DEAD) return false;
  return machine.states[state]!.complete;
}

describe('a grammar in the notation of llama.cpp', () => {
  it('is read with literals, classes, groups, repetitions and comments', () => {
    const chess = `
      # a few moves
      root ::= move ("," " "? move){0,2} end
      move ::= [a-h] [1-8] | "O-O" "-O"?
      end ::= "." | [^a-z\\n]+
    `;
    for (const good of ['e4.', 'e4, O-O-O.', 'a1,b2, c3!?', 'h8É']) expect([good, accepts(chess, good)]).toEqual([good, true]);
    for (const bad of ['e9.', 'e4', 'e4,x', 'a1,b2,c3,d4.', 'e4\n']) expect([bad, accepts(chess, bad)]).toEqual([bad, false]);
  });

  it('may be recursive, and knows characters by their code points', () => {
    const nested = 'root ::= "(" root* ")" | "\\u00e9" | [\\U0001F600-\\U0001F64F]';
    for (const good of ['()', '(()(é))', '(😀)']) expect([good, accepts(nested, good)]).toEqual([good, true]);
    for (const bad of ['(', '(e)', '(🚀)']) expect([bad, accepts(nested, bad)]).toEqual([bad, false]);
  });

  it('is refused with the line where it goes wrong', () => {
    expect(() => parseGrammar('root ::= "a"\nother = "b"')).toThrow('grammar, line 2: a rule is expected: name ::= …');
    expect(() => parseGrammar('root ::= "a')).toThrow('grammar, line 1: a literal is not closed');
    expect(() => parseGrammar('root ::= ("a"')).toThrow('a group is not closed');
    expect(() => parseGrammar('root ::= "a"{2,1}')).toThrow('{2,1} is no repetition');
    expect(() => parseGrammar('start ::= "a"')).toThrow('no rule "root"');
    expect(() => accepts('root ::= nothing', '')).toThrow('the grammar has no rule "nothing"');
    expect(() => accepts('root ::= root "a" | "b"', 'b')).toThrow('calls itself before it has read anything');
    expect(() => accepts('root ::= other root\nother ::= "a"?', 'a')).toThrow('calls itself before it has read anything');
  });
});
