"""Bools whose bytes are neither 0 nor 1, as views of other memory have them: whatever computes reads them as the host does,
and what moves them leaves the bytes that the host leaves."""
import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import gems
from agree import agree
from inputs import on_groups, some


def bools(*shape, least=0):
    """Bytes 0 to 4 in turn (`least` to 4) as bools."""
    n = int(np.prod(shape))
    return torch.from_numpy((np.arange(n) % (5 - least) + least).astype(np.uint8).view(bool)).reshape(shape)


def layouts(rows, cols):
    yield bools(rows, cols)
    yield bools(cols, rows).t()
    yield bools(rows + 2, cols + 3)[1:rows + 1, 2:cols + 2]
    yield bools(2 * rows, 2 * cols)[::2, ::2]
    yield bools(1, cols).expand(rows, cols)


def read(fn, *args, op, **kwargs):
    """The result where every byte that is not 0 is read as true."""
    with gems.off():
        wanted = fn(*(x.view(torch.uint8).ne(0) if isinstance(x, torch.Tensor) and x.dtype == torch.bool else x for x in args))
    got = agree(fn, *args, op=op, **kwargs)
    with gems.off():
        for w, g in zip(*((x if isinstance(x, tuple) else (x,)) for x in (wanted, got))):
            if w.dtype == torch.bool:
                w, g = w.view(torch.uint8), g.view(torch.uint8)
            assert torch.equal(w, g), fn


def moved(fn, *args, op, routed=True):
    """The very bytes of the host, also where they are neither 0 nor 1."""
    def raw(*args):
        result = fn(*args)
        return result.view(torch.uint8) if result.dtype == torch.bool else result
    agree(raw, *args, op=op, routed=routed)


REDUCTIONS = [("sum", lambda x: x.sum()), ("sum.dim_IntList", lambda x: x.sum(0)), ("sum.dim_IntList", lambda x: x.sum(-1)),
              ("sum", lambda x: x.sum(dtype=torch.float32)), ("mean", lambda x: x.mean(dtype=torch.float32)),
              ("prod.dim_int", lambda x: x.prod(0)), ("amax", lambda x: x.amax(0)), ("amin", lambda x: x.amin(-1)),
              ("max", lambda x: x.max()), ("min", lambda x: x.min()), ("max.dim", lambda x: tuple(x.max(0))),
              ("max.dim", lambda x: tuple(x.max(-1))), ("min.dim", lambda x: tuple(x.min(-1))), ("any", lambda x: x.any()),
              ("any.dim", lambda x: x.any(0)), ("all", lambda x: x.all()), ("all.dim", lambda x: x.all(-1)),
              ("cumsum", lambda x: x.cumsum(0)), ("cumsum", lambda x: x.cumsum(-1)), ("cumsum", lambda x: x.cumsum(0, dtype=torch.float32)),
              ("_softmax", lambda x: x.softmax(-1, dtype=torch.float32)), ("_log_softmax", lambda x: x.log_softmax(0, dtype=torch.float32))]


@pytest.mark.parametrize("op,fn", REDUCTIONS, ids=[f"{op}-{i}" for i, (op, _) in enumerate(REDUCTIONS)])
def test_reductions(op, fn):
    def all_layouts():
        for x in itertools.chain(some(layouts(5, 7)), layouts(40, 70), some([bools(200, 300), bools(9, 9, least=1)])):
            if "softmax" in op:
                agree(fn, x, op=None)
            else:
                read(fn, x, op=op, routed=None)
    before = gems.counters(None).routed
    all_layouts()
    assert gems.counters(None).routed >= before + 7
    on_groups(all_layouts)


@pytest.mark.long
def test_pointwise():
    """Comparisons, masks and arithmetic, contiguous and strided."""
    for x, y in some(itertools.product(layouts(9, 40), layouts(9, 40)), 4):
        f = torch.randn(9, 40)
        for op, fn in [("eq.Tensor", torch.eq), ("ne.Tensor", torch.ne), ("lt.Tensor", torch.lt), ("bitwise_and.Tensor", torch.bitwise_and),
                       ("logical_or", torch.logical_or), ("maximum", torch.maximum),
                       ("mul.Tensor", torch.mul), ("add.Tensor", torch.add)]:
            read(fn, x, y, op=op)
        read(lambda a, b: torch.where(a, b, f), x, f - 1, op="where.self")
        read(lambda a, b: torch.where(b, a, b), x, y, op="where.self")
        read(lambda a, b: b.masked_fill(a, 7), x, f, op="masked_fill.Scalar")
        read(lambda a, b: torch.where(b, f, a[0, 2]), x, y, op="where.self")
        read(torch.logical_not, x, op="logical_not")
        read(torch.bitwise_not, x, op="bitwise_not")
        read(lambda a, b: a + b, x, f, op="add.Tensor")


def test_masked_select():
    x, mask = torch.randn(40, 50), bools(40, 50)
    agree(torch.masked_select, x, mask, op=None, routed=None)
    agree(lambda a, m: a[m], x, mask, op=None, routed=None)
    agree(torch.nonzero, mask, op=None, routed=None)
    agree(torch.count_nonzero, mask, op=None, routed=None)
    agree(lambda m: m.sort().values, mask, op=None, routed=None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int64, torch.uint8], ids=str)
def test_cat_converts(dtype):
    for x in layouts(4, 33):
        read(lambda a, b: torch.cat([a, b], 1), x, torch.ones(4, 5).to(dtype), op="cat")
        read(lambda a, b: torch.stack([b, a]), x, torch.ones(4, 33).to(dtype), op="stack", routed=None)


SHAPES = [(4, 4), (17, 33), (64, 64), (1, 70), (70, 1), (100, 101)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_bytes(shape):
    rows, cols = shape
    pick = torch.arange(rows - 1, -1, -1)
    for x in some(layouts(rows, cols), 2):
        for dims in ([0], [1], [0, 1], []):
            moved(lambda a: a.flip(dims), x, op="flip")
        moved(lambda a: a.repeat(2, 3), x, op="repeat")
        moved(lambda a: a.repeat(2, 1, 1), x, op="repeat")
        moved(lambda a: a.repeat_interleave(2), x, op=None, routed=None)
        moved(lambda a: a.repeat_interleave(3, 1), x, op=None, routed=None)
        moved(torch.tril, x, op="tril")
        moved(lambda a: a.triu(1), x, op="triu")
        moved(lambda a: a.triu_(1), x.clone(), op="triu_", routed=None)
        moved(lambda a: F.pad(a, (1, 1, 0, 2)), x, op="constant_pad_nd", routed=None)
        moved(lambda a: F.pad(a, (0, 0, 1, 2)), x, op="constant_pad_nd", routed=None)
        moved(lambda a: F.pad(a, (0, 0, -1, 2)), x, op="constant_pad_nd", routed=None)
        moved(lambda a: a.gather(0, pick[:, None].expand(shape)), x, op="gather")
        moved(lambda a: a.gather(1, torch.zeros(shape, dtype=torch.long)), x, op="gather")
        moved(lambda a: a.index_select(0, pick), x, op="index_select", routed=None)
        moved(lambda a: a.index_select(1, torch.tensor([0, cols - 1, 0])), x, op="index_select", routed=None)
        moved(lambda a: F.embedding(pick, a), x, op="embedding", routed=None)
        moved(lambda a: a.roll(1, 0), x, op=None)
        moved(lambda a: a.roll(1, 1), x, op=None)
        moved(lambda a: a.roll(1), x, op=None)
        moved(torch.clone, x, op="clone", routed=None)
        moved(lambda a: a.clone(memory_format=torch.contiguous_format), x, op="clone", routed=None)
        moved(lambda a: torch.zeros(shape, dtype=torch.bool).copy_(a), x, op="copy_", routed=None)
        moved(lambda a: torch.zeros(shape[::-1], dtype=torch.bool).t().copy_(a), x, op="copy_", routed=None)
        for y in layouts(rows, cols):
            moved(lambda a, b: torch.cat([a, b]), x, y, op="cat")
            moved(lambda a, b: torch.cat([a, b, a], 1), x, y, op="cat")
            moved(lambda a, b: torch.stack([a, b]), x, y, op="stack")
            moved(lambda a, b: torch.stack([a, b], 1), x, y, op="stack")
            moved(lambda a, b: torch.stack([a, b], 2), x, y, op="stack")


def test_bytes_in_other_ranks():
    for x in (bools(70), bools(140)[::2], bools(1), bools(2, 3, 4, 5), bools(2, 3, 4, 5).to(memory_format=torch.channels_last),
              bools(2, 5, 3, 4).permute(0, 2, 3, 1), bools(3, 1, 40)):
        last = x.dim() - 1
        for dims in itertools.chain.from_iterable(itertools.combinations(range(x.dim()), n) for n in range(x.dim() + 1)):
            moved(lambda a: a.flip(dims), x, op="flip")
        for dim in range(x.dim()):
            moved(lambda a: torch.cat([a, a], dim), x, op="cat")
            moved(lambda a: torch.stack([a, a], dim), x, op="stack")
            moved(lambda a: a.index_select(dim, torch.tensor([0, 0])), x, op="index_select", routed=None)
        moved(lambda a: torch.stack([a, a], last + 1), x, op="stack")
        moved(lambda a: torch.cat([a]), x, op="cat")
        moved(lambda a: F.pad(a, (1, 2)), x, op="constant_pad_nd", routed=None)
