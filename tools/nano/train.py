"""One command: makes the data and the tokenizer, trains the nano Gemma 3n as a MatFormer, measures it, writes the model.

    python3 tools/nano/train.py --out models/nano --minutes 36 --seed 7

Two processes, one per core, share the parameters. A step is a pool of micro-batches, half of them through the full model
and half through slices drawn at random; a free process takes the next one, and the next tensor to update. A checkpoint is written every two minutes (--resume continues).
"""
import argparse, json, math, os, random, sys, tempfile, time

ENV = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "33554432", "MALLOC_TRIM_THRESHOLD_": "8000000000",
       "MALLOC_TOP_PAD_": "67108864", "MALLOC_ARENA_MAX": "1"}      # without these half of the time goes to page faults
if "avx512f" in open("/proc/cpuinfo").read(): ENV["OPENBLAS_CORETYPE"] = "SkylakeX"     # a shell may force an older kernel
if any(os.environ.get(k) != v for k, v in ENV.items()):
    os.environ.update(ENV); os.execv(sys.executable, [sys.executable] + sys.argv)

import torch
import torch.multiprocessing as mp
import torch.nn.functional as F
import data, evaluate, model, optim, slices, tokenizer

CONFIG = {"vocab_size": 1024, "vocab_size_per_layer_input": 1024, "hidden_size": 96, "hidden_size_per_layer_input": 16, "intermediate_size": [slices.FULL] * slices.LAYERS,
          "num_hidden_layers": slices.LAYERS, "num_kv_shared_layers": slices.LAYERS - slices.FIRST_SHARED, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32,
          "laurel_rank": 16, "activation_sparsity_pattern": [0.95, 0.95] + [0.0] * 8, "layer_types": ["full_attention" if i % 5 == 4 else "sliding_attention" for i in range(10)],
          "sliding_window": 64, "max_position_embeddings": 512, "final_logit_softcapping": 30.0, "rms_norm_eps": 1e-6, "altup_active_idx": 0, "altup_coef_clip": 120.0,
          "altup_correct_scale": True, "altup_num_inputs": 4}


def layout(cfg):
    out, at = {}, 0
    for n, s in model.shapes(cfg).items():
        k = math.prod(s); out[n] = (at, at + k, tuple(s)); at += k
    return out, at


class Batches:
    """Endless shuffled batches of prompts of one length, so that no padding mask is needed."""

    def __init__(self, rows, size, seed):
        self.r, self.size, self.rows = random.Random(seed), size, rows
        self.queue = []

    def next(self):
        if not self.queue:
            by = {}
            order = list(range(len(self.rows))); self.r.shuffle(order)
            for i in order: by.setdefault(len(self.rows[i][0]), []).append(i)
            for idx in by.values(): self.queue += [idx[k:k + self.size] for k in range(0, len(idx), self.size) if k + self.size // 3 <= len(idx)]
            self.r.shuffle(self.queue)
        return evaluate.batch([self.rows[i] for i in self.queue.pop()])


def rate(frac, step):
    """Warm-up of 30 steps, constant for 35 % of the time, cosine to 2 %."""
    if frac < 0.35: return min(1, (step + 1) / 30)
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1, (frac - 0.35) / 0.65)))


def worker(rank, a, rows, held, sh, barrier, counters):
    torch.set_num_threads(1)
    lay, n = layout(CONFIG)
    flat, G, m1, m2, info = sh                               # G [rank][full | slice][n]
    params, grads = {}, ({}, {})
    for name, (x, y, s) in lay.items():
        params[name] = flat[x:y].view(s).detach().requires_grad_(True)
        for k in (0, 1): grads[k][name] = G[rank][k][x:y].view(s)
    net = model.Gemma3n(CONFIG, params)
    opt = optim.Optimiser(lay, flat, m1, m2)
    it = [Batches(rows, size // a.micro, a.seed * 1000 + rank * 2 + k + int(info[0]) * 7) for k, size in enumerate((a.batch, a.batch2))]
    r = random.Random(a.seed * 77 + int(info[0]))
    weight = dict(zip(("narrow", "middle", "wide"), map(float, a.lambdas.split(","))))
    limit, t0, used0 = a.minutes * 60, time.time(), float(info[1])
    last_save = last_eval = time.time(); avg = None; first = step = int(info[0]); half = slice(0, n // 2) if rank == 0 else slice(n // 2, n)

    def take(counter, stop):
        """The next piece of work of this step: whichever process is free takes it (the other core may be busy elsewhere)."""
        with counter.get_lock():
            if counter.value >= stop: return None
            counter.value += 1
            return counter.value - 1

    while True:
        if rank == 0: info[2] = used0 + time.time() - t0; info[3:5] = 0      # rank 0 owns the clock
        draws = [slices.draw(r) for _ in range(a.micro)]        # the same draws in both processes
        G[rank].zero_(); done = step - first
        barrier.wait()
        used = float(info[2]); frac = used / limit
        if frac >= 1: break
        while (k := take(counters[0], (done + 1) * 2 * a.micro)) is not None:
            k -= done * 2 * a.micro; part = k // a.micro         # full-model pieces first, then slices
            for name, p in params.items(): p.grad = grads[part][name]
            ids, tgt, start = it[part].next()
            widths, skip, kind = draws[k % a.micro] if part else (None, (), "")
            logits = net.forward(ids, start, widths, skip)
            loss = F.cross_entropy(logits.flatten(0, 1), tgt.flatten(), ignore_index=-100)
            (loss * ((weight[kind] if part else 1) / a.micro)).backward()
            with counters[0].get_lock(): info[3 + part] += loss.item() / a.micro
        barrier.wait()
        for part in (0, 1): G[0][part][half] += G[1][part][half]; info[5 + 2 * part + rank] = G[0][part][half].norm().item() ** 2
        barrier.wait()
        n0, n1 = float(info[5] + info[6]) ** 0.5, float(info[7] + info[8]) ** 0.5
        w = min(1.0, 0.5 * n0 / max(n1, 1e-9))                  # slices never pull harder than half of the full model
        clip = min(1.0, 1.0 / max(n0 + w * n1, 1e-9))
        jobs = iter(lambda: take(counters[1], (done + 1) * len(opt.jobs)), None)
        opt.step(lambda x, y: (G[0][0][x:y] + w * G[0][1][x:y]) * clip, rate(frac, step), step + 1, (j - done * len(opt.jobs) for j in jobs))
        step += 1
        barrier.wait()
        if rank == 0:
            avg = float(info[3]) if avg is None else 0.95 * avg + 0.05 * float(info[3])
            if step % 25 == 0: print(f"step {step} {used:.0f}s full {avg:.4f} slices {float(info[4]):.4f} norm {n0:.2f} {n1:.2f} lr {rate(frac, step):.3f} {(step - first) / (time.time() - t0):.2f} steps/s", flush=True)
            if time.time() - last_save > 120:
                last_save = time.time(); save(a.work, sh, step, used)
            if time.time() - last_eval > a.eval_every:
                last_eval = time.time(); out = []
                for n_, wd, sk in (("32 skip 5-8", 32, (5, 6, 7, 8)), ("32", 32, ()), ("128", 128, ()), ("512", 512, ())):
                    ok = evaluate.exact(net, [x[0] for x in held[::3]], *slices.spec(wd, sk))
                    pc = [o for o, x in zip(ok, held[::3]) if x[1] == "part_code"]
                    out.append(f"{n_}: {100 * sum(ok) / len(ok):.1f} (codes {100 * sum(pc) / len(pc):.0f})")
                by = {}
                for o, x in zip(ok, held[::3]): by.setdefault(x[1], []).append(o)
                print("  eval", "; ".join(out), "| full:", " ".join(f"{k} {100 * sum(v) / len(v):.0f}" for k, v in by.items()), flush=True)
    if rank == 0: save(a.work, sh, step, used)


def save(work, sh, step, used):
    tmp = os.path.join(work, "checkpoint.tmp")
    torch.save({"flat": sh[0], "m1": sh[2], "m2": sh[3], "step": step, "used": used}, tmp); os.replace(tmp, os.path.join(work, "checkpoint.pt"))


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--out", default="models/nano"); ap.add_argument("--minutes", type=float, default=36); ap.add_argument("--seed", type=int, default=7)
    ap.add_argument("--examples", type=int, default=300000); ap.add_argument("--batch", type=int, default=32); ap.add_argument("--batch2", type=int, default=40)
    ap.add_argument("--micro", type=int, default=2, help="pieces per half of a step")
    ap.add_argument("--lambdas", default="0.03,0.12,0.4", help="weight of a narrow, middle, wide second slice")
    ap.add_argument("--mix", default="", help="function=share,… changes the training mixture")
    ap.add_argument("--work", default=os.path.join(tempfile.gettempdir(), "nano-train")); ap.add_argument("--resume", action="store_true")
    ap.add_argument("--used", type=float, default=-1, help="with --resume: seconds of the schedule already used (moves the learning rate)")
    ap.add_argument("--eval-every", type=float, default=180); ap.add_argument("--no-export", action="store_true")
    a = ap.parse_args()
    os.makedirs(a.work, exist_ok=True); torch.manual_seed(a.seed)
    held = data.heldout(); banned = {e["text"].lower() for e in held}
    hand = os.path.join(a.out, "eval", "handwritten.jsonl")      # never trained on, not even by accident
    if os.path.exists(hand): banned |= {json.loads(x)["text"].lower() for x in open(hand)}
    mix = dict(data.MIX); mix.update({k: float(v) for k, v in (x.split("=") for x in a.mix.split(",") if x)})
    ck = os.path.join(a.work, "checkpoint.pt"); state = torch.load(ck) if a.resume else None
    examples = data.training(a.examples, a.seed + (state["step"] if state else 0), banned, mix)
    tk = os.path.join(a.work, "tokenizer.json")
    if not a.resume:
        plain = lambda x: "\nuser\n" + x[0] + "\nmodel\n" + x[1]
        vocab, merges = tokenizer.learn([plain(x) for x in examples[:40000]], CONFIG["vocab_size"])
        json.dump(tokenizer.to_json(vocab, merges), open(tk, "w"), ensure_ascii=False, separators=(",", ":"))
    tok = tokenizer.Tokenizer(tk)
    rows = evaluate.encode(tok, examples); hrows = [(p, e["function"]) for p, e in zip(evaluate.encode(tok, [(e["text"], e["expected"]) for e in held]), held)]
    lay, n = layout(CONFIG)
    flat, G, m1, m2, info = (torch.zeros(n), torch.zeros(2, 2, n), torch.zeros(n), torch.zeros(n), torch.zeros(9, dtype=torch.float64))
    if state:
        flat.copy_(state["flat"]); m1.copy_(state["m1"]); m2.copy_(state["m2"]); info[0] = state["step"]; info[1] = a.used if a.used >= 0 else state["used"]
    else:
        for name, (x, y, s) in lay.items(): model.init(name, flat[x:y].view(s), CONFIG)
    sh = [t.share_memory_() for t in (flat, G, m1, m2, info)]
    print(f"{n} parameters, {len(rows)} examples ({len(set(x[0].lower() for x in examples))} distinct), prompt {sum(len(p) for p, _ in rows) / len(rows):.1f}, answer {sum(len(x) for _, x in rows) / len(rows):.1f} tokens, held out {len(held)}", flush=True)
    ctx = mp.get_context("fork"); barrier = ctx.Barrier(2); counters = [ctx.Value("q", 0) for _ in range(2)]
    ps = [ctx.Process(target=worker, args=(r, a, rows, hrows, sh, barrier, counters)) for r in range(2)]
    for p in ps: p.start()
    for p in ps: p.join()
    if any(p.exitcode for p in ps): sys.exit("training failed; continue with --resume")
    if not a.no_export:
        import export; export.run(a.work, a.out)


if __name__ == "__main__": main()
