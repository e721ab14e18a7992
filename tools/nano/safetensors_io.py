"""The safetensors file format: 8 bytes header length, JSON header, raw little-endian data."""
import json, struct
import torch

TYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


def load(path):
    raw = open(path, "rb").read(); n = struct.unpack("<Q", raw[:8])[0]; head = json.loads(raw[8:8 + n]); out = {}
    for k, h in head.items():
        if k == "__metadata__": continue
        a, b = h["data_offsets"]
        out[k] = torch.frombuffer(bytearray(raw[8 + n + a:8 + n + b]), dtype=TYPES[h["dtype"]]).view(h["shape"]).clone()
    return out


def save(path, tensors):
    head, at, data = {"__metadata__": {"format": "pt"}}, 0, []
    for k in sorted(tensors):
        t = tensors[k].contiguous(); kind = next(n for n, d in TYPES.items() if d == t.dtype)
        b = (t.view(torch.int16) if t.dtype == torch.bfloat16 else t).numpy().tobytes()
        head[k] = {"dtype": kind, "shape": list(t.shape), "data_offsets": [at, at + len(b)]}; at += len(b); data.append(b)
    h = json.dumps(head, separators=(",", ":")).encode(); h += b" " * (-len(h) % 8)
    with open(path, "wb") as f: f.write(struct.pack("<Q", len(h)) + h + b"".join(data))
