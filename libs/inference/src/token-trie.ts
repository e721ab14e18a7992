/** The tokens of a vocabulary by their bytes, as a tree whose nodes lie in the order of a walk that goes down first. */
export class TokenTrie {
  /** By node: its last byte, its depth (the root's is 0), and the first node after all below it. */
  readonly bytes: Uint8Array;
  readonly depths: Uint16Array;
  readonly ends: Int32Array;
  /** By node: one token of just these bytes, or -1; by token: another one of the same bytes, or -1. */
  readonly tokens: Int32Array;
  readonly siblings: Int32Array;
  readonly deepest: number;

  /** `bytesOf` gives what an id adds to the text; ids that add nothing are in no place of the tree. */
  constructor(
    readonly vocabSize: number,
    bytesOf: (tokenId: number) => Uint8Array,
  ) {
    const texts = Array.from({ length: vocabSize }, (_, id) => bytesOf(id));
    const ids = [...texts.keys()].filter((id) => texts[id]!.length > 0).sort((a, b) => compare(texts[a]!, texts[b]!));
    const most = 1 + ids.reduce((sum, id) => sum + texts[id]!.length, 0);
    const [bytes, depths, ends, tokens] = [new Uint8Array(most), new Uint16Array(most), new Int32Array(most), new Int32Array(most).fill(-1)];
    this.siblings = new Int32Array(vocabSize).fill(-1);
    let count = 1;
    let path: number[] = [0];
    let before: Uint8Array = new Uint8Array();
    for (const id of ids) {
      const text = texts[id]!;
      let shared = 0;
      while (shared < before.length && shared < text.length && before[shared] === text[shared]) shared++;
      for (const node of path.slice(shared + 1)) ends[node] = count;
      path = path.slice(0, shared + 1);
      for (let depth = shared + 1; depth <= text.length; depth++) {
        bytes[count] = text[depth - 1]!;
        depths[count] = depth;
        path.push(count++);
      }
      const node = path.at(-1)!;
      this.siblings[id] = tokens[node]!;
      tokens[node] = id;
      before = text;
    }
    for (const node of path) ends[node] = count;
    this.bytes = bytes.slice(0, count);
    this.depths = depths.slice(0, count);
    this.ends = ends.slice(0, count);
    this.tokens = tokens.slice(0, count);
    this.deepest = this.depths.reduce((deepest, depth) => Math.max(deepest, depth), 0);
  }
}

function compare(a: Uint8Array, b: Uint8Array): number {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) if (a[i] !== b[i]) return a[i]! - b[i]!;
  return a.length - b.length;
}
