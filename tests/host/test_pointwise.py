"""Every operator of shim/ops.json that the pointwise family serves, against the host: row by row over dtypes, numbers,
shapes and special values; layouts, promotion, overlap and errors over operators that stand for their kind."""
import itertools
import json
import math
import os
import re

import pytest
import torch

import gems
from agree import agree, same

FLOATS = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
INTS = [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8]
DTYPES = FLOATS + INTS + [torch.bool]
SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0, 1e-3, -1e-3, 20.5, -20.5, 300.0, -300.0, 6e4, -6e4, 1e-7, 1e-30, 3e38, math.inf,
           -math.inf, math.nan]


def rows():
    text = (gems.ROOT / "shim/ops.json").read_text()
    table = {}
    for row in json.loads(text):
        name = row["schema"].split("(")[0]
        table[name] = row
    for row in table.values():
        if "as" in row:
            for k, v in table[row["as"]].items():
                if k not in ("schema", "aoti", "composite"):
                    row.setdefault(k, v)
    return {n: r for n, r in table.items() if r.get("kernel") == "pointwise"}


ROWS = rows()


def params(row):
    """[(type, name, keyword only)] of the row's schema, without results."""
    inside = re.match(r"[\w.]+\((.*)\) -> ", row["schema"]).group(1)
    found, keyword = [], False
    for p in re.split(r", (?![^(]*\))", inside):
        if p == "*":
            keyword = True
            continue
        kind, name = re.match(r"(\S+) (\w+)", p).groups()
        found.append((kind, name, keyword))
    return found


def tensor(dtype, shape, seed=0, special=True, domain=""):
    g = torch.Generator().manual_seed(seed)
    if dtype == torch.bool:
        return torch.randint(0, 2, shape, generator=g).bool()
    if dtype.is_floating_point:
        x = torch.randn(shape, generator=g, dtype=torch.float64) * 4
        flat = x.view(-1)
        if special and flat.numel() >= 2 * len(SPECIAL):
            at = torch.randperm(flat.numel(), generator=g)[: len(SPECIAL)]
            flat[at] = torch.tensor(SPECIAL, dtype=torch.float64)
        return x.to(dtype)
    low, high = (0, 200) if dtype == torch.uint8 else (-100, 100)
    if domain == "shift":
        low, high = (0, 12) if dtype == torch.uint8 else (-3, 70)
    return torch.randint(low, high, shape, generator=g).to(dtype)


NUMBERS = {
    "alpha": [1, 2, 0.5], "min": [-1, 0.25], "max": [2, 3.5], "value": [2, -1.5], "fill_value": [3, 2.5], "threshold": [1, 0.75],
    "beta": [1, 2.5], "scale": [1, 1.5], "input_scale": [1, 0.5], "weight": [0.3, 0.75], "exponent": [0, 1, 2, 3, 0.5, -0.5, -1, -2, 2.5, -3],
    "other": [2, -3, 0.1, True], "self": [2, 3, 0.5, -1.5],
}
NUMBERS_BY_BASE = {"celu": {"alpha": [1.0, 0.5]}, "elu": {"alpha": [1, 0.5]}, "elu_backward": {"alpha": [1, 0.5]},
                   "softplus": {"threshold": [20, 2]}}


def choices(row, kind, name, dtype, shape, seed):
    """Values to try for a parameter: the first stands for the usual case."""
    base = row["schema"].split("(")[0].split(".")[0].rstrip("_")
    mask = name in row.get("mask", "").split()
    if kind.startswith("Tensor"):
        if name in row.get("zero_dim", "").split():
            return [torch.tensor(2).to(dtype)]
        t = torch.bool if mask else dtype
        if name in ("grad_output", "output") or base in ("gelu", "silu"):  # products of the largest values are left out
            return [tensor(t, shape, seed, special=False)]
        domain = row.get("domain", "") if name == "other" else ""
        if base == "pow" and t in INTS and name == "exponent":
            return [tensor(t, shape, seed).abs() % 7]
        if base == "contiguous":
            return [tensor(t, shape[::-1], seed).t()]
        return [tensor(t, shape, seed, domain=domain)] + ([None] if kind == "Tensor?" else [])
    if kind in ("Scalar", "Scalar?"):
        numbers = NUMBERS_BY_BASE.get(base, {}).get(name, NUMBERS.get(name, [2]))
        return numbers + ([None] if kind == "Scalar?" else [])
    if kind == "str":
        return row["one_of"].split()[1:]
    if kind == "str?":
        return row["one_of"].split()[1:] + [None]
    if kind == "float":
        return [{"rtol": 1e-2, "atol": 1e-3, "scale": 1.25}[name]]
    if kind == "float?":
        return [None, 1.5]
    if kind == "bool":
        return [False, True]
    if kind == "ScalarType?":
        return [None, torch.float32, torch.int32, torch.bool]
    if kind == "MemoryFormat?":
        return [None, torch.contiguous_format]
    if kind == "MemoryFormat":
        return [torch.contiguous_format]
    if kind in ("Layout?", "Device?", "bool?"):
        return [None]
    raise KeyError(f"{kind} {name}")


def caller(name, row):
    """A function that calls the operator so that the preloaded symbols see it: composites through torch's own functions."""
    base, _, overload = name.partition(".")
    if row.get("composite") or base.startswith("bitwise"):
        if hasattr(torch, base):
            return getattr(torch, base)
        if hasattr(torch.Tensor, base):
            return getattr(torch.Tensor, base)
        return {"silu_backward": torch.ops.aten.silu_backward, "log_sigmoid": torch.nn.functional.logsigmoid}[base]
    return getattr(getattr(torch.ops.aten, base), overload or "default")


def calls(name, row, dtype, shape):
    """(args, kwargs) for one dtype: all first choices, then each parameter's others in turn; strings all together."""
    sides = []
    for i, (kind, pname, keyword) in enumerate(params(row)):
        is_result = keyword and "!" in kind
        sides.append((pname, keyword, [None] if is_result else choices(row, kind, pname, dtype, shape, i), is_result, kind))
    usual = [s[2][0] for s in sides]
    variants = [usual]
    for i, s in enumerate(sides):
        for v in s[2][1:]:
            variants.append(usual[:i] + [v] + usual[i + 1:])
    for values in variants:
        args, kwargs = [], {}
        for (pname, keyword, _, is_result, kind), v in zip(sides, values):
            if is_result:
                continue
            if keyword or (v is None and kind.endswith("?") and kind != "Tensor?" and kind != "Scalar?" and kind != "float?"):
                if v is not None or pname == "rounding_mode":
                    kwargs[pname] = v
            else:
                args.append(v)
        yield args, kwargs


def result_of(name, row, args, kwargs):
    """What the functional form gives on the host, to make out= arguments of; None if it raises."""
    base = name.partition(".")[0]
    f = {"log_sigmoid": torch.nn.functional.logsigmoid}.get(base) or getattr(torch, base, None)
    if base == "log_sigmoid_forward":
        return (torch.empty_like(args[0]), torch.empty_like(args[0]))
    with gems.off():
        try:
            return (f or getattr(torch.ops.aten, base))(*args, **kwargs)
        except (RuntimeError, TypeError, ValueError):
            return None


# Every kernel is compiled once (0.15 s on PoCL, then from the cache on disk): so rows that only restate another's
# expression take a few dtypes, unless all are asked for.
FULL = os.environ.get("GEMS_TEST_FULL") == "1"
FEW = [torch.float32, torch.bfloat16, torch.int32, torch.bool]


@pytest.mark.parametrize("name", sorted(ROWS))
def test_row(name):
    row = ROWS[name]
    fn = caller(name, row)
    outs = [p for k, p, keyword in params(row) if keyword and "!" in k]
    routed = 0
    for dtype in DTYPES if FULL or "as" not in row else FEW:
        for args, kwargs in calls(name, row, dtype, (5, 31)):
            if outs:
                made = result_of(name, row, args, kwargs)
                if made is None:
                    continue
                made = made if isinstance(made, tuple) else (made,)
                kwargs = {**kwargs, **{p: torch.zeros_like(m) for p, m in zip(outs, made)}}
            before = gems.counters(name).routed
            try:
                agree(fn, *args, op=name, routed=None, **kwargs)
            except AssertionError as e:
                numbers = [a if not isinstance(a, torch.Tensor) else a.dtype for a in args]
                raise AssertionError(f"{name} {dtype} {numbers} {kwargs.keys()}: {e}") from None
            routed += gems.counters(name).routed - before
    assert routed > 0, f"{name} was never routed: {gems.last_reason()}"
