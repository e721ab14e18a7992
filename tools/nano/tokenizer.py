"""A small Gemma-style BPE: learn merges, write tokenizer.json, encode like the Hugging Face file does.

Gemma's pipeline: a space becomes U+2581, then BPE with byte fallback over the whole text (no pre-tokenizer). While
merges are learned the text is cut into words, single digits and punctuation runs, so no merge can cross such a border;
encoding piece by piece is therefore equal to encoding the whole text, and can be cached.
"""
import json, re
from collections import Counter, defaultdict

SPECIALS = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
PIECE = re.compile(r"\u2581?[^\W\d_]+|\u2581?_?[^\W\d_]+|\u2581?[0-9]|\n|\u2581?[^\w\s\u2581]+|\u2581|.", re.S)


def pieces(text):
    return PIECE.findall(text.replace(" ", "\u2581"))


def learn(texts, size):
    """-> (vocab dict, merges list) with `size` ids in all. Function names (with _) stay whole: "_" joins letters."""
    freq = Counter(p for t in texts for p in pieces(t))
    alphabet = sorted(set(chr(c) for c in range(33, 127)) | {"\n", "\u2581"} | {c for p in freq for c in p})
    vocab = {t: i for i, t in enumerate(SPECIALS + [f"<0x{b:02X}>" for b in range(256)] + alphabet)}
    ws = [(list(p), n) for p, n in freq.items()]
    pairs, where = Counter(), defaultdict(set)
    for k, (w, n) in enumerate(ws):
        for a, b in zip(w, w[1:]): pairs[a, b] += n; where[a, b].add(k)
    merges = []
    while len(vocab) < size and pairs:
        (a, b), n = max(pairs.items(), key=lambda x: (x[1], x[0]))
        if n < 2: break
        merges.append([a, b]); vocab.setdefault(a + b, len(vocab))
        for k in list(where[a, b]):
            w, n = ws[k]
            for x, y in zip(w, w[1:]): pairs[x, y] -= n; where[x, y].discard(k)
            i, new = 0, []
            while i < len(w):
                if i + 1 < len(w) and w[i] == a and w[i + 1] == b: new.append(a + b); i += 2
                else: new.append(w[i]); i += 1
            ws[k] = (new, n)
            for x, y in zip(new, new[1:]): pairs[x, y] += n; where[x, y].add(k)
        pairs = +pairs
    return vocab, merges


def to_json(vocab, merges):
    added = [{"id": i, "content": t, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True} for i, t in enumerate(SPECIALS)]
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
            "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}, "pre_tokenizer": None, "post_processor": None,
            "decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]},
            "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None, "end_of_word_suffix": None,
                      "fuse_unk": True, "byte_fallback": True, "ignore_merges": False, "vocab": vocab, "merges": merges}}


class Tokenizer:
    def __init__(self, path):
        m = json.load(open(path, encoding="utf-8"))["model"]
        self.vocab = m["vocab"]; self.rank = {tuple(x): i for i, x in enumerate(m["merges"])}
        self.names = {i: t for t, i in self.vocab.items()}
        self.cache = {}
        self.split = re.compile("(" + "|".join(map(re.escape, SPECIALS)) + ")")

    def bpe(self, p):
        if p in self.cache: return self.cache[p]
        w = list(p)
        while len(w) > 1:
            r, i = min((self.rank.get((w[i], w[i + 1]), 1 << 30), i) for i in range(len(w) - 1))
            if r == 1 << 30: break
            w[i:i + 2] = [w[i] + w[i + 1]]
        ids = []
        for t in w: ids += [self.vocab[t]] if t in self.vocab else [self.vocab[f"<0x{b:02X}>"] for b in t.encode()]
        self.cache[p] = ids
        return ids

    def encode(self, text):
        out = []
        for part in self.split.split(text):
            if part in SPECIALS: out.append(self.vocab[part])
            elif part:
                for p in pieces(part): out += self.bpe(p)
        return out

    def decode(self, ids):
        raw = b"".join(bytes([int(t[3:5], 16)]) if re.fullmatch(r"<0x[0-9A-F]{2}>", t) else t.replace("\u2581", " ").encode() for t in (self.names[i] for i in ids))
        return raw.decode("utf-8", "replace")
