"""Every operator of shim/ops.json that the pointwise family serves, against the host: row by row over dtypes, numbers,
shapes and special values; layouts, promotion, overlap and errors over operators that stand for their kind."""
import itertools
import math
import random
import re

import pytest
import torch

import gems
import rows
from agree import agree, agree_sized, attempt, clone_args, same
from inputs import FULL

FLOATS = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
INTS = [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8]
DTYPES = FLOATS + INTS + [torch.bool]
# Where 1 + erf(x) or the like cancels, PyTorch's own vector and scalar code differ by that much, and its erf of small bf16 is 0.
CANCELS = ("erf", "gelu", "gelu_backward", "mish_backward", "silu_backward")
SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0, 1e-3, -1e-3, 20.5, -20.5, 300.0, -300.0, 6e4, -6e4, 1e-7, 1e-30, 3e38, math.inf,
           -math.inf, math.nan]


ROWS = {n: r for n, r in rows.operators().items() if r.get("kernel") == "pointwise"}


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
    "other": [2, -3, 0.1, True], "self": [2, 3, 0.5, -1.5], "negative_slope": [0.01, 2, 0], "lambd": [0.5, 0, 0.1], "min_val": [-1, -0.3],
    "max_val": [1, 2.5],
}
NUMBERS_BY_BASE = {"celu": {"alpha": [1.0, 0.5]}, "elu": {"alpha": [1, 0.5]}, "elu_backward": {"alpha": [1, 0.5]},
                   "softplus": {"threshold": [20, 2]}, "softplus_backward": {"threshold": [20, 2]}}
# Of NaN, and of -0, the host's vector code makes something else than what it has for the elements that are left over.
NO_NAN = {"hardshrink_backward", "hardswish_backward", "hardtanh_backward", "logit_backward", "softshrink_backward"}


def choices(row, kind, name, dtype, shape, seed):
    """Values to try for a parameter: the first stands for the usual case."""
    base = row["schema"].split("(")[0].split(".")[0].rstrip("_")
    mask = name in row.get("mask", "").split()
    if kind.startswith("Tensor"):
        if name in row.get("zero_dim", "").split():
            return [torch.tensor(2).to(dtype)]
        t = torch.bool if mask else dtype
        # Products of the largest values are left out.
        if name in ("grad_output", "output", "buffer") or base in ("gelu", "silu") or base in NO_NAN:
            return [tensor(t, shape, seed, special=False)]
        domain = row.get("domain", "") if name == "other" else ""
        if base == "pow" and t in INTS and name == "exponent":
            return [tensor(t, shape, seed).abs() % 7]
        if base in ("sinh", "cosh"):  # just below infinity the host's vector code gives infinity, its other code does not
            x = tensor(t, shape, seed)
            return [x if t == torch.bool else x.masked_fill((x.abs() >= 88) & (x.abs() != math.inf), 3)]
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
        return [None, 0.2 if name == "eps" else 1.5]
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
    if name in FORWARD:
        return gradient_of(FORWARD[name])
    if row.get("composite"):
        if hasattr(torch, base):
            return getattr(torch, base)
        if hasattr(torch.Tensor, base):
            return getattr(torch.Tensor, base)
        return {"log_sigmoid": torch.nn.functional.logsigmoid}[base]
    return getattr(getattr(torch.ops.aten, base), overload or "default")


# Operators that only PyTorch's own backward passes call so that the library sees them.
FORWARD = {"hardsigmoid_backward": torch.nn.functional.hardsigmoid, "logit_backward": torch.logit,
           "mish_backward": torch.nn.functional.mish, "silu_backward": torch.nn.functional.silu}


def gradient_of(forward):
    def backward(grad, x, *rest):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return torch.autograd.grad(forward(x, *rest), x, grad)[0]
    return backward


def calls(name, row, dtype, shape, all_choices):
    """(args, kwargs) for one dtype: every parameter's first choice, then the other choices of each in turn."""
    sides = []
    for i, (kind, pname, keyword) in enumerate(params(row)):
        is_result = keyword and "!" in kind
        sides.append((pname, keyword, [None] if is_result else choices(row, kind, pname, dtype, shape, i), is_result, kind))
    usual = [s[2][0] for s in sides]
    variants = [usual]
    for i, s in enumerate(sides if all_choices else []):
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


# Every kernel is compiled once (0.1 s on PoCL, then from the cache on disk). So a row that only restates another's
# expression takes one dtype, the others take f32 or i64 and one more that changes from row to row, unless all are asked for.


def dtypes_of(name, row):
    if FULL:
        return DTYPES
    words = row.get("dtypes", "float int bool").split()
    allowed = [d for d in DTYPES if ("float" in words and d.is_floating_point) or ("int" in words and d in INTS)
               or ("bool" in words and d == torch.bool) or (d == torch.float32 and "f32" in words)]
    more = allowed[1:][sum(map(ord, name)) % (len(allowed) - 1):][:1] if len(allowed) > 1 else []
    return allowed[:1] if name != row["row"] else allowed[:1] + more


# Operators that Python cannot call so that the library sees them: the operator below them is routed.
UNREACHED = {"remainder.Scalar_Tensor"}
# A composite that writes an argument counts versions before it calls: it is only ours where nothing is counted.
INFERENCE = {"log_sigmoid.out"}


@pytest.mark.parametrize("name", sorted(ROWS))
def test_row(name):
    row = ROWS[name]
    fn = caller(name, row)
    outs = [p for k, p, keyword in params(row) if keyword and "!" in k]
    routed = 0
    for dtype in dtypes_of(name, row):
        for args, kwargs in calls(name, row, dtype, (5, 31), FULL or (name == row["row"] and dtype in (torch.float32, torch.int64))):
            if outs:
                made = result_of(name, row, args, kwargs)
                if made is None:
                    continue
                made = made if isinstance(made, tuple) else (made,)
                kwargs = {**kwargs, **{p: torch.zeros_like(m) for p, m in zip(outs, made)}}
            # torch's own functions of some composites call the operator they stand for
            counted = None if row.get("composite") or name in UNREACHED else name
            before = gems.counters(counted).routed
            try:
                with torch.inference_mode(name in INFERENCE):
                    (agree_sized if re.sub(r"_?(\..*)?$", "", name) in CANCELS else agree)(fn, *args, op=name, routed=None, **kwargs)
            except AssertionError as e:
                numbers = [a if not isinstance(a, torch.Tensor) else a.dtype for a in args]
                raise AssertionError(f"{name} {dtype} {numbers} {kwargs.keys()}: {e}") from None
            routed += gems.counters(counted).routed - before
    assert routed > 0, f"{name} was never routed: {gems.last_reason()}"


# ---- layouts: kernels differ by loops, not by operator -----------------------------------------------------------------


def layouts(dtype):
    """Pairs of tensors that broadcast, by name."""
    def t(*shape, seed=0):
        return tensor(dtype, shape, seed)
    base = t(9, 11, 13)
    return {
        "0-dim": (t(), t(seed=1)),
        "one": (t(1), t(1, 1, seed=1)),
        "empty": (t(0, 3), t(0, 1, seed=1)),
        "odd": (t(1031), t(1031, seed=1)),
        "big": (t(70001), t(70001, seed=1)),
        "transposed": (t(37, 41).t(), t(37, 41, seed=1).t()),
        "one transposed": (t(37, 41), t(41, 37, seed=1).t()),
        "permuted": (base.permute(2, 0, 1), t(9, 11, 13, seed=1).permute(2, 0, 1)),
        "differently permuted": (base.permute(2, 0, 1), t(13, 9, 11, seed=1)),
        "channels last": (t(2, 5, 7, 3).to(memory_format=torch.channels_last), t(2, 5, 7, 3, seed=1).to(memory_format=torch.channels_last)),
        "channels last and not": (t(2, 5, 7, 3).to(memory_format=torch.channels_last), t(2, 5, 7, 3, seed=1)),
        "channels last and a row": (t(2, 5, 7, 3).to(memory_format=torch.channels_last), t(5, 1, 1, seed=1)),
        "channels last 3d": (t(2, 3, 4, 5, 3).to(memory_format=torch.channels_last_3d), t(2, 3, 4, 5, 3, seed=1).to(memory_format=torch.channels_last_3d)),
        "size one channels": (t(2, 1, 7, 3).to(memory_format=torch.channels_last), t(2, 1, 7, 3, seed=1)),
        "sliced": (t(40, 30)[3::2, 1:20:3], t(40, 30, seed=1)[3::2, 1:20:3]),
        "offset": (t(500)[7:400], t(500, seed=1)[20:413]),
        "gaps transposed": (t(40, 30)[:, ::2].t(), t(15, 40, seed=1)),
        "expanded": (t(1, 17).expand(23, 17), t(23, 17, seed=1)),
        "both expanded": (t(1, 17).expand(23, 17), t(1, 17, seed=1).expand(23, 17)),
        "row": (t(23, 17), t(17, seed=1)),
        "column": (t(23, 17), t(23, 1, seed=1)),
        "outer": (t(23, 1), t(1, 17, seed=1)),
        "scalar tensor": (t(23, 17), t(seed=1)),
        "scalar first": (t(), t(23, 17, seed=1)),
        "windows": (t(60).unfold(0, 7, 2), t(27, 7, seed=1)),
        "the same": (base, base),
        "middle": (t(6, 7, 8), t(7, 1, seed=1)),
        "rank 5": (t(2, 3, 4, 5, 6).permute(4, 1, 3, 0, 2), t(6, 3, 5, 2, 4, seed=1)),
        "rank 8": (t(2, 3, 2, 3, 2, 3, 2, 3).permute(7, 5, 3, 1, 6, 4, 2, 0), t(3, 3, 3, 3, 2, 2, 2, 2, seed=1)),
        "many ones": (t(*[1, 2] * 8), t(*[1, 2] * 8, seed=1)),
    }


NAMES = list(layouts(torch.bool))


@pytest.mark.parametrize("name", NAMES)
def test_layout(name):
    for dtype in DTYPES if FULL else [torch.float32]:
        a, b = layouts(dtype)[name]
        routed = None if a.numel() == 0 else True
        agree(torch.add, a, b, op="add.Tensor", routed=routed)
        agree(lambda x, y: x.clone(), a, b, op="clone", routed=routed)
        if FULL:
            agree(torch.eq, a, b, op="eq.Tensor", routed=routed)
        if a.shape == torch.broadcast_shapes(a.shape, b.shape) and "xpanded" not in name and name not in ("windows", "the same"):
            agree(lambda x, y: x.add_(y), a, b, op="add_.Tensor", routed=routed)


@pytest.mark.parametrize("name", ["one transposed", "channels last", "expanded", "row", "sliced"])
def test_mixed_dtypes(name):
    for da, db in itertools.product(DTYPES if FULL else [torch.float32, torch.int64], DTYPES if FULL else [torch.float32, torch.uint8]):
        a, b = layouts(da)[name][0], layouts(db)[name][1]
        agree(torch.mul, a, b, op="mul.Tensor")
        if FULL:
            agree(torch.lt, a, b, op="lt.Tensor")


def test_promotion_is_the_hosts():
    """Every pair of dtypes and priorities: the dtype of a sum, which is torch.result_type."""
    def kinds(d):
        yield torch.zeros(2, dtype=d)
        yield torch.zeros((), dtype=d)
    numbers = [True, 3, 1.5]
    operands = [o for d in (DTYPES if FULL else [torch.float32, torch.bfloat16, torch.float16, torch.uint8, torch.int8, torch.bool]) for o in kinds(d)]
    for a, b in itertools.product(operands, operands + numbers):
        with gems.off():
            want = torch.result_type(a, b)
        assert torch.mul(a, b).dtype == want, (a, b)


def test_default_dtype():
    torch.set_default_dtype(torch.float64)
    try:
        agree(torch.sqrt, torch.arange(9), op="sqrt")
        agree(torch.mul, torch.arange(9), 2.5, op="mul.Tensor")
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("src", FLOATS + [torch.int64, torch.uint8, torch.bool] if not FULL else DTYPES)
def test_conversions(src):
    x = tensor(src, (5, 31))
    if src.is_floating_point:  # what does not fit an integer has no value of its own in C++: the edges that have one
        x = torch.cat([x[x.isfinite() & (x.abs() < 100)], torch.tensor([127.5, -128.5, 0.9, -0.9]).to(src)])
    for dst in DTYPES if FULL else [torch.float32, torch.bfloat16, torch.float16, torch.int32, torch.bool]:
        if dst != src:
            agree(lambda t: t.to(dst), x, op="_to_copy")
    with gems.off():
        z = torch.zeros(x.shape, dtype=torch.int16)
    agree(lambda s, d: d.copy_(s), x, z, op="copy_")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_rounding_to_16_bits(dtype):
    """Every value of 16 bits, and what lies between neighbours: rounded to nearest even, bit for bit."""
    bits = torch.arange(-32768, 32768, dtype=torch.int32).to(torch.int16)
    x = bits.view(dtype)
    agree(lambda t: t.to(torch.float32), x, op="_to_copy", rtol=0, atol=0)
    y = x.to(torch.float32)
    y = y[y.isfinite()]
    around = torch.cat([torch.nextafter(y, torch.tensor(math.inf)), torch.nextafter(y, torch.tensor(-math.inf)),
                        (y[1:] + y[:-1]) / 2, y * (1 + 2.0 ** -9), y * (1 + 2.0 ** -12), torch.tensor([65519.9, 65520.0, 3.4e38, 1e-8, 2.98e-8])])
    agree(lambda t: t.to(dtype), around, op="_to_copy", rtol=0, atol=0)


# ---- functions with a quick way for usual arguments ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sin", "cos", "tan", "fmod", "remainder", "floor_divide"])
def test_unusual_arguments(name):
    """A piece of the loop in which one argument is unusual is computed again. That changes nothing for its neighbours, in
    place as well, in one row or in many with gaps; and what is quick agrees with what is not."""
    usual = torch.linspace(-40, 40, 5000)
    odd = usual.clone()
    odd[::700] = torch.tensor([1e30, -1e9, math.inf, math.nan, 40000.0, -3e38, 1e5, -math.inf])
    y = torch.linspace(0.3, 3, 5000)
    y[350::700] = torch.tensor([math.inf, -math.inf, 0.0, -0.0, 1e-30, math.nan, -1e38])
    at = torch.ones(5000, dtype=torch.bool)
    at[::700] = False
    more = (torch.linspace(0.3, 3, 5000),) if name in ("fmod", "remainder", "floor_divide") else ()

    def fn(x, *rest):
        return getattr(torch, name)(x, *rest)
    want = agree(fn, usual, *more)
    got = agree(fn, odd, *more)
    same(got[at], want[at], rtol=0, atol=0)
    if more:
        agree(fn, odd, y)
        agree(fn, usual, y)
    here = odd.clone()
    getattr(torch.Tensor, name + "_")(here, *more)
    same(here, got, rtol=0, atol=0)
    wide = torch.zeros(4, 1250, 2)
    wide[..., 0] = odd.view(4, 1250)
    gaps = wide[..., 0]
    getattr(torch.Tensor, name + "_")(gaps, *(m.view(4, 1250) for m in more))
    same(gaps, got.view(4, 1250), rtol=0, atol=0, strides=False)
    same(fn(odd.view(50, 100).t(), *(m.view(50, 100).t() for m in more)), got.view(50, 100).t(), rtol=0, atol=0)


# ---- what is the host's --------------------------------------------------------------------------------------------------


def test_errors_are_the_hosts():
    f, i = torch.ones(3, 4), torch.ones(3, 4, dtype=torch.int64)
    b = i.bool()
    for fn, args in [(torch.add, (f, torch.ones(5))), (torch.add, (f, f, )), (lambda x, y: x.add_(y), (i, f)),
                     (lambda x, y: x.div_(y), (i, i)), (lambda x, y: x.add_(y), (torch.ones(4), f)),
                     (lambda x, y: x.add_(y, alpha=1.5), (i, i)), (lambda x: x.add(x, alpha=True), (i,)), (lambda x, y: x - y, (b, b)), (lambda x: -x, (b,)),
                     (lambda x, y: x & y, (f, f)), (lambda x, y: x // y, (i, torch.zeros_like(i))), (lambda x: x % 0, (i,)),
                     (lambda x: x ** -1, (i,)), (lambda x: torch.clamp(x), (f,)), (lambda x, m: x.masked_fill(m, 1), (f, i)),
                     (lambda x, m: x.masked_fill_(m, 1.5), (i, b)), (lambda x, y: torch.where(x, x, y), (f, f)),
                     (lambda x: torch.div(x, 2, rounding_mode="up"), (f,)), (lambda x, y: torch.lerp(x, y, 0.5), (f, f.double())),
                     (lambda x: torch.nn.functional.gelu(x, approximate="no"), (f,)), (lambda x: torch.nn.functional.celu(x, alpha=0.0), (f,)),
                     (lambda x, y: torch.isclose(x, y, rtol=-1), (f, f)), (lambda x: x.expand(2, 3, 4).add_(1), (f[:1],)),
                     (lambda x: x.view(-1)[1:].add_(x.view(-1)[:-1]), (f,)), (lambda x, y: torch.add(x, x, out=y), (f, i.clone())),
                     (lambda x: x.to(torch.int8) + 300, (i,)), (lambda x: x.half().clamp(max=1e6), (f,)), (lambda x: x.fill_(torch.ones(2)), (f,)),
                     (lambda x, y: torch.addcdiv(x, y, y), (f, i)), (lambda x, y: torch.fmod(x, y), (i, torch.zeros_like(i))), (lambda x: x.fmod(0), (i,)),
                     (torch.floor, (b,)), (torch.frac, (i,)), (torch.hypot, (i, i)), (torch.logaddexp, (i, i)), (torch.heaviside, (f, f.double())),
                     (lambda x: x.sinh_(), (i,)), (lambda x, y: x.copysign_(y), (i, f)), (lambda x, y: x ^ y, (f, f)), (lambda x, y: x << y, (b, b)),
                     (lambda x: torch.nn.functional.softshrink(x, -1.0), (f,)), (lambda x: torch.nn.functional.hardswish(x), (i,)),
                     (lambda x: torch.ops.aten.leaky_relu_backward(x, x, -0.5, True), (f,)), (lambda x: torch.signbit(x, out=x.clone()), (f,)),
                     (lambda x: torch.isposinf(x, out=x.clone()), (f,)), (lambda x: torch.prelu(x, x[0].double()), (f,))]:
        agree(fn, *args, routed=None)


def test_out_forms():
    a, b = tensor(torch.float32, (6, 7)), tensor(torch.float32, (6, 7), 1)
    for out in (torch.zeros(6, 7), torch.zeros(7, 6).t(), torch.zeros(6, 14)[:, ::2], torch.zeros(6, 7, dtype=torch.float64),
                torch.zeros(6, 7, dtype=torch.bfloat16)):
        agree(lambda x, y, o: torch.add(x, y, out=o), a, b, out, op="add.out")
    agree(lambda x, y, o: torch.eq(x, y, out=o), a, b, torch.zeros(6, 7), op="eq.Tensor_out")
    agree(lambda x, y, o: torch.add(x, y, out=o), a, b, torch.zeros(0), op="add.out", routed=False)  # the host resizes
    agree(lambda x, o: torch.exp(x, out=o), a[0], torch.zeros(6, 7), op="exp.out", routed=False)  # also larger than what it is for
    for fn in (torch.neg, torch.abs, torch.nan_to_num, lambda x, out: torch.clamp_min(x, 0.5, out=out)):  # these do not cast
        agree(lambda x, o: fn(x, out=o), a, torch.zeros(6, 7, dtype=torch.float64), routed=None)
    agree(lambda x: torch.mul(x, x, out=x), a, op="mul.out")


@pytest.mark.parametrize("name", sorted(n for n, r in ROWS.items() if n == r["row"] or ".out" in n or "_out" in n))
def test_out_of_another_dtype(name):
    """The host takes a wider result of some operators and refuses it of others."""
    row = ROWS[name]
    outs = [p for k, p, keyword in params(row) if keyword and "!" in k]
    if not outs or name in INFERENCE:
        return
    for dtype in (torch.float32, torch.int16):
        for args, kwargs in itertools.islice(calls(name, row, dtype, (5, 31), False), 1):
            made = result_of(name, row, args, kwargs)
            if made is not None:
                made = made if isinstance(made, tuple) else (made,)
                given = {p: torch.zeros_like(m, dtype=torch.float64) for p, m in zip(outs, made)}
                agree(caller(name, row), *args, routed=None, rtol=1.3e-6, atol=1e-5, **kwargs, **given)


def test_numbers_as_the_host_rounds_them():
    """Numbers and 0-dim tensors beside 16-bit tensors: rounded to them first by most operators, not by all."""
    g = torch.Generator().manual_seed(0)
    x = (torch.rand(400, generator=g) * 4 + 0.5).bfloat16()
    s = torch.tensor(1.1717)
    for fn, op in [(torch.add, "add.Tensor"), (torch.sub, "sub.Tensor"), (torch.mul, "mul.Tensor"), (torch.div, "div.Tensor"),
                   (torch.remainder, "remainder.Tensor"), (torch.pow, "pow.Tensor_Tensor")]:
        agree(fn, x, s, op=op, rtol=0, atol=0)
        agree(fn, s, x, op=op, rtol=0, atol=0)
    agree(lambda a: torch.add(a, a, alpha=1.1717), x, op="add.Tensor")
    agree(lambda a: a.mul_(1.1717), x, op="mul_.Tensor", rtol=0, atol=0)
    agree(lambda a, b, o: torch.sub(a, b, out=o), x, x.flip(0), torch.zeros(400), op="sub.out", rtol=0, atol=0)


def test_numbers_of_another_kind():
    i = torch.arange(-4, 4)
    for x, value in itertools.product((i, i.to(torch.uint8), i.float(), i > 0), (1.5, True, -1.5, 300)):
        agree(lambda t, v: torch.full_like(t, v), x, value, op="full_like", routed=None)
        agree(lambda t, v: t.masked_fill(t > 0, v), x, value, routed=None)
    agree(lambda t: torch.full_like(t, True), i.float(), op="full_like")
    agree(lambda t: torch.full_like(t, 2.5, pin_memory=False), i, op="full_like")
    for args in ((i, True), (i > 0, 1), (i, i > 0), (i > 0, i)):
        agree(torch.sub, *args, routed=False, op="sub.Tensor")


@pytest.mark.parametrize("dtype", INTS)
def test_integer_divisors(dtype):
    """A tensor as divisor is searched for zeros where it lies; with one, the host raises its error."""
    a, b = tensor(dtype, (12, 14)), tensor(dtype, (12, 14), 1)
    b[b == 0] = 3
    floor = lambda x, y: torch.div(x, y, rounding_mode="floor")  # noqa: E731
    trunc = lambda x, y: torch.div(x, y, rounding_mode="trunc")  # noqa: E731
    for divisor in (b, b[:, ::2].repeat(1, 2), b[:, :1], b.t().contiguous().t(), b[:1].expand(12, 14)):
        agree(torch.floor_divide, a, divisor, op="floor_divide")
        agree(torch.remainder, a, divisor, op="remainder.Tensor")
    agree(floor, a, b, op="div.Tensor_mode")
    agree(trunc, a, b, op="div.Tensor_mode")
    wide = torch.zeros(12, 28, dtype=dtype)
    wide[:, ::2] = b  # zeros only between the elements
    agree(torch.remainder, a, wide[:, ::2], op="remainder.Tensor")
    b[7, 5] = 0
    for fn in (torch.floor_divide, torch.remainder, floor, trunc):
        agree(fn, a, b, routed=False)


@pytest.mark.parametrize("name", ["rsub.Tensor", "threshold_backward", "pow.Scalar", "log_sigmoid_forward", "where.self"])
def test_strides_where_operands_differ(name):
    """Which operand the host looks at first."""
    row, fn = ROWS[name], caller(name, ROWS[name])
    turned = {"a": lambda t: t.permute(2, 1, 0).contiguous().permute(2, 1, 0), "b": lambda t: t.permute(1, 2, 0).contiguous().permute(2, 0, 1)}
    for args, kwargs in itertools.islice(calls(name, row, torch.float32, (3, 4, 5), False), 1):
        for turn in ("ab", "ba"):
            mine = itertools.cycle(turn)
            agree(fn, *[turned[next(mine)](a) if isinstance(a, torch.Tensor) and a.dim() else a for a in args], op=name, **kwargs)


def test_strides_beside_numbers():
    """The host makes a tensor of some numbers, which shows in strides of dimensions of size 1."""
    with gems.off():
        cut = torch.arange(251).view(251, 1).unfold(0, 2, 1)
        inputs = [cut, cut > 3, torch.arange(6).view(2, 1, 3).permute(0, 2, 1), torch.arange(60).view(3, 4, 5)[:2, :1, :3].permute(2, 1, 0)]
    for x in inputs:
        for fn in (lambda t: t.ne(1), lambda t: t == 1, lambda t: torch.bitwise_or(t, 1), lambda t: torch.rsub(t.int(), 1), lambda t: torch.add(t.int(), 1),
                   lambda t: t.int() % 3, lambda t: torch.where(t > 1, t.float(), 0.5), lambda t: torch.where(t > 1, 0.5, t.float()),
                   lambda t: t.float().clamp(0, 2), lambda t: t.float() ** 2, lambda t: torch.pow(2.0, t.float())):
            got = agree(fn, x, routed=None)
            with gems.off():
                assert got.stride() == fn(x).stride(), (x.shape, x.stride())


def random_layout(r, dtype, shape):
    """A tensor of that shape: permuted, expanded, cut out, overlapping itself, or channels last."""
    n = len(shape)
    kind = r.choice(["permuted", "expanded", "cut", "overlapping", "channels last"])
    if kind == "permuted":
        order = r.sample(range(n), n)
        return tensor(dtype, [shape[d] for d in order], special=False).permute([order.index(d) for d in range(n)])
    if kind == "expanded":
        return tensor(dtype, [1 if r.random() < 0.4 else size for size in shape], special=False).expand(shape)
    if kind == "cut":
        steps = [r.choice([1, 1, 2]) for _ in shape]
        whole = tensor(dtype, [size * step + 1 for size, step in zip(shape, steps)], special=False)
        return whole[tuple(slice(1, size * step + 1, step) for size, step in zip(shape, steps))]
    if kind == "overlapping":
        return tensor(dtype, (400,), special=False).as_strided(shape, [r.choice([0, 1, 2, 3, 5, 12]) for _ in shape], r.choice([0, 1]))
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(n)
    return tensor(dtype, shape, special=False).contiguous(memory_format=last or torch.contiguous_format)


@pytest.mark.parametrize("seed", range(60 if FULL else 6))
def test_random_layouts(seed):
    """Strides to the last one, those of dimensions of size 1 as well."""
    r = random.Random(seed)
    shape = [r.choice([1, 2, 3, 5]) for _ in range(r.choice([1, 2, 3, 4, 4, 5]))]
    with gems.off():
        a, c = random_layout(r, torch.float32, shape), random_layout(r, torch.float32, shape)
        b = random_layout(r, torch.int32, [1 if r.random() < 0.3 else size for size in shape][r.choice([0, 0, 1]):])
    for fn in (lambda x, y, z: x + y, lambda x, y, z: x.clone(), lambda x, y, z: torch.where(z > y, z, y), lambda x, y, z: x.to(torch.bfloat16),
               lambda x, y, z: torch.cat([x, z], -1), lambda x, y, z: x.masked_fill(y > 0, 1.5), lambda x, y, z: z.copy_(y)):
        got = agree(fn, a, b, c, routed=None)
        with gems.off():
            want, _ = attempt(fn, clone_args((a, b, c)), {})
            assert want is None or got.stride() == want.stride(), (a.stride(), b.stride(), c.stride())


def test_gaps_stay_untouched():
    def fn(x):
        x[:, ::2].mul_(3)
        return x
    agree(fn, tensor(torch.float32, (8, 30)), op="mul_.Tensor")


def test_copies_of_layouts():
    x = tensor(torch.float32, (2, 5, 6, 3))
    agree(lambda t: t.permute(3, 1, 0, 2).contiguous(), x, op="contiguous")
    agree(lambda t: t.contiguous(memory_format=torch.channels_last), x[:, :, ::2], op="contiguous")
    agree(lambda t: t.clone(memory_format=torch.channels_last), x, op="clone")
    agree(lambda t: t.to(torch.float64, memory_format=torch.channels_last), x, op="_to_copy")
    agree(lambda t: torch.ones_like(t.permute(3, 1, 0, 2), dtype=torch.int32), x, op="ones_like")
    assert x.contiguous() is x


@pytest.mark.parametrize("dtype", FLOATS if FULL else [torch.float32, torch.bfloat16])
def test_signs_of_zero(dtype):
    x = torch.tensor([0.0, -0.0] * 8).to(dtype)  # 16: the host's vector code alone
    F = torch.nn.functional
    for fn in [getattr(torch, n) for n in "abs angle atan erf neg reciprocal rsqrt sin sqrt square tanh relu".split()] + [
            F.gelu, F.silu, F.elu, torch.nan_to_num, lambda t: t.clamp(0, 1), lambda t: t.clamp(-0.0, 0.0), lambda t: t.clamp(max=-0.0),
            lambda t: t.clamp_min(0), lambda t: t * -1, lambda t: t + t, lambda t: t - t, lambda t: t ** 0.5, lambda t: t ** -0.5, lambda t: t ** 3, lambda t: t % -3, lambda t: t // 3]:
        got = agree(fn, x, routed=None)
        with gems.off(), torch.backends.mkldnn.flags(enabled=False):  # oneDNN's gelu(-0) is 0 or -0, as the processor has it
            assert torch.equal(got.signbit(), fn(x).signbit()), (fn, got)


@pytest.mark.parametrize("dtype", [torch.float32, torch.int8])
def test_bounds_that_are_nan(dtype):
    x = tensor(dtype, (64,))
    for fn in (lambda t: t.clamp(math.nan), lambda t: t.clamp(max=math.nan), lambda t: t.clamp(math.nan, 2), lambda t: t.clamp_min(math.nan)):
        agree(fn, x, routed=None)


def test_fused_as_the_host_fuses():
    """Where a product overflows, or cancels what it is added to, one rounding instead of two is seen."""
    a = torch.tensor([-3e38, -math.inf, 7.0, -3.0, 0.1, 44178756.0] * 8)
    b = torch.tensor([-1.0, 3e38, -3.0, 7.0, 0.3, -105110608.0] * 8)
    agree(lambda x, y: torch.addcmul(x, y, x, value=2), a, b, op="addcmul", rtol=0, atol=0)
    agree(lambda x, y: torch.addcmul(x, y, y), a, b, op="addcmul", rtol=0, atol=0)
    for weight in (0.3, 0.7):
        agree(lambda x, y: torch.lerp(x, y, weight), a, b, op="lerp.Scalar", rtol=0, atol=0)
    for dtype in (torch.float16, torch.bfloat16):  # a quotient is rounded before it is truncated, but for one divisor
        x = torch.tensor([1.0, 0.5, 7.59765625, 65504.0] * 8).to(dtype)
        y = torch.tensor([0.1, -0.1, 0.08636474609375, -1074.0] * 8).to(dtype)
        agree(lambda u, v: torch.div(u, v, rounding_mode="trunc"), x, y, op="div.Tensor_mode", rtol=0, atol=0)
        agree(lambda u: torch.div(u, 0.1, rounding_mode="trunc"), x, rtol=0, atol=0)
        agree(lambda u, v: torch.div(u, v, rounding_mode="trunc"), x, y[:1], op="div.Tensor_mode", rtol=0, atol=0)


def test_large_arguments_of_sine():
    x = torch.cat([torch.tensor([1e4, 1e6, 1e9, 1e15, 1e30, 3e38, -1e7]), torch.linspace(-200, 200, 9999), torch.logspace(-30, 38, 999)])
    agree(torch.sin, x, op="sin")
    agree(torch.cos, x, op="cos")


@pytest.mark.parametrize("name,low,high", [("erf", -5, 5), ("log", 0, 100), ("exp2", -160, 140), ("atan", -50, 50), ("tanh", -12, 12), ("exp", -110, 95),
                                           ("erfc", -5, 10), ("log1p", -1, 50), ("log2", 0, 100), ("log10", 0, 100), ("expm1", -20, 80), ("asin", -1, 1),
                                           ("acos", -1, 1), ("sinh", -80, 80), ("cosh", -80, 80), ("asinh", -1e9, 1e9), ("acosh", 1, 3), ("atanh", -1, 1)])
def test_accuracy(name, low, high):
    """Densely, and near 0, against the host in f64: a few units in the last place of f32."""
    x = torch.cat([torch.linspace(low, high, 20001), torch.linspace(-1e-3, 1e-3, 2001) + (1 if name in ("log", "log2", "log10", "acosh") else 0)])
    with gems.off():
        want = getattr(torch, name)(x.double())
    got = getattr(torch, name)(x)
    with gems.off():
        error = ((got.double() - want) / want.abs().clamp_min(1.2e-38)).abs()
        worst = error[want.isfinite() & (want.abs() > 1.2e-38) & got.isfinite()].max().item()
    assert worst < 6e-7, f"{name}: relative error {worst}"


def wide_values(dtype):
    """Of every size and both signs, denormals too; of 16 bits all there are. The host's vector code does all of them: what
    it has for the elements that are left over is another function."""
    if dtype.itemsize == 2:
        return torch.arange(-32768, 32768, dtype=torch.int32).to(torch.int16).view(dtype)
    x = torch.cat([torch.arange(-2**31, 2**31, 65521).to(torch.int32).view(torch.float32), torch.linspace(-1.01, 1.01, 4001),
                   torch.linspace(-105, 105, 4001), torch.tensor(SPECIAL + [1.5, 2.5, -2.5, 2.0 ** -149, -1e-39])])
    return torch.cat([x, torch.zeros(-len(x) % 64)]).to(dtype)


WIDE = {n: getattr(torch, n) for n in ("floor", "ceil", "round", "trunc", "frac", "sign", "sgn", "signbit", "log1p", "log2", "log10", "expm1", "sinc", "logit",
                                       "asin", "acos", "sinh", "cosh", "tan", "asinh", "acosh", "atanh", "erfc", "isposinf", "isneginf")}
WIDE |= {n: getattr(torch.nn.functional, n) for n in ("hardswish", "hardsigmoid", "hardshrink", "softshrink", "leaky_relu")}
WIDE["logit between"] = lambda x: torch.logit(x, 0.1)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("name", WIDE)
def test_wide_values(name, dtype):
    x = wide_values(dtype)
    if name in ("sinh", "cosh"):  # see choices()
        x = x.masked_fill((x.abs() >= 88) & (x.abs() != math.inf), 3)
    agree(WIDE[name], x)


PAIRS = {n: getattr(torch, n) for n in ("copysign", "logaddexp", "logaddexp2", "xlogy", "atan2", "hypot", "fmod", "fmax", "fmin", "heaviside")}
PAIRS |= {"xlog1py": torch.special.xlog1py, "prelu": torch.ops.aten._prelu_kernel}


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("name", PAIRS)
def test_pairs_of_special_values(name, dtype):
    special = torch.tensor(SPECIAL + [1e-45, -1e-45, 1e-39, -3e38, 7.25, 0.1], dtype=torch.float64)
    a, b = special.repeat_interleave(len(special)), special.repeat(len(special))
    if name == "fmod":  # where the quotient is infinite, the host's vector code gives NaN
        a, b = a[(a / b).to(dtype).abs() < math.inf], b[(a / b).to(dtype).abs() < math.inf]
    n = len(a) // 64 * 64
    compare = agree_sized if "logaddexp" in name else agree  # near 0 they cancel
    compare(PAIRS[name], a[:n].to(dtype), b[:n].to(dtype))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["hardshrink", "softshrink", "leaky_relu", "hardshrink_backward", "softshrink_backward", "hardtanh_backward",
                                  "leaky_relu_backward", "softplus_backward", "logit"])
def test_limits_that_16_bits_do_not_hold(name, dtype):
    """Some are rounded to the dtype first, some are not: seen at the value beside the limit."""
    x = wide_values(dtype).nan_to_num(nan=0.25)
    more = {"hardtanh_backward": lambda v: (-v, v), "leaky_relu_backward": lambda v: (v, False), "softplus_backward": lambda v: (1.5, v)}
    for v in (0.1, 0.3, 0.7):
        first = (torch.ones_like(x),) if "backward" in name else ()
        agree(getattr(torch.ops.aten, name), *first, x, *more.get(name, lambda v: (v,))(v))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_logarithms_of_powers_are_exact(dtype):
    k = torch.arange(-149 if dtype == torch.float32 else -1074, 128, dtype=dtype)
    with gems.off():
        twos, tens = 2.0 ** k.double(), 10.0 ** torch.arange(11, dtype=torch.float64)
    assert torch.equal(torch.log2(twos.to(dtype)), k)
    # NVIDIA's compiler contracts products and sums as it likes: the last place of log10 is not ours there.
    unit = torch.finfo(dtype).eps if gems.lib.gems_vendor() == b"nvidia" else 0
    torch.testing.assert_close(torch.log10(tens.to(dtype)), torch.arange(11, dtype=dtype), rtol=unit, atol=0)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64], ids=str)
def test_alpha_whose_negative_does_not_fit(dtype):
    """sub adds -alpha times other: the host raises for the least integer."""
    a, b = torch.arange(40).to(dtype), torch.arange(40).flip(0).to(dtype)
    for alpha in (torch.iinfo(dtype).min, torch.iinfo(dtype).min + 1, torch.iinfo(dtype).max, -1, -255, -256):
        for fn in (torch.sub, torch.rsub, torch.add, lambda x, y, alpha: x.sub_(y, alpha=alpha), lambda x, y, alpha: torch.sub(x, 2, alpha=alpha)):
            agree(fn, a, b, alpha=alpha, op=None, routed=None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu_to_a_result_with_other_strides(dtype, approximate):
    """What the host makes of that may be wrong, and is its own."""
    gelu = torch.ops.aten.gelu.out
    x = torch.randn(40, 50).to(dtype)
    for out in (torch.zeros(40, 100, dtype=dtype)[:, ::2], torch.zeros(50, 40, dtype=dtype).t()):
        before = gems.counters("gelu.out").routed
        gelu(x, approximate=approximate, out=out)
        assert gems.counters("gelu.out").routed == before and gems.last_reason() == "result has other strides"
    for out in (torch.zeros(40, 50, dtype=dtype), torch.zeros(50, 40, dtype=dtype).t()):
        agree_sized(lambda a, o: gelu(a, approximate=approximate, out=o), out.clone().copy_(x), out, op="gelu.out")


def test_square_roots_are_exact():
    """Of f32 from every binade; the host's may be one unit off, depending on its CPU."""
    x = torch.randint(0, 0x800000, (254, 400), dtype=torch.int32) + (torch.arange(1, 255, dtype=torch.int32) << 23)[:, None]
    x = torch.cat([x.flatten(), torch.arange(2000, dtype=torch.int32), torch.randint(0, 0x800000, (2000,), dtype=torch.int32)]).view(torch.float32)
    x = torch.cat([x, torch.tensor([0.0, -0.0, -1.0, math.inf, -math.inf, math.nan, 2.0 ** -126, 2.0 ** -149, torch.finfo(torch.float32).max])])
    with gems.off():
        wanted = x.double().sqrt().float()  # a root of twice the digits rounds to the right one
        inverse = (1 / wanted.double()).float()
        again = (x.double() / x.flip(0).double()).float()
    for y in (x, torch.stack([x, x], 1)[:, 0]):
        before = gems.counters("sqrt").routed
        got, got_inverse, got_again = torch.sqrt(y), torch.rsqrt(y), torch.div(y, y.flip(0))
        assert gems.counters("sqrt").routed > before
        with gems.off():
            for w, g in ((wanted, got), (inverse, got_inverse), (again, got_again)):
                normal = ~((w.abs() < 2.0 ** -126) & (w != 0))  # f64 rounds twice on the way to a subnormal
                torch.testing.assert_close(g[normal], w[normal], rtol=0, atol=0, equal_nan=True)
                assert torch.equal(g.signbit() & ~g.isnan(), w.signbit() & ~w.isnan())


@pytest.mark.parametrize("dtype", [torch.float32, torch.int32])
def test_strides_of_sides_of_one(dtype):
    """Operators that PyTorch makes of several leave these otherwise than one pass over the tensor would."""
    x = torch.arange(2 * 3 * 20 * 4).to(dtype)
    views = {"transposed": x[:6].view(1, 6).t(), "channels": x[:120].view(2, 20, 1, 3).permute(0, 3, 1, 2)[:, ::3],
             "swapped": x[:120].view(2, 20, 1, 3).permute(0, 3, 2, 1)[:, ::3], "wide": x.view(2, 20, 4, 3).permute(0, 3, 1, 2)[:, ::3],
             "column": x[:96].view(4, 24)[:, ::24], "expanded": x[:6].view(1, 6, 1).expand(3, 6, 4)}
    for view in views.values():
        for fn in (torch.isfinite, torch.isinf, torch.isnan, torch.nan_to_num, torch.abs):
            agree(fn, view, routed=None)
