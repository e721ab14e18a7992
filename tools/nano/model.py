"""Gemma 3n text decoder for training: one forward pass for the full model and for every MatFormer slice.

A slice is (ffn widths per kept layer, skipped layers): FFN weights are prefixes, a skipped layer leaves the four AltUp
streams as they are. Only the fused kernels are special; parameter names are the published ones. Rows N = B * T.
"""
import ctypes, hashlib, math, os, subprocess, tempfile
import torch
import torch.nn.functional as F

HERE = os.path.dirname(os.path.abspath(__file__))


def _library():
    src = os.path.join(HERE, "kernels.cpp")
    tag = hashlib.sha1(open(src, "rb").read()).hexdigest()[:12]
    so = os.path.join(tempfile.gettempdir(), f"nano-kernels-{os.getuid()}-{tag}.so")
    if not os.path.exists(so):
        tmp = f"{so}.{os.getpid()}"
        subprocess.check_call(["g++", "-Ofast", "-march=native", "-mprefer-vector-width=512", "-shared", "-fPIC", src, "-o", tmp]); os.replace(tmp, so)
    return ctypes.CDLL(so)


LIB = _library()


def call(name, *args):
    """Tensors go as pointers (None as null), floats as float, ints as long."""
    LIB[name](*[ctypes.c_void_p(a.data_ptr()) if torch.is_tensor(a) else ctypes.c_void_p(0) if a is None
                else ctypes.c_float(a) if isinstance(a, float) else ctypes.c_long(a) for a in args])


class Rms(torch.autograd.Function):                      # res + RMSNorm(x; w)
    @staticmethod
    def forward(ctx, x, w, res):
        x = x.contiguous(); D = x.shape[-1]; y = torch.empty_like(x)
        call("rms_fwd", x, w, None if res is None else res.contiguous(), y, x.numel() // D, D)
        ctx.save_for_backward(x, w); ctx.res = res is not None
        return y

    @staticmethod
    def backward(ctx, g):
        x, w = ctx.saved_tensors; g = g.contiguous(); D = x.shape[-1]
        dx = torch.empty_like(x); dw = None if w is None else torch.zeros_like(w)
        call("rms_bwd", x, w, g, dx, dw, x.numel() // D, D)
        return dx, dw, g if ctx.res else None


class HeadRope(torch.autograd.Function):                 # x [B,T,H,d]
    @staticmethod
    def forward(ctx, x, w, cos, sin):
        x = x.contiguous(); B, T, H, d = x.shape; y = torch.empty_like(x)
        call("rope_fwd", x, w, cos, sin, y, B * T, T, H, d); ctx.save_for_backward(x, w, cos, sin)
        return y

    @staticmethod
    def backward(ctx, g):
        x, w, cos, sin = ctx.saved_tensors; B, T, H, d = x.shape; g = g.contiguous()
        dx, dw = torch.empty_like(x), torch.zeros_like(w)
        call("rope_bwd", x, w, cos, sin, g, dx, dw, B * T, T, H, d)
        return dx, dw, None, None


class Attention(torch.autograd.Function):                # q [B,Tq,H,d], k v [B,Tk,K,d]
    @staticmethod
    def forward(ctx, q, k, v, off, win):
        B, Tq, H, d = q.shape; Tk, K = k.shape[1:3]
        o, p = torch.empty_like(q), torch.empty(B, H, Tq, Tk)
        call("attn_fwd", q, k, v, o, p, B, Tq, Tk, H, K, d, off, win)
        ctx.save_for_backward(q, k, v, p); ctx.a = (B, Tq, Tk, H, K, d, off, win)
        return o

    @staticmethod
    def backward(ctx, g):
        q, k, v, p = ctx.saved_tensors; g = g.contiguous()
        dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        call("attn_bwd", q, k, v, p, g, dq, dk, dv, *ctx.a)
        return dq, dk, dv, None, None


class Gate(torch.autograd.Function):                     # gelu(sparse(x)) * u
    @staticmethod
    def forward(ctx, x, u, z):
        x, u = x.contiguous(), u.contiguous(); y = torch.empty_like(x); n = x.shape[-1]
        call("gate_fwd", x, u, y, x.numel() // n, n, float(z)); ctx.save_for_backward(x, u); ctx.z = float(z)
        return y

    @staticmethod
    def backward(ctx, g):
        x, u = ctx.saved_tensors; g = g.contiguous(); n = x.shape[-1]; dx, du = torch.empty_like(x), torch.empty_like(u)
        call("gate_bwd", x, u, g, dx, du, x.numel() // n, n, ctx.z)
        return dx, du, None


class Predict(torch.autograd.Function):                  # S [4,N,D]
    @staticmethod
    def forward(ctx, S, w, Wr, Wp):
        S = S.contiguous(); _, N, D = S.shape; Pr, m = torch.empty_like(S), torch.empty(N, 4)
        call("predict_fwd", S, w, Wr, Wp, Pr, m, N, D); ctx.save_for_backward(S, w, Wr, Wp, m)
        return Pr

    @staticmethod
    def backward(ctx, g):
        S, w, Wr, Wp, m = ctx.saved_tensors; _, N, D = S.shape; g = g.contiguous()
        dS, dw, dWr, dWp = torch.empty_like(S), torch.zeros_like(w), torch.zeros_like(Wr), torch.zeros_like(Wp)
        call("predict_bwd", S, w, Wr, Wp, m, g, dS, dw, dWr, dWp, N, D)
        return dS, dw, dWr, dWp


class Correct(torch.autograd.Function):
    @staticmethod
    def forward(ctx, Pr, act, w, Wr, Wc):
        act = act.contiguous(); _, N, D = Pr.shape
        S, S0, m = torch.empty_like(Pr), torch.empty_like(act), torch.empty(N, 4)
        call("correct_fwd", Pr, act, w, Wr, Wc, S, S0, m, N, D); ctx.save_for_backward(Pr, act, w, Wr, Wc, m)
        return S, S0

    @staticmethod
    def backward(ctx, g, g0):
        Pr, act, w, Wr, Wc, m = ctx.saved_tensors; _, N, D = Pr.shape; g, g0 = g.contiguous(), g0.contiguous()
        dPr, da, dw, dWr, dWc = torch.empty_like(Pr), torch.empty_like(act), torch.zeros_like(w), torch.zeros_like(Wr), torch.zeros_like(Wc)
        call("correct_bwd", Pr, act, w, Wr, Wc, m, g, g0, dPr, da, dw, dWr, dWc, N, D)
        return dPr, da, dw, dWr, dWc


class Inject(torch.autograd.Function):                   # streams 1..3 += w, in place
    @staticmethod
    def forward(ctx, S, w):
        S[1:] += w; ctx.mark_dirty(S)
        return S

    @staticmethod
    def backward(ctx, g):
        return g, g[1] + g[2] + g[3]


def rms(x, w=None, res=None): return Rms.apply(x, w, res)


class Gemma3n:
    """Holds the parameters (name -> tensor) and the config dict (text_config)."""

    def __init__(self, cfg, params):
        self.c, self.p = cfg, params
        self.L = cfg["num_hidden_layers"]; self.first_shared = self.L - cfg["num_kv_shared_layers"]
        self.z = [math.sqrt(2) * torch.erfinv(torch.tensor(2 * s - 1, dtype=torch.float64)).item() if s > 0 else 0.0 for s in cfg["activation_sparsity_pattern"]]
        self.rope = {}
        d = cfg["head_dim"]
        for kind, theta in (("sliding_attention", 1e4), ("full_attention", 1e6)):
            f = theta ** (-torch.arange(0, d, 2, dtype=torch.float64) / d)
            a = torch.arange(cfg["max_position_embeddings"], dtype=torch.float64)[:, None] * f
            self.rope[kind] = (a.cos().float(), a.sin().float())
        self.source = {k: max(i for i in range(self.first_shared) if cfg["layer_types"][i] == k) for k in set(cfg["layer_types"])}

    def forward(self, ids, start=0, ffn=None, skip=()):
        """Logits [B, T-start, V] for positions start..T-1. ffn: width per layer (original index; None is full)."""
        c, p = self.c, self.p
        B, T = ids.shape; D, P, L, A = c["hidden_size"], c["hidden_size_per_layer_input"], self.L, 4
        H, K, d = c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"]
        flat = ids.reshape(-1)
        emb = p["embed_tokens.weight"]
        e = F.embedding(flat, emb) * math.sqrt(D)                                                    # [N,D]
        tok = F.embedding(torch.where(flat < c["vocab_size_per_layer_input"], flat, torch.zeros_like(flat)), p["embed_tokens_per_layer.weight"]) * math.sqrt(P)
        ctxp = F.linear(e, p["per_layer_model_projection.weight"]) * D ** -0.5                       # [N,L*P]
        ple = (rms(ctxp.view(-1, P), p["per_layer_projection_norm.weight"]).view(-1, L, P) + tok.view(-1, L, P)) * 2 ** -0.5
        ple = ple.transpose(0, 1).contiguous()                                                       # [L,N,P]
        t = e.pow(2).mean(-1, keepdim=True).sqrt()
        S = [e]
        for i in range(A - 1):
            h = F.linear(e, p[f"altup_projections.{i}.weight"])
            S.append(h * t * h.pow(2).mean(-1, keepdim=True).clamp_min(1e-5).rsqrt())
        S = torch.stack(S)                                                                           # [4,N,D]
        kv, off, Tq = {}, 0, T
        for l in range(L):
            if l == self.first_shared and start > 0:      # nothing above reads earlier positions: keep the answer only
                S = S.view(A, B, T, D)[:, :, start:].reshape(A, -1, D); ple = ple.view(L, B, T, P)[:, :, start:].reshape(L, -1, P)
                off, Tq = start, T - start
            if l in skip: continue
            q = lambda n: p[f"layers.{l}.{n}"]
            kind = c["layer_types"][l]; cos, sin = self.rope[kind]; cos, sin = cos[off:off + Tq], sin[off:off + Tq]
            Pr = Predict.apply(S, q("altup.router_norm.weight"), q("altup.modality_router.weight"), q("altup.prediction_coefs.weight"))
            a = Pr[0]
            n = rms(a, q("input_layernorm.weight"))
            lau = rms(F.linear(F.linear(n, q("laurel.linear_left.weight")), q("laurel.linear_right.weight")), q("laurel.post_laurel_norm.weight"), n)
            qh = HeadRope.apply(F.linear(n, q("self_attn.q_proj.weight")).view(B, Tq, H, d), q("self_attn.q_norm.weight"), cos, sin)
            if l < self.first_shared:
                kh = HeadRope.apply(F.linear(n, q("self_attn.k_proj.weight")).view(B, Tq, K, d), q("self_attn.k_norm.weight"), cos, sin)
                vh = rms(F.linear(n, q("self_attn.v_proj.weight")).view(B, Tq, K, d))
                kv[l] = (kh, vh)
            else: kh, vh = kv[self.source[kind]]
            o = Attention.apply(qh, kh, vh, off, c["sliding_window"] if kind == "sliding_attention" else 1 << 30)
            g = rms(F.linear(o.view(-1, H * d), q("self_attn.o_proj.weight")), q("post_attention_layernorm.weight"), a)
            x = (g + lau) * 2 ** -0.5
            f = rms(x, q("pre_feedforward_layernorm.weight"))
            w = ffn[l] if ffn else q("mlp.gate_proj.weight").shape[0]
            rows = lambda W: W if w == W.shape[0] else W[:w]
            y = Gate.apply(F.linear(f, rows(q("mlp.gate_proj.weight"))), F.linear(f, rows(q("mlp.up_proj.weight"))), self.z[l])
            down = q("mlp.down_proj.weight"); down = down if w == down.shape[1] else down[:, :w]
            act = rms(F.linear(y, down), q("post_feedforward_layernorm.weight"), x)
            S, s0 = Correct.apply(Pr, act, q("altup.router_norm.weight"), q("altup.modality_router.weight"), q("altup.correction_coefs.weight"))
            u = Gate.apply(F.linear(s0 * q("altup.correct_output_scale"), q("per_layer_input_gate.weight")), ple[l], 0.0)
            S = Inject.apply(S, rms(F.linear(u, q("per_layer_projection.weight")), q("post_per_layer_input_norm.weight")))
        if start > 0 and self.first_shared == L: S = S.view(A, B, T, D)[:, :, start:].reshape(A, -1, D)
        t = S[0].pow(2).mean(-1, keepdim=True).sqrt()
        out = S[0]
        for i in range(A - 1):
            h = F.linear(S[i + 1], p[f"altup_unembed_projections.{i}.weight"])
            out = out + h * t * h.pow(2).mean(-1, keepdim=True).clamp_min(1e-5).rsqrt()
        cap = c["final_logit_softcapping"]
        logits = torch.tanh(F.linear(rms(out / A, p["norm.weight"]), emb) / cap) * cap
        return logits.view(B, T - start, -1)


def shapes(c):
    """name -> shape, in the published naming (without its prefix)."""
    D, P, L, V, Vp = c["hidden_size"], c["hidden_size_per_layer_input"], c["num_hidden_layers"], c["vocab_size"], c["vocab_size_per_layer_input"]
    H, K, d, R = c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"], c["laurel_rank"]
    s = {"embed_tokens.weight": (V, D), "embed_tokens_per_layer.weight": (Vp, L * P), "per_layer_model_projection.weight": (L * P, D),
         "per_layer_projection_norm.weight": (P,), "norm.weight": (D,)}
    for i in range(3): s[f"altup_projections.{i}.weight"] = (D, D); s[f"altup_unembed_projections.{i}.weight"] = (D, D)
    for l in range(L):
        f = c["intermediate_size"][l]; q = f"layers.{l}."
        for n in ("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm", "post_per_layer_input_norm", "laurel.post_laurel_norm", "altup.router_norm"):
            s[q + n + ".weight"] = (D,)
        s[q + "altup.correct_output_scale"] = (D,)
        s[q + "altup.correction_coefs.weight"] = (4, 4); s[q + "altup.prediction_coefs.weight"] = (16, 4); s[q + "altup.modality_router.weight"] = (4, D)
        s[q + "self_attn.q_proj.weight"] = (H * d, D); s[q + "self_attn.o_proj.weight"] = (D, H * d); s[q + "self_attn.q_norm.weight"] = (d,)
        if l < L - c["num_kv_shared_layers"]:              # shared layers never use k/v of their own
            s[q + "self_attn.k_proj.weight"] = (K * d, D); s[q + "self_attn.v_proj.weight"] = (K * d, D); s[q + "self_attn.k_norm.weight"] = (d,)
        s[q + "mlp.gate_proj.weight"] = (f, D); s[q + "mlp.up_proj.weight"] = (f, D); s[q + "mlp.down_proj.weight"] = (D, f)
        s[q + "laurel.linear_left.weight"] = (R, D); s[q + "laurel.linear_right.weight"] = (D, R)
        s[q + "per_layer_input_gate.weight"] = (P, D); s[q + "per_layer_projection.weight"] = (D, P)
    return s


def init(name, t, c):
    """Measured to start training at once: unit-RMS streams, branches at 0.25-0.5, a router that is not dead."""
    D, P, d = c["hidden_size"], c["hidden_size_per_layer_input"], c["head_dim"]
    if name == "embed_tokens.weight": t.normal_(0, D ** -0.5)
    elif name == "embed_tokens_per_layer.weight": t.normal_(0, P ** -0.5)
    elif name == "per_layer_model_projection.weight": t.normal_(0, 1)
    elif "modality_router" in name: t.normal_(0, 4)                       # divided by D before the tanh
    elif "_coefs" in name: t.normal_(0, 0.02)
    elif name.endswith(("q_norm.weight", "k_norm.weight")): t.fill_(1.3 * d ** -0.25)   # the logit scale is 1
    elif "post_laurel" in name or "post_per_layer" in name: t.fill_(0.25)
    elif "post_attention" in name or "post_feedforward" in name: t.fill_(0.5)
    elif t.dim() == 1: t.fill_(1)
    else: t.normal_(0, t.shape[1] ** -0.5)
