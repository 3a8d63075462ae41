"""The benchmark cases of shapes.json as PyTorch calls: build(case, ...) gives a function of no arguments to be timed."""

import fnmatch
import json
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
    count = {"bytes": 0, "flops": 0}
    shapes = {k: [[d // 2 if d >= LEAST else d for d in s] for s in v] for k, v in case["shapes"].items()}

    def numel(v):
        total = 0
        for s in v:
            n = 1
            for d in s:
                n *= d
            total += n
        return total

    before = sum(numel(v) for v in case["shapes"].values())
    after = sum(numel(v) for v in shapes.values())
    out = numel(case["shapes"]["out"]), numel(shapes["out"])
    count["bytes"] = int(case["bytes"] * after / before)
    # A product's inner length is halved with the rest; elsewhere the work goes with the result.
    inner = 2 if "a" in shapes and case["shapes"]["a"][0][-1] >= LEAST else 1
    count["flops"] = int(case["flops"] * out[1] / max(out[0], 1) / inner)
    return {**case, "shapes": shapes, **count}


def fit(case, flops, byte_count):
    """Halves until the case does at most `flops` operations on at most `byte_count` bytes. Returns it and how often."""
    times = 0
    while case["flops"] > flops or case["bytes"] > byte_count:
        smaller = halve(case)
        if smaller["shapes"] == case["shapes"]:
            break
        case, times = smaller, times + 1
    return case, times


def _norm(name, x, p, params):
    if name == "layer_norm":
        return lambda: F.layer_norm(x, x.shape[-1:], p["weight"], p["bias"], params["eps"])
    if name == "rms_norm":
        return lambda: F.rms_norm(x, x.shape[-1:], p["weight"], params["eps"])
    return lambda: F.group_norm(x, params["groups"], p["weight"], p["bias"], params["eps"])


def build(case, device="cpu"):
    """A call of the case's operator on new inputs, the same for every device. None if PyTorch cannot do it there."""
    g = torch.Generator().manual_seed(0)
    dtype, params, shapes = DTYPES[case["dtype"]], case["params"], case["shapes"]

    def real(shape):
        return torch.randn(shape, generator=g).to(dtype).to(device)

    def index(shape, limit):
        return torch.randint(0, limit, shape, generator=g).to(device)

    def mask(shape):
        return torch.randint(0, 2, shape, generator=g).bool().to(device)

    x = [real(s) for s in shapes.get("in", [])]
    one = {k: real(shapes[k][0]) for k in ("weight", "bias", "a", "b", "q", "k", "v", "src") if k in shapes}
    dim, op = params.get("dim"), case["op"]
    a = x[0] if x else None
    out = shapes["out"][0]

    def conv():
        image, kernel = a, one["weight"]
        if params.get("nhwc"):
            image = image.contiguous(memory_format=torch.channels_last)
            kernel = kernel.contiguous(memory_format=torch.channels_last)
        return lambda: F.conv2d(image, kernel, stride=params["stride"], padding=params["padding"])

    makers = {
        "add": lambda: lambda: torch.add(x[0], x[1]),
        "add_bcast": lambda: lambda: torch.add(x[0], x[1]),
        "mul": lambda: lambda: torch.mul(x[0], x[1]),
        "gelu": lambda: lambda: F.gelu(a),
        "silu": lambda: lambda: F.silu(a),
        "exp": lambda: lambda: torch.exp(a),
        "tanh": lambda: lambda: torch.tanh(a),
        "where": lambda: (lambda m: lambda: torch.where(m, x[0], x[1]))(mask(shapes["cond"][0])),
        "masked_fill": lambda: (lambda m: lambda: torch.masked_fill(a, m, 0.5))(mask(shapes["mask"][0])),
        "cast": lambda: lambda: a.to(torch.bfloat16),
        "transpose_contig": lambda: lambda: a.t().contiguous(),
        "cat": lambda: lambda: torch.cat(x, dim),
        "repeat_interleave": lambda: lambda: torch.repeat_interleave(a, params["repeats"], dim),
        "triu": lambda: lambda: torch.triu(a),
        "sum": lambda: lambda: torch.sum(a, dim),
        "sum_full": lambda: lambda: torch.sum(a),
        "mean": lambda: lambda: torch.mean(a, dim),
        "amax": lambda: lambda: torch.amax(a, dim),
        "argmax": lambda: lambda: torch.argmax(a, dim),
        "softmax": lambda: lambda: torch.softmax(a, dim),
        "log_softmax": lambda: lambda: torch.log_softmax(a, dim),
        "layer_norm": lambda: _norm(op, a, one, params),
        "rms_norm": lambda: _norm(op, a, one, params),
        "group_norm": lambda: _norm(op, a, one, params),
        "cross_entropy": lambda: (lambda t: lambda: F.cross_entropy(a, t))(
            index(shapes["target"][0], shapes["in"][0][1])
        ),
        "cumsum": lambda: lambda: torch.cumsum(a, dim),
        "topk": lambda: lambda: torch.topk(a, params["k"]),
        "sort": lambda: lambda: torch.sort(a),
        "embedding": lambda: (lambda i: lambda: F.embedding(i, one["weight"]))(
            index(shapes["index"][0], shapes["weight"][0][0])
        ),
        "index_select": lambda: (lambda i: lambda: torch.index_select(a, dim, i))(
            index(shapes["index"][0], shapes["in"][0][dim])
        ),
        "gather": lambda: (lambda i: lambda: torch.gather(a, dim, i))(
            index(shapes["index"][0], shapes["in"][0][dim])
        ),
        "scatter": lambda: (lambda i: lambda: torch.scatter(a, dim, i, one["src"]))(
            index(shapes["index"][0], shapes["in"][0][dim])
        ),
        "dropout": lambda: lambda: F.dropout(a, params["p"], True),
        "uniform_": lambda: (lambda t: lambda: t.uniform_())(torch.empty(out, dtype=dtype, device=device)),
        "randn": lambda: lambda: torch.randn(out, dtype=dtype, device=device),
        "mm": lambda: lambda: torch.mm(one["a"], one["b"]),
        "addmm": lambda: lambda: torch.addmm(one["bias"], one["a"], one["b"]),
        "bmm": lambda: lambda: torch.bmm(one["a"], one["b"]),
        "sdpa": lambda: lambda: F.scaled_dot_product_attention(
            one["q"], one["k"], one["v"], is_causal=params["causal"]
        ),
        "conv2d": conv,
    }
    return makers[op]() if op in makers else None
