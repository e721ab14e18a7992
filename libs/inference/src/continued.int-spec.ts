import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import type { Engine, GenerateOptions, GenerateResult } from './engine-api.js';
import { openEngine } from './engine.js';
import { importCheckpoint } from './import.js';
import { makeFolder } from './testing-fixture.js';

const nano = fileURLToPath(new URL('../../../models/nano/', import.meta.url));
const slices = [
  { id: 'full', name: 'Full', ffn: Array<number>(10).fill(512), skip: [] },
  { id: 'narrow', name: 'Narrow', ffn: Array<number>(10).fill(256), skip: [] },
];
const ASKED = 'Switch on the lights in the kitchen at 40 percent.';

interface Told extends GenerateResult {
  /** Of the new tokens, with the text that each made certain. */
  readonly events: readonly { readonly tokenId: number; readonly text: string }[];
}

async function tell(engine: Engine, promptIds: readonly number[], options: GenerateOptions): Promise<Told> {
  const events: { tokenId: number; text: string }[] = [];
  const tokens = engine.generate(promptIds, options);
  for (;;) {
    const { done, value } = await tokens.next();
    if (done) return { ...value, events };
    events.push({ tokenId: value.tokenId, text: value.text });
  }
}

describe('an answer that another engine began', () => {
  /** Two devices with the same slice, and one with a smaller one. */
  let [first, second, narrow]: Engine[] = [];
  let promptIds: number[];
  let endId: number;
  let remove: () => Promise<void>;

  beforeAll(async () => {
    const folder = await makeFolder();
    remove = folder.remove;
    const storeDir = join(folder.dir, 'package');
    const manifest = await importCheckpoint({ source: nano, out: storeDir, precision: 'fp32', slices, golden: false });
    endId = manifest.config.eosTokenIds[0]!;
    const open = (sliceId: string): Promise<Engine> => openEngine({ manifest, storeDir, sliceId, contextTokens: 192 });
    [first, second, narrow] = await Promise.all(['full', 'full', 'narrow'].map(open));
    promptIds = first!.tokenize([{ role: 'user', text: ASKED }]);
  }, 60_000);

  afterAll(async () => {
    await Promise.all([first, second, narrow].map((engine) => engine?.close()));
    await remove?.();
  });

  const schema = { type: 'object', properties: { note: { type: 'string', maxLength: 8 } }, required: ['note'], additionalProperties: false };
  it.each<{ how: string; options: GenerateOptions }>([
    { how: 'greedily', options: {} },
    { how: 'with drafts', options: { draftTokens: 4 } },
    { how: 'up to a limit', options: { maxTokens: 9 } },
    { how: 'drawn with a seed', options: { maxTokens: 24, sampling: { temperature: 20, topK: 0, topP: 1, seed: 7 } } },
    { how: 'before a stop text', options: { stop: ['kitch'] } },
    { how: 'as JSON', options: { maxTokens: 40, format: { jsonSchema: schema } } },
  ])('goes on $how, cut at any token, to the text of an undisturbed one', async ({ options }) => {
    const whole = await tell(first!, promptIds, options);
    const { events } = whole;
    expect(events.length).toBeGreaterThan(5);
    for (let cut = 1; cut < events.length; cut++) {
      const told = events.slice(0, cut);
      const rest = await tell(second!, promptIds, { ...options, answered: told.map(({ tokenId }) => tokenId) });
      const text = [...told, ...rest.events].map((event) => event.text).join('') + rest.tail;
      expect({ cut, text, reason: rest.reason, count: rest.outputTokens }).toEqual({
        cut,
        text: whole.text,
        reason: whole.reason,
        count: whole.outputTokens,
      });
      expect(rest.text).toBe(whole.text);
    }
  });

  it('drawn without what was drawn before would be another one', async () => {
    const options: GenerateOptions = { maxTokens: 24, sampling: { temperature: 20, topK: 0, topP: 1, seed: 7 } };
    const whole = await tell(first!, promptIds, options);
    const ids = whole.events.map(({ tokenId }) => tokenId);
    // The same beginning as a longer prompt: the seed starts anew.
    const anew = await tell(second!, [...promptIds, ...ids.slice(0, 5)], { ...options, maxTokens: 19 });
    expect(anew.events.map(({ tokenId }) => tokenId)).not.toEqual(ids.slice(5));
  });

  it('goes on with a smaller slice as if that one had been given the beginning', async () => {
    const { events } = await tell(first!, promptIds, {});
    const ids = events.slice(0, 4).map(({ tokenId }) => tokenId);
    const rest = await tell(narrow!, promptIds, { answered: ids });
    const given = await tell(narrow!, [...promptIds, ...ids], {});
    expect(rest.events.map(({ tokenId }) => tokenId)).toEqual(given.events.map(({ tokenId }) => tokenId));
    expect(rest.outputTokens).toBe(given.outputTokens + 4);
  });

  it('that has come to its end is only told so', async () => {
    const { events, text } = await tell(first!, promptIds, {});
    const ids = events.map(({ tokenId }) => tokenId);
    expect(await tell(second!, promptIds, { answered: ids, maxTokens: ids.length })).toMatchObject({
      reason: 'max-tokens',
      events: [],
      text,
      tail: '',
    });
    expect(await tell(second!, promptIds, { answered: ids })).toMatchObject({ reason: 'stop', events: [], text });
  });

  it('is refused where it cannot have been one', async () => {
    await expect(tell(second!, promptIds, { answered: [20, endId] })).rejects.toThrow(`${endId}, a token that ends answers`);
    await expect(tell(second!, promptIds, { answered: [1_000_000] })).rejects.toThrow(/token id 1000000 is outside the vocabulary/);
    await expect(tell(second!, promptIds, { answered: Array<number>(200).fill(20) })).rejects.toThrow(/the context holds 192/);
    await expect(tell(second!, promptIds, { answered: [20], format: { jsonSchema: schema } })).rejects.toThrow(/does not fit the grammar/);
  });
});
