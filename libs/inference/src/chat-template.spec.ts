import { describe, expect, it } from '@jest/globals';
import { chatParts } from './chat-template.js';

const render = (...args: Parameters<typeof chatParts>): string =>
  chatParts(...args)
    .map((part) => ('text' in part ? part.text : part.control))
    .join('');

describe('chat template', () => {
  it('puts the system text in front of the first user turn and leaves it untrimmed', () => {
    expect(
      render([
        { role: 'system', text: ' be short ' },
        { role: 'user', text: ' hi ' },
      ]),
    ).toBe('<bos><start_of_turn>user\n be short \n\nhi<end_of_turn>\n<start_of_turn>model\n');
  });

  it('trims what Python trims: U+001C and U+0085, but not U+FEFF', () => {
    expect(render([{ role: 'user', text: '\u001c\u0085\u3000a\ufeff\n' }])).toContain('user\na\ufeff<end_of_turn>');
  });

  it.each([
    [[], 'there is no user message'],
    [[{ role: 'system', text: 's' }], 'there is no user message'],
    [[{ role: 'model', text: 'm' }], 'message 1 has role model, expected user'],
    [
      [
        { role: 'user', text: 'a' },
        { role: 'user', text: 'b' },
      ],
      'message 2 has role user, expected model',
    ],
    [
      [
        { role: 'system', text: 's' },
        { role: 'user', text: 'a' },
        { role: 'system', text: 's' },
      ],
      'message 3 has role system, expected model',
    ],
    [
      [
        { role: 'user', text: 'a' },
        { role: 'model', text: 'b' },
      ],
      'message 2 has role model, but the last message must be the user',
    ],
  ] as const)('refuses %j', (messages, error) => {
    expect(() => chatParts(messages)).toThrow(error);
  });
});
