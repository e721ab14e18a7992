"""Muon for the matrices, Adam for tables, norms and coefficients, over one flat buffer that two processes share.

The processes take the jobs one by one. Same-shaped matrices are orthogonalised together (one bmm).
"""
import torch

MOMENTUM, DECAY, BETAS, EPS = 0.95, 0.02, (0.9, 0.97), 1e-9
LR_MUON, LR_ADAM = 0.02, 3e-3


def newton_schulz(X):
    """X [k, r, c] -> nearest semi-orthogonal matrices (five quintic steps)."""
    flip = X.shape[1] > X.shape[2]
    if flip: X = X.transpose(1, 2)
    X = X / (X.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    for _ in range(5):
        A = X @ X.transpose(1, 2)
        X = 3.4445 * X + (-4.7750 * A + 2.0315 * (A @ A)) @ X
    return X.transpose(1, 2) if flip else X


def is_matrix(name, shape):
    return len(shape) == 2 and not name.startswith("embed_tokens") and "_coefs" not in name and "modality_router" not in name


class Optimiser:
    def __init__(self, layout, flat, m1, m2):
        """layout: name -> (start, end, shape) in the flat buffers."""
        self.flat, self.m1, self.m2 = flat, m1, m2
        groups = {}
        for n, (a, b, s) in layout.items():
            if is_matrix(n, s): groups.setdefault(s, []).append((a, b))
        jobs = []
        for s, items in groups.items():
            for part in (items[: len(items) // 2], items[len(items) // 2:]):
                if part: jobs.append((min(s) ** 2 * max(s) * len(part), ("muon", s, part)))
        small = {}
        for n, (a, b, s) in layout.items():
            if is_matrix(n, s): continue
            if n.startswith("embed_tokens"): jobs.append(((b - a) * 20, ("adam", n, [(a, b)])))
            else: small.setdefault("modality_router" if "modality_router" in n else "layer " + n.split(".")[1], []).append((a, b))
        for n, items in small.items(): jobs.append((len(items) * 2000, ("adam", n, items)))
        self.jobs = [job for _, job in sorted(jobs, key=lambda j: -j[0])]           # the dearest first

    @torch.no_grad()
    def step(self, grad, scale, t, take):
        """grad(a, b) -> gradient of a range; scale: learning-rate factor; t: step from 1; take: job numbers."""
        for j in take:
            kind, what, items = self.jobs[j]
            if kind == "muon":
                lr = LR_MUON * scale * max(1, what[0] / what[1]) ** 0.5
                up = []
                for a, b in items:
                    g, m = grad(a, b), self.m1[a:b]
                    m.lerp_(g, 1 - MOMENTUM); up.append(g.lerp(m, MOMENTUM).view(what))
                up = newton_schulz(torch.stack(up))
                for (a, b), u in zip(items, up): self.flat[a:b].mul_(1 - lr * DECAY).sub_(u.reshape(-1), alpha=lr)
            else:
                lr = LR_ADAM * scale * (5 if "modality_router" in what else 1)
                for a, b in items:
                    g, m, v, p = grad(a, b), self.m1[a:b], self.m2[a:b], self.flat[a:b]
                    m.lerp_(g, 1 - BETAS[0]); v.lerp_(g * g, 1 - BETAS[1])
                    if what.startswith("embed_tokens"): p.mul_(1 - lr * DECAY)
                    p.sub_((m / (1 - BETAS[0] ** t)) / ((v / (1 - BETAS[1] ** t)).sqrt() + EPS), alpha=lr)
