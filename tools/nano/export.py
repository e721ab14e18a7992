"""Checkpoint -> models/nano in the published Hugging Face layout, with a slice table measured on the exported weights.

The weights are rounded to bfloat16 first; everything that is reported is measured with the rounded weights.

    python3 tools/nano/export.py --work DIR --out models/nano      (train.py calls this at its end)
"""
import argparse, hashlib, json, os, random
import torch
import data, evaluate, model, slices, tokenizer, safetensors_io as st

CHAT = ("{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}"
        "{{ '<start_of_turn>' + role + '\n' + (message['content'] | trim) + '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}")
THETA = {"sliding_attention": 1e4, "full_attention": 1e6}


def dump(path, x, **k):
    with open(path, "w", encoding="utf-8") as f: json.dump(x, f, ensure_ascii=False, **k); f.write("\n")


def lines(path, rows):
    with open(path, "w", encoding="utf-8") as f: f.writelines(json.dumps(r, ensure_ascii=False) + "\n" for r in rows)


def hf_config(cfg):
    text = {"model_type": "gemma3n_text", **cfg, "hidden_activation": "gelu_pytorch_tanh", "initializer_range": 0.02, "attention_bias": False, "attention_dropout": 0.0,
            "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2, "tie_word_embeddings": True, "use_cache": True, "rope_theta": 1e6, "rope_local_base_freq": 1e4, "rope_scaling": None,
            "rope_parameters": {k: {"rope_theta": v, "rope_type": "default"} for k, v in THETA.items()}}
    return {"architectures": ["Gemma3nForConditionalGeneration"], "model_type": "gemma3n", "dtype": "bfloat16", "torch_dtype": "bfloat16", "bos_token_id": 2, "eos_token_id": [1, 5], "pad_token_id": 0, "tie_word_embeddings": True, "text_config": text}


@torch.no_grad()
def greedy(net, tok, text, ffn, skip, limit=48):
    ids = tok.encode(data.prompt(text)); n = len(ids)
    while len(ids) - n < limit:
        nxt = net.forward(torch.tensor([ids]), len(ids) - 1, ffn, skip)[0, -1].argmax().item()
        if nxt in (1, 5): break
        ids.append(nxt)
    return tok.decode(ids[n:])


def pick(rows):
    """From all measured slices: the Pareto front by size (at most 5 points), and the plain widths above it whether or
    not they gain anything, so that the table shows what width is worth; smallest first, the full model last."""
    best, front, plain = -1, [], {f"width {w}" for w in slices.WIDTHS}
    for r in sorted(rows, key=lambda r: (r["effective"], -r["quality"]["value"])):
        if r["quality"]["value"] > best: front.append(r); best = r["quality"]["value"]
    front = [r for r in front if r["name"] not in plain]
    while len(front) > 4:                          # drop the point that its neighbour describes best
        gain = [front[i]["quality"]["value"] - front[i - 1]["quality"]["value"] for i in range(1, len(front))]
        del front[1 + gain.index(min(gain))]
    return sorted(front + [r for r in rows if r["name"] in plain], key=lambda r: r["effective"])


def run(work, out, quick=False):
    import train
    cfg = train.CONFIG; lay, _ = train.layout(cfg)
    flat = torch.load(os.path.join(work, "checkpoint.pt"))["flat"].to(torch.bfloat16)
    os.makedirs(os.path.join(out, "eval"), exist_ok=True)
    st.save(os.path.join(out, "model.safetensors"), {"model.language_model." + n: flat[a:b].view(s).clone() for n, (a, b, s) in lay.items()})
    dump(os.path.join(out, "config.json"), hf_config(cfg), indent=1)
    raw = json.load(open(os.path.join(work, "tokenizer.json"), encoding="utf-8")); dump(os.path.join(out, "tokenizer.json"), raw, separators=(",", ":"))
    dump(os.path.join(out, "tokenizer_config.json"), {"tokenizer_class": "GemmaTokenizer", "add_bos_token": True, "add_eos_token": False, "bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>",
        "additional_special_tokens": ["<start_of_turn>", "<end_of_turn>"], "clean_up_tokenization_spaces": False, "model_max_length": cfg["max_position_embeddings"],
        "added_tokens_decoder": {str(i): {"content": t, "special": True, "normalized": False, "lstrip": False, "rstrip": False, "single_word": False} for i, t in enumerate(tokenizer.SPECIALS)}, "chat_template": CHAT}, indent=1)
    dump(os.path.join(out, "generation_config.json"), {"bos_token_id": 2, "eos_token_id": [1, 5], "pad_token_id": 0, "do_sample": False, "max_new_tokens": 64}, indent=1)
    held = data.heldout(); hp = os.path.join(out, "eval", "heldout.jsonl"); lines(hp, held)
    hand = [json.loads(x) for x in open(os.path.join(out, "eval", "handwritten.jsonl"), encoding="utf-8")]

    # read everything back: what is measured is what was written
    tok = tokenizer.Tokenizer(os.path.join(out, "tokenizer.json"))
    net = model.Gemma3n(cfg, {k[len("model.language_model."):]: v.float() for k, v in st.load(os.path.join(out, "model.safetensors")).items()})
    enc = lambda items: evaluate.encode(tok, [(e["text"], e["expected"]) for e in items])
    hr, wr, rows = enc(held), enc(hand), []
    cands = [c for c in slices.CANDIDATES if not quick or c["name"] in QUICK]
    for c in cands:
        q = evaluate.table(held, evaluate.exact(net, hr, c["ffn_all"], c["skip"])); w = evaluate.table(hand, evaluate.exact(net, wr, c["ffn_all"], c["skip"]))
        rows.append({**c, "effective": slices.effective(cfg, c["ffn_all"], c["skip"]), "quality": {k: q[k] for k in ("value", "samples", "stderr")}, "tasks": q["tasks"], "handwritten": {"value": w["value"], "samples": w["samples"]}, "hand_tasks": w["tasks"]})
        r = rows[-1]; print(f"{r['name']:32s} {r['effective'] / 1e6:.2f} M  held-out {100 * q['value']:.1f} (codes {100 * q['tasks']['part_code']['value']:.0f}, rest {100 * rest(q):.1f})  hand-written {100 * w['value']:.0f}", flush=True)
    chosen = pick(rows)
    table = []
    for i, r in enumerate(chosen):
        kept = sorted(set(r["ffn"])); ident = "s-" + "-".join(map(str, kept)) + (f"-L{len(r['ffn'])}" if r["skip"] else "")
        while any(t["id"] == ident for t in table): ident += "b"
        table.append({"id": ident, "name": r["name"], "ffn": r["ffn"], "skip": r["skip"], "effectiveParameters": r["effective"], "quality": r["quality"], "tasks": r["tasks"], "handwritten": r["handwritten"]})
    dump(os.path.join(out, "slices.json"), {"version": 1, "metric": "exact-match", "measuredBy": "torch", "weights": "bfloat16",
        "dataset": {"name": "heldout", "sha256": hashlib.sha256(open(hp, "rb").read()).hexdigest(), "size": len(held)}, "handwritten": {"sha256": hashlib.sha256(open(os.path.join(out, "eval", "handwritten.jsonl"), "rb").read()).hexdigest(), "size": len(hand)}, "slices": table}, indent=1)
    lines(os.path.join(work, "measured.jsonl"), rows)
    print("\nshipped:"); [print(f"{t['id']:24s} {t['name']:32s} {t['effectiveParameters'] / 1e6:.2f} M {100 * t['quality']['value']:.1f} / {100 * t['handwritten']['value']:.0f}") for t in table]
    best = chosen[-1]; print("full, per function:", {k: v["value"] for k, v in best["tasks"].items()}); print("full, hand-written:", {k: v["value"] for k, v in best["hand_tasks"].items()})
    # token-by-token greedy must agree with the teacher-forced count
    bad = 0
    for e, (i, c) in zip(random.Random(1).sample(held, 12), enumerate(chosen * 2)):
        full = evaluate.exact(net, enc([e]), c["ffn_all"], c["skip"])[0]; bad += (greedy(net, tok, e["text"], c["ffn_all"], c["skip"]) == e["expected"]) != full
    print("greedy and teacher-forced disagree on", bad, "of 12")
    for e, ok in zip(hand, evaluate.exact(net, wr, best["ffn_all"], best["skip"])):
        if not ok: print("  hand-written miss:", e["text"], "->", greedy(net, tok, e["text"], best["ffn_all"], best["skip"]))


def rest(q):
    r = [(t["value"], t["samples"]) for f, t in q["tasks"].items() if f != "part_code"]
    return sum(v * n for v, n in r) / sum(n for _, n in r)


QUICK = ["width 32, skip 5-8", "width 32, skip 6-7", "width 32", "width 128, skip 6-7", "width 128", "width 256", "width 512, skip 5-8", "width 512"]

if __name__ == "__main__":
    ap = argparse.ArgumentParser(); ap.add_argument("--work", required=True); ap.add_argument("--out", default="models/nano"); ap.add_argument("--quick", action="store_true")
    a = ap.parse_args(); run(a.work, a.out, a.quick)
