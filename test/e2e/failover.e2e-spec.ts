import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { ControlPlaneProcess, makeRunDir, nanoPackage, publish, waitFor, type Inference } from '@matfleet/harness';
import { ScriptedBox, type Mishap } from '../support/scripted-box.js';

const PROMPT = 'Switch on the lights in the kitchen at 40 percent.';

interface Delta {
  readonly attempt: number;
  readonly offset: number;
  readonly text: string;
}

/** The control plane and its engines are real; the two devices are scripts, so that an answer can break off after exactly so many tokens. */
describe('an answer whose device fails in the middle', () => {
  const stops: (() => Promise<unknown>)[] = [];
  let controlPlane: ControlPlaneProcess;
  /** The fast one is asked first. */
  let [fast, slow]: ScriptedBox[] = [];
  let undisturbed: string;
  let tokens: number;

  beforeAll(async () => {
    const run = await makeRunDir('failover');
    stops.push(() => run.remove());
    controlPlane = await ControlPlaneProcess.start({ dir: join(run.dir, 'control-plane') });
    stops.push(() => controlPlane.stop());
    const nano = await nanoPackage('fp32');
    await publish(nano.dir, controlPlane.httpUrl, controlPlane.apiKeyFile);
    const { token } = await controlPlane.api.createJoinToken(2);
    const box = async (name: string, queueLength: number): Promise<ScriptedBox> => {
      const started = await ScriptedBox.start({
        ...{ name, deviceUrl: controlPlane.deviceUrl, token, directory: join(run.dir, name), package: nano },
        ...{ modelMemoryBytes: 64n << 20n, queueLength },
      });
      stops.push(() => started.stop());
      return started;
    };
    [fast, slow] = [await box('fast', 0), await box('slow', 500)];
    const { answer } = await ask();
    undisturbed = answer!;
    fast!.mishap = { kind: 'engine', afterTokens: 1_000 };
    tokens = (await follow()).deltas.length;
  }, 60_000);

  afterAll(async () => {
    for (const stop of stops.reverse()) await stop();
  });

  async function ask(): Promise<Inference> {
    const { id } = await controlPlane.api.createInference({ prompt: PROMPT, deadlineMs: 30_000 });
    return waitFor(`inference ${id} to end`, async () => {
      const seen = await controlPlane.api.inference(id);
      return seen.state === 'succeeded' || seen.state === 'failed' ? seen : undefined;
    });
  }

  /** As a page or program that streams the answer. */
  async function follow(): Promise<{ readonly text: string; readonly deltas: Delta[]; readonly done: Inference }> {
    const { id } = await controlPlane.api.createInference({ prompt: PROMPT, deadlineMs: 30_000 });
    const response = await fetch(`${controlPlane.httpUrl}/api/v1/inferences/${id}/events`, {
      headers: { authorization: `Bearer ${controlPlane.apiKey}` },
      signal: AbortSignal.timeout(30_000),
    });
    let text = '';
    const deltas: Delta[] = [];
    let rest = '';
    for await (const piece of response.body!.pipeThrough(new TextDecoderStream())) {
      const events = (rest + piece).split('\n\n');
      rest = events.pop()!;
      for (const event of events) {
        const field = (name: string): string => new RegExp(`^${name}: (.*)$`, 'm').exec(event)?.[1] ?? '';
        if (field('event') === 'done') return { text, deltas, done: JSON.parse(field('data')) as Inference };
        if (field('event') !== 'delta') continue;
        const delta = JSON.parse(field('data')) as Delta;
        deltas.push(delta);
        text = text.slice(0, delta.offset) + delta.text;
      }
    }
    throw new Error(`the stream of ${id} ended before the inference did`);
  }

  it('goes on at another device, cut at any token, as one stream with the text of an undisturbed run', async () => {
    expect(tokens).toBeGreaterThan(10);
    for (let cut = 1; cut < tokens; cut++) {
      fast!.mishap = { kind: 'engine', afterTokens: cut };
      const { text, deltas, done } = await follow();
      expect({ cut, text, answer: done.answer }).toEqual({ cut, text: undisturbed, answer: undisturbed });
      expect(done.attempts).toMatchObject([
        { deviceName: 'fast', state: 'failed' },
        { deviceName: 'slow', state: 'succeeded', reason: expect.stringContaining(`goes on after ${cut} tokens`) },
      ]);
      expect(slow!.starts.at(-1)!.request!.answered!.tokenIds).toHaveLength(cut);
      // Nothing that was told is told again.
      expect(deltas.map(({ text }) => text).join('')).toBe(undisturbed);
    }
  }, 60_000);

  it.each<Mishap>(['vanished', 'frozen', 'nonsense', 'swallowed'])(
    'goes on when the device has %s',
    async (kind) => {
      // Else the fast one would be given a rest after some failures in a row.
      expect((await ask()).attempts).toMatchObject([{ deviceName: 'fast', state: 'succeeded' }]);
      fast!.mishap = { kind, afterTokens: 5 };
      const { text, done } = await follow();
      expect(text).toBe(undisturbed);
      expect(done.answer).toBe(undisturbed);
      expect(done.attempts).toMatchObject([
        { deviceName: 'fast', state: 'failed' },
        { deviceName: 'slow', state: 'succeeded', reason: expect.stringContaining('goes on after 5 tokens') },
      ]);
    },
    30_000,
  );
});
