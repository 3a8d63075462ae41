"""Calls drawn at random from a fixed seed: any rank, sizes, layout, dims (also wrong ones), keepdim and out."""
import random

import pytest
import torch

import gems
from agree import agree
from inputs import layouts

SIZES = [1, 1, 2, 3, 7, 16, 17, 33, 65]
NEAR = {torch.float32: {"rtol": 1e-4, "atol": 1e-4}, torch.bfloat16: {"rtol": 6e-2, "atol": 1e-1}, torch.int32: {}}


def shape(draw, ranks, most=20_000):
    while True:
        sizes = [draw.choice(SIZES) for _ in range(draw.choice(ranks))]
        if draw.random() < 0.05 and sizes:
            sizes[draw.randrange(len(sizes))] = 0
        if torch.Size(sizes).numel() <= most:
            return tuple(sizes)


def one(draw, ranks=(0, 1, 2, 2, 3, 4), dtype=None):
    x = draw.choice(layouts(shape(draw, ranks), dtype or draw.choice(list(NEAR))))
    with gems.off():
        if draw.random() < 0.2 and x.dtype.is_floating_point and x.numel() > 0:
            x = x.clone(memory_format=torch.preserve_format)
            x[tuple(draw.randrange(n) for n in x.shape)] = draw.choice([float("nan"), float("inf"), -float("inf")])
    return x


def a_dim(draw, x):
    n = max(x.dim(), 1)
    return draw.choice([n, -n - 1]) if draw.random() < 0.05 else draw.randrange(-n, n)


def reduction(draw):
    x, op = one(draw), draw.choice([torch.sum, torch.amax, torch.any, torch.argmax, torch.max, torch.prod])
    several = op in (torch.sum, torch.amax, torch.any) and draw.random() < 0.5
    dims = [a_dim(draw, x) for _ in range(draw.choice([1, 2, 2, 3]))] if several else a_dim(draw, x)
    return op, (x, dims, draw.random() < 0.5), {}


def along(draw):
    x = one(draw)
    op = draw.choice([torch.softmax, torch.log_softmax] if x.is_floating_point() else [torch.cumsum])
    kwargs = {"dtype": torch.float32} if draw.random() < 0.2 else {}
    with gems.off():
        if draw.random() < 0.2:
            kwargs["out"] = torch.ones(draw.choice([x.shape, (3,)]), dtype=draw.choice([x.dtype, torch.float32]))
    return op, (x, a_dim(draw, x)), kwargs


def norm(draw):
    x = one(draw, (1, 2, 3), draw.choice([torch.float32, torch.bfloat16]))
    weight = draw.choice([None, one(draw, (1,), x.dtype), draw.choice(layouts(x.shape[-1:], x.dtype))])
    return draw.choice([torch.layer_norm, torch.rms_norm]), (x, x.shape[-1:], weight), {}


def product(draw):
    dtype, (m, n, k) = draw.choice(list(NEAR)), (draw.choice(SIZES + [0]) for _ in range(3))
    a, b = draw.choice(layouts((m, k), dtype)), draw.choice(layouts((k, n if draw.random() < 0.9 else n + 1), dtype))
    if draw.random() < 0.5:
        return torch.mm, (a, b), {}
    c = draw.choice(layouts(draw.choice([(m, n), (n,), (m, 1), (), (n + 1,)]), dtype))
    return torch.addmm, (c, a, b), {"beta": draw.choice([1, 0, -2]), "alpha": draw.choice([1, 3])}


@pytest.mark.filterwarnings("ignore:An output with one or more elements was resized")
@pytest.mark.parametrize("draw_call", [reduction, along, norm, product], ids=lambda f: f.__name__)
@pytest.mark.parametrize("seed", range(3))
def test_random(draw_call, seed):
    draw = random.Random(seed)
    before = gems.counters(None).routed
    for i in range(40):
        fn, args, kwargs = draw_call(draw)
        dtypes = [t.dtype for t in args if isinstance(t, torch.Tensor)] + [kwargs[k].dtype for k in kwargs if k == "out"]
        near = max((NEAR[d] for d in dtypes), key=lambda t: t.get("rtol", 0))
        try:
            agree(fn, *args, op=None, routed=None, **near, **kwargs)
        except AssertionError as e:
            what = [(a.dtype, a.shape, a.stride()) if isinstance(a, torch.Tensor) else a for a in args]
            raise AssertionError(f"call {i}: {fn.__name__}{what} {kwargs}") from e
    assert gems.counters(None).routed > before + 20
