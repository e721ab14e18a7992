import { describe, expect, it } from '@jest/globals';
import { Role } from '@matfleet/protocol';
import fc from 'fast-check';
import { CallReader, toolFormat, withTools } from './tools.js';

function readAll(pieces: readonly string[]): { content: string; name: string | undefined; arguments: string; called: boolean } {
  const reader = new CallReader();
  const out = { content: '', name: undefined as string | undefined, arguments: '' };
  for (const piece of pieces) {
    const part = reader.push(piece);
    out.content += part.content ?? '';
    out.name ??= part.name;
    out.arguments += part.arguments ?? '';
  }
  return { ...out, called: reader.called };
}

describe('an answer that may be a call', () => {
  it('is read as a call with its arguments, however it comes in pieces', () => {
    const parameters = fc.dictionary(fc.string(), fc.jsonValue());
    fc.assert(
      fc.property(fc.string(), parameters, fc.constantFrom(0, 2), fc.array(fc.nat(400), { maxLength: 20 }), (name, given, indent, cuts) => {
        const text = JSON.stringify({ name, parameters: given }, null, indent);
        const places = [0, ...cuts.filter((cut) => cut < text.length).sort((a, b) => a - b), text.length];
        const read = readAll(places.slice(1).map((to, index) => text.slice(places[index], to)));
        expect([read.name, JSON.parse(read.arguments), read.content, read.called]).toEqual([
          name,
          (JSON.parse(text) as { parameters: unknown }).parameters,
          '',
          true,
        ]);
      }),
    );
  });

  it('is text where it does not begin with a brace', () => {
    expect(readAll(['No', ' {function}', ' fits'])).toEqual({ content: 'No {function} fits', name: undefined, arguments: '', called: false });
  });
});

describe('tools', () => {
  const tools = [
    { name: 'a', description: 'first' },
    { name: 'b', parameters: { $ref: '#/$defs/x', $defs: { x: { type: 'object' } } } },
  ];
  const schemaOf = (format: ReturnType<typeof toolFormat>) =>
    JSON.parse(format!.form!.value) as { anyOf: { properties: { name: object; parameters: object } }[] };

  it('become one schema, in which their references still lead to their own parts', () => {
    const format = toolFormat(tools, 'auto')!;
    expect(format.orText).toBe(true);
    expect(schemaOf(format).anyOf[1]!.properties).toEqual({
      name: { const: 'b' },
      parameters: { $ref: '#/anyOf/1/properties/parameters/$defs/x', $defs: { x: { type: 'object' } } },
    });
    expect(schemaOf(toolFormat(tools, { name: 'b' })).anyOf).toHaveLength(1);
    expect(toolFormat(tools, 'required')!.orText).toBe(false);
    expect(toolFormat(tools, 'none')).toBeUndefined();
    expect(() => toolFormat(tools, { name: 'c' })).toThrow('not among the tools');
  });

  it('are described in front of the conversation, unless the model knows them', () => {
    const text = (value: string) => [{ content: { $case: 'text' as const, value } }];
    const user = { role: Role.ROLE_USER, parts: text('hi') };
    expect(withTools([user], tools, 'auto', 'none')).toEqual([user]);
    const [system, ...rest] = withTools([{ role: Role.ROLE_SYSTEM, parts: text('Be brief.') }, user], tools, 'auto', 'describe');
    expect(system!.parts.map(({ content }) => content!.value).join('')).toMatch(
      /^Be brief\.\n\nYou have access to functions.*"description":"first"/s,
    );
    expect(rest).toEqual([user]);
    expect(withTools([user], tools, 'none', 'describe')).toEqual([user]);
  });
});
