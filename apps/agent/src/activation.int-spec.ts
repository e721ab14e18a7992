import { cp, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { failureKindOf, JournalFile, type Slot } from '@matfleet/device';
import { versionId } from '@matfleet/model';
import { tinyPackage, type TinyPackage } from '../../../test/support/tiny-package.js';
import { activate, engineSpec, type TrialParts } from './activation.js';
import { ChunkStore } from './chunk-store.js';
import { createEngineHost } from './engine/child-engine-host.js';
import { createSupervisor, type Supervisor } from './engine/supervisor.js';

const MIB = 2 ** 20;
const entry = new URL('../dist/engine/engine-process.js', import.meta.url);
const host = createEngineHost({ modelMemoryBytes: 64 * MIB, availableMemoryBytes: () => 4096 * MIB, entry });
const never = new AbortController().signal;

interface RawManifest {
  golden: { sliceId: string; promptIds: number[]; tokenIds: number[] }[];
  chunks: { id: string; bytes: number; part: { kind: string; layer?: number } }[];
}

let tiny: TinyPackage;
beforeAll(async () => {
  tiny = await tinyPackage();
}, 60_000);
afterAll(() => tiny.remove());

describe('the trial of a slice', () => {
  let dir: string;
  let store: ChunkStore;
  let journal: JournalFile;
  let supervisor: Supervisor;
  let steps: string[];
  let good: string;
  let availableMemoryBytes: number;

  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), 'matfleet-activation-'));
    store = new ChunkStore(dir);
    await cp(join(tiny.dir, 'chunks'), join(dir, 'chunks'), { recursive: true });
    journal = new JournalFile(join(dir, 'journal.json'), 0);
    supervisor = createSupervisor({ host });
    steps = [];
    availableMemoryBytes = 4096 * MIB;
    good = await version(() => {});
  });
  afterEach(async () => {
    await supervisor.stop();
    await rm(dir, { recursive: true, force: true });
  });

  /** A version of the tiny model, in the store; the bytes of its manifest are its identity. */
  async function version(change: (manifest: RawManifest) => void): Promise<string> {
    const manifest = JSON.parse(await readFile(tiny.manifestPath, 'utf8')) as RawManifest;
    change(manifest);
    const bytes = Buffer.from(JSON.stringify(manifest));
    store.putManifest(versionId(bytes), bytes);
    return versionId(bytes);
  }
  const slot = (generation: number, modelVersionId: string, sliceId: string, more: Partial<Slot> = {}): Slot => ({
    ...{ generation, modelVersionId, modelName: 'tiny', sliceId, contextTokens: 64, ...more },
  });
  const parts = (): TrialParts => ({
    ...{ journal, store, host, supervisor },
    availableMemoryBytes: () => availableMemoryBytes,
    prepare: () => Promise.resolve(),
    onStep: () => void steps.push(journal.current.activation!.step),
  });
  const tryOut = (wanted: Slot): Promise<readonly string[]> => activate(wanted, parts(), never);
  const goldenOf = async (sliceId: string) =>
    (JSON.parse(await readFile(tiny.manifestPath, 'utf8')) as RawManifest).golden.filter((one) => one.sliceId === sliceId);
  /** What the engine that serves now says to the golden prompt of a slice. */
  const serves = async (sliceId: string): Promise<void> => {
    const engine = await supervisor.ready(AbortSignal.timeout(20_000));
    expect(engine!.spec.sliceId).toBe(sliceId);
    const [golden] = await goldenOf(sliceId);
    expect((await engine!.golden(golden!.promptIds, golden!.tokenIds.length)).tokenIds).toEqual(golden!.tokenIds);
  };

  it('commits a slice that answers its golden prompts, step by step, and measures it', async () => {
    expect(await tryOut(slot(1, good, 'narrow'))).toEqual([]);
    expect(steps).toEqual(['verifying', 'preparing', 'starting', 'checking']);
    const { active, activation } = new JournalFile(join(dir, 'journal.json'), 0).current;
    expect(active).toEqual(slot(1, good, 'narrow'));
    const golden = await goldenOf('narrow');
    const tokens = golden.reduce((sum, { tokenIds }) => sum + tokenIds.length, 0);
    expect(activation).toMatchObject({
      step: 'committed',
      prompts: { total: golden.length, matched: golden.length },
      tokens: { total: tokens, matched: tokens },
    });
    expect(activation!.interTokenMs).toBeGreaterThan(0);
    expect(activation!.residentBytes).toBeGreaterThan(10 * MIB);
    await serves('narrow');

    // The larger slice also answers what the smaller one was asked, and not the same.
    await tryOut(slot(2, good, 'full'));
    const { previousTokens, replacedFirst } = journal.current.activation!;
    expect(previousTokens!.total).toBe(tokens);
    expect(previousTokens!.matched).toBeLessThan(tokens);
    expect(replacedFirst).toBe(false);
    expect(journal.current.previous).toEqual(slot(1, good, 'narrow'));
  });

  it('rejects one whose golden answers are others, says how many tokens were right, and the old slice serves on', async () => {
    await tryOut(slot(1, good, 'narrow'));
    const wrong = await version(({ golden }) => {
      const { tokenIds } = golden.find(({ sliceId }) => sliceId === 'full')!;
      tokenIds[5] = (tokenIds[5]! + 1) % 300;
    });
    const engine = supervisor.current();
    await expect(tryOut(slot(2, wrong, 'full'))).rejects.toMatchObject({
      ...{ kind: 'golden', final: true, message: 'slice full answered 0 of 1 golden prompts and 5 of 8 of their tokens' },
    });
    expect(journal.current.activation!.tokens).toEqual({ total: 8, matched: 5 });
    expect(journal.current.active).toEqual(slot(1, good, 'narrow'));
    expect(supervisor.current()).toBe(engine);
    await serves('narrow');
  });

  it('rejects one that is slower than wanted, and not for good', async () => {
    await expect(tryOut(slot(1, good, 'full', { mostInterTokenMs: 0.001 }))).rejects.toMatchObject({ kind: 'latency', final: false });
  });

  it('stops the old engine last of all where memory does not hold two, and starts it again when the candidate is none', async () => {
    await tryOut(slot(1, good, 'narrow'));
    const first = supervisor.current()!;
    availableMemoryBytes = 8 * MIB;
    await tryOut(slot(2, good, 'full'));
    expect(journal.current.activation).toMatchObject({ step: 'committed', replacedFirst: true });
    expect(await first.idle(0)).toBe(true);
    expect(first.status().ready).toBe(false);
    await serves('full');

    const broken = await version(({ golden }) => golden.forEach((one) => (one.tokenIds = one.tokenIds.map((id) => (id + 1) % 300))));
    await expect(tryOut(slot(3, broken, 'narrow'))).rejects.toMatchObject({ kind: 'golden' });
    await serves('full');
  });

  it.each([
    ['flipped', (bytes: Buffer) => bytes.fill(bytes[9]! ^ 1, 9, 10)],
    ['cut short', (bytes: Buffer) => bytes.subarray(0, bytes.length - 1)],
    ['emptied', () => Buffer.alloc(0)],
  ])('uses no byte of a chunk that was %s: it is named, gone, and the old slice serves on', async (_how, damage) => {
    await tryOut(slot(1, good, 'narrow'));
    const { chunks } = JSON.parse(await readFile(tiny.manifestPath, 'utf8')) as RawManifest;
    const narrow = new Set(store.chunks(slot(1, good, 'narrow')).map(({ id }) => id));
    const { id } = chunks.find((chunk) => chunk.part.kind === 'band' && !narrow.has(chunk.id))!;
    await writeFile(store.chunkPath(id), damage(await readFile(store.chunkPath(id))));
    steps = [];
    expect(await tryOut(slot(2, good, 'full'))).toEqual([id]);
    expect(steps).toEqual(['verifying']);
    expect(store.view(slot(2, good, 'full')).missingChunks).toEqual([id]);
    await serves('narrow');
  });

  it('begins nothing on a disk that takes no journal, says which file and how much room, and the old slice serves on', async () => {
    await tryOut(slot(1, good, 'narrow'));
    await symlink('/dev/full', join(dir, 'journal.json.tmp'));
    const failed = await tryOut(slot(2, good, 'full')).catch((error: Error) => error);
    expect((failed as Error).message).toMatch(/^cannot write \S+journal\.json \(\d+ bytes, \d+ bytes free\): ENOSPC: no space left on device/);
    expect(failureKindOf(failed)).toBe('disk');
    expect(steps).toEqual(['verifying', 'preparing', 'starting', 'checking']);
    expect(new JournalFile(join(dir, 'journal.json'), 0).current.active).toEqual(slot(1, good, 'narrow'));
    await serves('narrow');
  });

  it('commits nothing on a disk that is full at the commit: the candidate ends, and the old slice serves on', async () => {
    await tryOut(slot(1, good, 'narrow'));
    const onStep = async (): Promise<void> => {
      if (journal.current.activation?.step === 'checking') await symlink('/dev/full', join(dir, 'journal.json.tmp'));
    };
    const failed = await activate(slot(2, good, 'full'), { ...parts(), onStep: () => void onStep() }, never).catch((error: Error) => error);
    expect(failureKindOf(failed)).toBe('disk');
    await rm(join(dir, 'journal.json.tmp'));
    const after = new JournalFile(join(dir, 'journal.json'), 0).current;
    expect(after.active).toEqual(slot(1, good, 'narrow'));
    expect(after.failure).toMatchObject({ generation: 2, kind: 'interrupted', final: false });
    await serves('narrow');
  });

  it('starts no engine of a slice that the store lacks', () => {
    expect(() => engineSpec(store, slot(1, good, 'huge'))).toThrow('has no slice "huge"');
  });
});
