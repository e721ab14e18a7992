/** The tokens of a vocabulary by their bytes, as a tree whose nodes lie in the order of a walk that goes down first. */
export class TokenTrie {
  /** By node: its last byte, its depth (the root's is 0), and the first node after all below it. */
  readonly bytes: Uint8Array;
  readonly depths: Uint16Array;
  readonly ends: Int32Array;
  /** By node: one token of just these bytes, or -1; by token: another one of the same bytes, or -1. */
  readonly tokens: Int32Array;
  readonly siblings: Int32Array;

  /** `bytesOf` gives what an id adds to the text; ids that add nothing are in no place of the tree. */
  constructor(
    readonly vocabSize: number,
    bytesOf: (tokenId: number) => Uint8Array,
  ) {
    // One character a byte: the engine's own order of strings is that of the bytes, and many times faster than a function's. The id follows the text.
    const entries: string[] = [];
    let most = 1;
    for (let id = 0; id < vocabSize; id++) {
      const text = Buffer.from(bytesOf(id)).toString('latin1');
      if (text === '') continue;
      entries.push(`${text}\u0100${id}`);
      most += text.length;
    }
    entries.sort();
    const [bytes, depths, ends, tokens] = [new Uint8Array(most), new Uint16Array(most), new Int32Array(most), new Int32Array(most).fill(-1)];
    this.siblings = new Int32Array(vocabSize).fill(-1);
    const path: number[] = [0];
    let count = 1;
    let before = '';
    // What begins alike lies together, so that the path to the text before holds all that this one shares with any.
    for (const entry of entries) {
      const length = entry.indexOf('\u0100');
      let shared = 0;
      while (shared < before.length && shared < length && before[shared] === entry[shared]) shared++;
      while (path.length > shared + 1) ends[path.pop()!] = count;
      for (let depth = shared + 1; depth <= length; depth++) {
        bytes[count] = entry.charCodeAt(depth - 1);
        depths[count] = depth;
        path.push(count++);
      }
      const id = Number(entry.slice(length + 1));
      const node = path.at(-1)!;
      this.siblings[id] = tokens[node]!;
      tokens[node] = id;
      before = entry.slice(0, length);
    }
    for (const node of path) ends[node] = count;
    this.bytes = bytes.slice(0, count);
    this.depths = depths.slice(0, count);
    this.ends = ends.slice(0, count);
    this.tokens = tokens.slice(0, count);
  }
}
