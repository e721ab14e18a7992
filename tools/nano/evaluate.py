"""Exact match of the whole answer, per slice and per function.

One teacher-forced pass is enough: greedy decoding gives exactly the target if and only if every argmax given the
target prefix is right.
"""
import torch
from collections import defaultdict
import data


def encode(tok, items):
    """items: (text, answer, …) -> list of (prompt ids, answer ids)."""
    return [(tok.encode(data.prompt(x[0])), tok.encode(x[1] + "<end_of_turn>")) for x in items]


def batch(rows):
    """rows with prompts of one length -> ids [B,T], targets [B,A] (-100 = none), start (position of the first answer logit)."""
    P = len(rows[0][0]); A = max(len(a) for _, a in rows)
    ids = torch.zeros(len(rows), P + A - 1, dtype=torch.long); tgt = torch.full((len(rows), A), -100)
    for i, (p, a) in enumerate(rows):
        s = p + a
        ids[i, : len(s) - 1] = torch.tensor(s[:-1]); tgt[i, : len(a)] = torch.tensor(a)
    return ids, tgt, P - 1


@torch.no_grad()
def exact(net, rows, ffn=None, skip=()):
    """-> list of bool in the order of rows."""
    by = defaultdict(list)
    for i, (p, _) in enumerate(rows): by[len(p)].append(i)
    ok = [False] * len(rows)
    for idx in by.values():
        for k in range(0, len(idx), 64):
            part = idx[k:k + 64]; ids, tgt, start = batch([rows[i] for i in part])
            hit = (net.forward(ids, start, ffn, skip).argmax(-1) == tgt) | (tgt < 0)
            for i, h in zip(part, hit.all(1).tolist()): ok[i] = h
    return ok


def table(items, ok):
    """items: dicts with "function" -> {"value","samples","stderr","tasks"}."""
    n, v = len(ok), sum(ok) / len(ok); tasks = {}
    for f in data.FUNCTIONS:
        r = [o for e, o in zip(items, ok) if e["function"] == f]
        if r: tasks[f] = {"value": round(sum(r) / len(r), 4), "samples": len(r)}
    return {"value": round(v, 4), "samples": n, "stderr": round((v * (1 - v) / n) ** 0.5, 4), "tasks": tasks}
