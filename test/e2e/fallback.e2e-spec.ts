import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { credentials, status, type Metadata, type ServiceError } from '@grpc/grpc-js';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { AgentProcess, ControlPlaneProcess, makeRunDir, nanoPackage, publish, waitFor } from '@matfleet/harness';
import { GenerateRequest, InferenceServiceClient, Privacy, type Finished, type GenerateResponse, type GetStatusResponse } from '@matfleet/protocol';
import { ScriptedBox } from '../support/scripted-box.js';

const PROMPT = 'Switch on the lights in the kitchen.';
const TOKENS = 200;
/** Nothing ends before its limit, so that an answer can be cut in the middle. */
const ENDLESS = 'root ::= part part part part\npart ::= [a-z ]{1000}';
const CUT = 20;

interface Told {
  readonly text: string;
  readonly finished: Finished | undefined;
  readonly error: ServiceError | undefined;
  readonly trailers: Metadata | undefined;
}

describe('a local application whose device cannot answer', () => {
  const stops: (() => Promise<unknown>)[] = [];
  let [kiosk, hermit]: AgentProcess[] = [];
  let server: ScriptedBox;
  const clients = new Map<AgentProcess, InferenceServiceClient>();

  beforeAll(async () => {
    const run = await makeRunDir('fallback');
    stops.push(() => run.remove());
    const controlPlane = await ControlPlaneProcess.start({ dir: join(run.dir, 'control-plane') });
    stops.push(() => controlPlane.stop());
    const nano = await nanoPackage('int8');
    await publish(nano.dir, controlPlane.httpUrl, controlPlane.apiKeyFile);
    const { deviceUrl } = controlPlane;
    const { token } = await controlPlane.api.createJoinToken(3);
    const agent = async (name: string, args: string[]): Promise<AgentProcess> => {
      const started = await AgentProcess.start({ name, modelMemory: '1.52MiB', token, deviceUrl, dir: join(run.dir, name), args });
      const client = new InferenceServiceClient(`unix:${join(run.dir, name, 'agent.sock')}`, credentials.createInsecure());
      clients.set(started, client);
      stops.push(async () => {
        client.close();
        await started.stop();
      });
      return started;
    };
    [kiosk, hermit] = [await agent('kiosk', []), await agent('hermit', ['--fallback', 'device'])];
    const box = { name: 'server', deviceUrl, token, directory: join(run.dir, 'server'), package: nano };
    server = await ScriptedBox.start({ ...box, modelMemoryBytes: 64n << 20n, queueLength: 0 });
    stops.push(() => server.stop());
    for (const one of [kiosk, hermit])
      await waitFor(`${one.name} to run a slice`, async () => ((await statusOf(one)).engineReady ? true : undefined));
  }, 90_000);

  afterAll(async () => {
    for (const stop of stops.reverse()) await stop();
  });

  const statusOf = (agent: AgentProcess): Promise<GetStatusResponse> => agent.app.status();

  function ask(agent: AgentProcess, request: Partial<GenerateRequest>, onCut: () => void = () => {}): Promise<Told> {
    return new Promise((resolve) => {
      const call = clients.get(agent)!.generate(
        GenerateRequest.fromPartial({
          prompt: PROMPT,
          maxTokens: TOKENS,
          output: { format: { form: { $case: 'grammar', value: ENDLESS } } },
          ...request,
        }),
      );
      let text = '';
      let [finished, trailers]: [Finished | undefined, Metadata | undefined] = [undefined, undefined];
      let cut = false;
      let count = 0;
      call.on('data', ({ event }: GenerateResponse) => {
        if (event?.$case === 'finished') finished = event.value;
        if (event?.$case !== 'delta') return;
        text += event.value.text;
        count += event.value.tokenIds.length;
        if (cut || count < CUT) return;
        cut = true;
        onCut();
      });
      call.on('status', ({ metadata }) => (trailers = metadata));
      const end = (error?: ServiceError): void => void setImmediate(() => resolve({ text, finished, error, trailers }));
      call.on('error', end);
      call.on('end', () => end());
    });
  }

  /** Its engine is killed in the middle of the answer; on a busy machine the engine may be done before, then once more. */
  async function askAndKill(agent: AgentProcess): Promise<Told> {
    for (let tries = 0; ; tries++) {
      const { enginePid } = await waitFor('an engine', async () => {
        const seen = await statusOf(agent);
        return seen.engineReady ? seen : undefined;
      });
      const told = await ask(agent, {}, () => process.kill(enginePid, 'SIGKILL'));
      if (told.finished?.route || told.error || tries === 5) return told;
    }
  }

  it('is answered by a device with a better slice when it asks for one, and told by whom and why', async () => {
    const { error, finished, trailers } = await ask(kiosk!, { qualityFloor: 0.94 });
    expect(error).toBeUndefined();
    expect(finished!.route!.hops).toMatchObject([
      { deviceName: 'server', sliceId: server.sliceId, error: '', reason: expect.stringMatching(/the floor is 94.0 %; server runs/) },
    ]);
    expect(trailers!.get('x-matfleet-device')).toEqual(['server']);
    expect(trailers!.get('x-matfleet-hops')).toEqual(['1']);
  });

  it.each([
    { who: 'by its own wish', agent: () => kiosk!, request: { privacy: Privacy.PRIVACY_DEVICE } },
    { who: "by its operator's", agent: () => hermit!, request: { privacy: Privacy.PRIVACY_FLEET } },
  ])('keeps its prompt on the device $who, and is refused with the figures', async ({ agent, request }) => {
    const asked = server.starts.length;
    const { error } = await ask(agent(), { qualityFloor: 0.94, ...request });
    expect(error).toMatchObject({
      code: status.FAILED_PRECONDITION,
      details: expect.stringMatching(/has a quality of [\d.]+ %; the floor is 94.0 %$/),
    });
    expect(server.starts).toHaveLength(asked);
  });

  it('is refused a site that its device does not name', async () => {
    const { error } = await ask(kiosk!, { qualityFloor: 0.94, privacy: Privacy.PRIVACY_SITE });
    expect(error!.details).toMatch(/the floor is 94.0 %; no other device answers: .* its device has no label "site"/);
  });

  it('hears the rest of its answer from another device when its engine is killed in the middle', async () => {
    const { text, error, finished, trailers } = await askAndKill(kiosk!);
    expect(error).toBeUndefined();
    const { tokenIds } = server.starts.at(-1)!.request!.answered!;
    expect(tokenIds.length).toBeGreaterThanOrEqual(CUT);
    expect(tokenIds.length).toBeLessThan(TOKENS);
    expect(finished!.outputTokens).toBe(TOKENS);
    const rest = await server.textAfter(PROMPT, { answered: tokenIds, maxTokens: TOKENS, format: { grammar: ENDLESS } });
    expect(text.endsWith(rest)).toBe(true);
    const { text: undisturbed } = await ask(hermit!, {});
    expect(undisturbed.startsWith(text.slice(0, text.length - rest.length))).toBe(true);
    expect(finished!.route!.hops).toMatchObject([
      { deviceName: 'kiosk', outputTokens: tokenIds.length, error: expect.stringContaining('the answer broke off') },
      { deviceName: 'server', outputTokens: TOKENS - tokenIds.length, error: '' },
    ]);
    expect(trailers!.get('x-matfleet-hops')).toEqual(['2']);
  });

  it('hears the rest from its own device, once its engine is back, where no other may be asked', async () => {
    const { text: undisturbed } = await ask(hermit!, {});
    const { text, error, finished } = await askAndKill(hermit!);
    expect(error).toBeUndefined();
    expect(text).toBe(undisturbed);
    expect(finished!.route!.hops).toMatchObject([
      { deviceName: 'hermit', error: expect.stringContaining('the answer broke off') },
      { deviceName: 'hermit', error: '', reason: 'its engine is back' },
    ]);
  });

  it('over HTTP asks with headers, and is told what a header can be', async () => {
    const { http } = JSON.parse(await readFile(join(kiosk!.options.dir, 'ready.json'), 'utf8')) as {
      http: string;
    };
    const post = (headers: Record<string, string>): Promise<Response> =>
      fetch(`${http}/v1/completions`, {
        method: 'POST',
        headers: { 'content-type': 'application/json', ...headers },
        body: JSON.stringify({ model: 'nano', prompt: PROMPT, max_tokens: 8 }),
      });
    const answered = await post({ 'x-matfleet-quality-floor': '0.94' });
    expect(((await answered.json()) as { matfleet: unknown }).matfleet).toMatchObject({ device: 'server', hops: 1 });
    expect(await (await post({ 'x-matfleet-privacy': 'mars' })).json()).toMatchObject({
      error: { message: 'x-matfleet-privacy is "mars"; it can be device, site, fleet' },
    });
    expect((await post({ 'x-matfleet-quality-floor': '94' })).status).toBe(400);
  });
});
