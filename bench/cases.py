"""The benchmark cases of shapes.json as PyTorch calls: build(case, ...) gives a function of no arguments to be timed."""

import fnmatch
import json
import math
import os

import torch
import torch.nn.functional as F

HERE = os.path.dirname(os.path.abspath(__file__))
DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16, "i64": torch.int64, "bool": torch.bool}
LEAST = 512  # dimensions from here on are halved when a case is made smaller


def load(only="*"):
    """Cases whose id matches one of the patterns, separated by commas."""
    with open(os.path.join(HERE, "shapes.json"), encoding="utf-8") as f:
        cases = json.load(f)["cases"]
    return [c for c in cases if any(fnmatch.fnmatch(c["id"], p) for p in only.split(","))]


def peers():
    with open(os.path.join(HERE, "peers-h200.json"), encoding="utf-8") as f:
        return json.load(f)


def halve(case):
    """The same case with every dimension of at least LEAST halved: all operands shrink alike, so they still fit."""
    old = case["shapes"]
    new = {k: [[d // 2 if d >= LEAST else d for d in s] for s in v] for k, v in old.items()}

    def numel(shapes):
        return sum(math.prod(s) for s in shapes)

    before, after = sum(map(numel, old.values())), sum(map(numel, new.values()))
    # A product's inner length is halved with the rest; elsewhere the work goes with the result.
    inner = 2 if "a" in old and old["a"][0][-1] >= LEAST else 1
    return {**case, "shapes": new, "bytes": int(case["bytes"] * after / before),
            "flops": int(case["flops"] * numel(new["out"]) / max(numel(old["out"]), 1) / inner)}


def fit(case, flops, byte_count):
    """Halves until the case does at most `flops` operations on at most `byte_count` bytes. Returns it and how often."""
    times = 0
    while case["flops"] > flops or case["bytes"] > byte_count:
        smaller = halve(case)
        if smaller["shapes"] == case["shapes"]:
            break
        case, times = smaller, times + 1
    return case, times


def build(case, device="cpu"):
    """A call of the case's operator on new inputs, the same for every device. None if there is no such operator here."""
    g = torch.Generator().manual_seed(0)
    dtype, params, shapes = DTYPES[case["dtype"]], case["params"], case["shapes"]

    def integers(name, limit):
        return torch.randint(0, limit, shapes[name][0], generator=g).to(device) if name in shapes else None

    def reals(name):
        return [torch.randn(shape, generator=g).to(dtype).to(device) for shape in shapes.get(name, [])]

    x = reals("in")
    one = {k: reals(k)[0] for k in ("weight", "bias", "a", "b", "q", "k", "v", "src") if k in shapes}
    dim, out = params.get("dim"), shapes["out"][0]
    a = x[0] if x else None
    weight, bias = one.get("weight"), one.get("bias")
    mask = integers("cond" if "cond" in shapes else "mask", 2)
    mask = mask if mask is None else mask.bool()
    target = integers("target", shapes["in"][0][1]) if "target" in shapes else None
    index = integers("index", shapes["in"][0][dim] if x else shapes["weight"][0][0]) if "index" in shapes else None
    if params.get("nhwc"):
        a, weight = (t.contiguous(memory_format=torch.channels_last) for t in (a, weight))
    if case["op"] == "layer_norm_backward":
        grad = a.flip(0)
        stats = torch.native_layer_norm(a, a.shape[-1:], weight, bias, params["eps"])[1:]
    filled = torch.empty(out, dtype=dtype, device=device) if case["op"] == "uniform_" else None

    calls = {
        "add": lambda: torch.add(x[0], x[1]),
        "add_bcast": lambda: torch.add(x[0], x[1]),
        "mul": lambda: torch.mul(x[0], x[1]),
        "gelu": lambda: F.gelu(a),
        "silu": lambda: F.silu(a),
        "exp": lambda: torch.exp(a),
        "tanh": lambda: torch.tanh(a),
        "where": lambda: torch.where(mask, x[0], x[1]),
        "masked_fill": lambda: torch.masked_fill(a, mask, 0.5),
        "cast": lambda: a.to(torch.bfloat16),
        "transpose_contig": lambda: a.t().contiguous(),
        "cat": lambda: torch.cat(x, dim),
        "repeat_interleave": lambda: torch.repeat_interleave(a, params["repeats"], dim),
        "triu": lambda: torch.triu(a),
        "sum": lambda: torch.sum(a, dim),
        "sum_full": lambda: torch.sum(a),
        "mean": lambda: torch.mean(a, dim),
        "amax": lambda: torch.amax(a, dim),
        "argmax": lambda: torch.argmax(a, dim),
        "softmax": lambda: torch.softmax(a, dim),
        "log_softmax": lambda: torch.log_softmax(a, dim),
        "layer_norm": lambda: F.layer_norm(a, a.shape[-1:], weight, bias, params["eps"]),
        "layer_norm_backward": lambda: torch.ops.aten.native_layer_norm_backward(
            grad, a, a.shape[-1:], *stats, weight, bias, [True, True, True]),
        "rms_norm": lambda: F.rms_norm(a, a.shape[-1:], weight, params["eps"]),
        "group_norm": lambda: F.group_norm(a, params["groups"], weight, bias, params["eps"]),
        "cross_entropy": lambda: F.cross_entropy(a, target),
        "cumsum": lambda: torch.cumsum(a, dim),
        "topk": lambda: torch.topk(a, params["k"]),
        "sort": lambda: torch.sort(a),
        "embedding": lambda: F.embedding(index, weight),
        "index_select": lambda: torch.index_select(a, dim, index),
        "gather": lambda: torch.gather(a, dim, index),
        "scatter": lambda: torch.scatter(a, dim, index, one["src"]),
        "dropout": lambda: F.dropout(a, params["p"], True),
        "uniform_": lambda: filled.uniform_(),
        "randn": lambda: torch.randn(out, dtype=dtype, device=device),
        "mm": lambda: torch.mm(one["a"], one["b"]),
        "addmm": lambda: torch.addmm(bias, one["a"], one["b"]),
        "bmm": lambda: torch.bmm(one["a"], one["b"]),
        "sdpa": lambda: F.scaled_dot_product_attention(one["q"], one["k"], one["v"], is_causal=params["causal"]),
        "conv2d": lambda: F.conv2d(a, weight, stride=params["stride"], padding=params["padding"]),
    }
    return calls.get(case["op"])
