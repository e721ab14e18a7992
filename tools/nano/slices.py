"""The MatFormer side: nested widths, skippable layers, what is drawn in training, what is measured and shipped."""

LAYERS, FIRST_SHARED, FULL = 10, 5, 512
WIDTHS = [32, 128, 256, 512]                  # prefixes of the FFN; 32 is also the block size of int4 weights
SKIPS = [(5, 6, 7, 8), (6, 7), (6, 7, 8), (7,)]   # only layers that own no K/V and are not the last


def spec(width, skip=()):
    """width: one number, or one per layer (original index)."""
    w = [width] * LAYERS if isinstance(width, int) else list(width)
    return w, tuple(skip)


def draw(r):
    """The second slice of a training step -> (widths, skip, class); the class picks its weight."""
    if r.random() < 0.35:
        w = [32] * LAYERS
        if r.random() < 0.3:                   # a few wide layers among narrow ones
            for i in r.sample(range(LAYERS), r.choice([1, 2, 3])): w[i] = r.choice([128, 512])
        return (*spec(w, r.choice(SKIPS) if r.random() < 0.5 else ()), "narrow")
    x = r.random()
    if x < 0.45: w, kind = [128] * LAYERS, "middle"
    elif x < 0.7: w, kind = [256] * LAYERS, "wide"
    elif x < 0.85: w, kind = [r.choice([128, 256, 512]) for _ in range(LAYERS)], "wide"
    else: w, kind = [512] * LAYERS, "wide"
    return (*spec(w, r.choice(SKIPS) if r.random() < (1 if w[0] == w[9] == 512 else 0.3) else ()), kind)


def named(name, w, skip=()):
    w, skip = spec(w, skip)
    return {"name": name, "ffn_all": w, "skip": list(skip), "ffn": [x for i, x in enumerate(w) if i not in skip]}


# every slice that is measured after training; export.py keeps the frontier
CANDIDATES = [named(f"width {w}" + (f", skip {'-'.join(map(str, [s[0], s[-1]] if len(s) > 1 else s))}" if s else ""), w, s)
              for w in WIDTHS for s in [(5, 6, 7, 8), (6, 7, 8), (6, 7), (7,), ()]] + [
    named("32 low, 512 high", [32] * 5 + [512] * 5), named("512 low, 32 high", [512] * 5 + [32] * 5),
    named("32, full-attention layers 512", [512 if i in (4, 9) else 32 for i in range(10)]),
    named("32, layer 9 at 512", [32] * 9 + [512]), named("32 low, 128 high", [32] * 5 + [128] * 5),
    named("32 low, 256 high", [32] * 5 + [256] * 5), named("128 low, 512 high", [128] * 5 + [512] * 5),
    named("128 low, 32 high", [128] * 5 + [32] * 5), named("256 low, 512 high", [256] * 5 + [512] * 5)]


def effective(cfg, ffn, skip):
    """Google's effective parameters: all text parameters but the embedding tables, of the slice."""
    import model
    n = 0
    for name, s in model.shapes(cfg).items():
        if name.startswith("embed_tokens"): continue
        if name.startswith("layers."):
            l = int(name.split(".")[1])
            if l in skip: continue
            if ".mlp." in name: n += ffn[l] * cfg["hidden_size"]; continue
        k = 1
        for x in s: k *= x
        if name.startswith("per_layer_model_projection"): k = k * (cfg["num_hidden_layers"] - len(skip)) // cfg["num_hidden_layers"]
        n += k
    return n
