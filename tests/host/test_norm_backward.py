"""Gradients of layer norm: what output_mask asks for, mixed dtypes, layouts, and through autograd."""
import itertools

import pytest
import torch

from agree import agree
from inputs import FLOATS, layouts, on_groups, special, values

backward = torch.ops.aten.native_layer_norm_backward
NAME = "native_layer_norm_backward"
SHAPES = [(1,), (7,), (17, 40), (5, 4, 33), (300, 24), (2, 3, 4, 5)]
MASKS = [m for m in itertools.product([True, False], repeat=3) if any(m)]


def statistics(x, normalized, w=None, b=None):
    return torch.native_layer_norm(x, normalized, w, b, 1e-5)[1:]


def sizes(g, x, normalized, mean, rstd, w, b, mask):
    """How large what is summed is: of the input's gradient and of the sums over rows."""
    g, mean, rstd = g.abs(), mean.abs(), rstd.abs()
    y = (x.abs() + mean) * rstd
    d = g if w is None else g * w.abs()
    inner = list(range(x.dim() - len(normalized), x.dim()))
    outer = list(range(x.dim() - len(normalized)))
    dx = (d + d.mean(inner, keepdim=True) + y * (d * y).mean(inner, keepdim=True)) * rstd
    dw, db = ((t.sum(outer) if outer else t) for t in (g * y, g))
    return tuple(t if asked else None for t, asked in zip((dx, dw, db), mask))


def same(g, x, normalized, w, b, mask=(True, True, True), routed=True, statistic=None):
    mean, rstd = statistic or statistics(x, normalized, w, b)
    agree(backward, g, x, list(normalized), mean, rstd, w, b, list(mask), op=NAME, routed=routed, sums=16, size=sizes)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_layouts(dtype):
    for shape in SHAPES:
        for inner in range(1, min(len(shape), 2) + 1):
            normalized = shape[-inner:]
            w, b = values(normalized, dtype), values(normalized, dtype)
            for g, x in zip(layouts(shape, dtype)[::-1], layouts(shape, dtype)):
                same(g, x, normalized, w, b, routed=True if inner == 1 else None)
                same(x, g, normalized, w, b, routed=True if inner == 1 else None)


@pytest.mark.parametrize("mask", MASKS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_what_is_asked_for(mask, dtype):
    g, x, w, b = values((9, 40), dtype), values((9, 40), dtype), values((40,), dtype), values((40,), dtype)
    same(g, x, (40,), w, b, mask)
    same(g, x, (40,), w, None, mask[:2] + (False,), routed=any(mask[:2]))
    same(g, x, (40,), None, b, (mask[0], False, mask[2]), routed=mask[0] or mask[2])
    same(g, x, (40,), None, None, (mask[0], False, False), routed=mask[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_f32_weight(dtype):
    for shape in SHAPES[1:]:
        w, b = values(shape[-1:]), values(shape[-1:])
        for g, x in zip(layouts(shape, dtype)[::-1], layouts(shape, dtype)):
            same(g, x, shape[-1:], w, b)
            same(g, x, shape[-1:], w, None, (True, True, False))


@pytest.mark.long
@pytest.mark.parametrize("shape", [(3000, 20), (2, 20_000), (4097, 130)])
def test_large(shape):
    same(values(shape), values(shape), shape[1:], values(shape[1:]), values(shape[1:]))
    same(values(shape).bfloat16(), values(shape).bfloat16(), shape[1:], values(shape[1:]), values(shape[1:]))


def test_special_values():
    for dtype in (torch.float32, torch.bfloat16):
        w, b = values((33,), dtype), values((33,), dtype)
        x, g = special(dtype), values((8, 33), dtype)
        nan = torch.full((8, 1), float("nan"), dtype=dtype)
        for d, s in ((g, x), (x, g)):
            same(d, s, [33], w, b, statistic=(nan, nan))
        agree(backward, x, g, [33], *statistics(g, [33]), w, b, [False, True, True], op=NAME, sums=8, size=sizes)


def test_left_to_the_host():
    x, g, w = values((4, 6)), values((4, 6)), values((6,))
    mean, rstd = statistics(x, [6])
    mask = [True] * 3
    for args in ((g, x, [5], mean, rstd, w, w, mask), (g, x, [6], mean, rstd, None, w, mask), (g, x, [6], mean, rstd, w, None, mask),
                 (g, x, [6], mean, rstd, w, w, [False] * 3), (g[:0], x[:0], [6], mean[:0], rstd[:0], w, w, mask),
                 (g.reshape(2, 2, 6), x, [6], mean, rstd, w, w, mask), (g.bfloat16(), x.bfloat16(), [6], mean, rstd, None, w, mask),
                 (g, x, [6], mean, rstd, values((12,))[::2], w, mask), (g, x, [6], mean, rstd, w.double(), w, mask)):
        agree(backward, *args, op=NAME, routed=False)


def test_through_autograd():
    def step(x, w, b, grads):
        for t, asked in zip((x, w, b), grads):
            t.requires_grad_(asked)
        torch.layer_norm(x, x.shape[-1:], w, b).pow(3).mean().backward()
        return [t.grad for t in (x, w, b)]
    for grads in MASKS:
        agree(step, values((5, 4, 33)), values((33,)), values((33,)), grads, op=NAME, rtol=1e-4, atol=1e-5)
    agree(step, values((5, 33)).bfloat16(), values((33,)), values((33,)), MASKS[0], op=NAME, rtol=2e-2, atol=2e-3)


def test_twice():
    def penalty(x, w, b):
        x.requires_grad_(), w.requires_grad_()
        g, = torch.autograd.grad(torch.layer_norm(x, [8], w, b).pow(2).sum(), x, create_graph=True)
        g.pow(2).sum().backward()
        return x.grad, w.grad
    agree(penalty, values((3, 8)), values((8,)), values((8,)), op=NAME, routed=None, rtol=1e-4, atol=1e-3)


@pytest.mark.long
def test_work_groups():
    def all_of_it():
        for shape in ((300,), (17, 40), (5, 4, 1100), (2000, 33)):
            w, b = values(shape[-1:]), values(shape[-1:])
            for g, x in zip(layouts(shape)[::-1], layouts(shape)):
                same(g, x, shape[-1:], w, b)
                same(g.bfloat16(), x.bfloat16(), shape[-1:], w, None, (True, True, False))
        for mask in MASKS:
            same(values((9, 40)), values((9, 40)), (40,), values((40,)), values((40,)), mask)
    on_groups(all_of_it)


def test_same_bits_each_time():
    args = values((999, 70)), values((999, 70)), [70], *statistics(values((999, 70)), [70]), values((70,)), values((70,)), [True] * 3
    for a, b in zip(backward(*args), backward(*args)):
        assert torch.equal(a, b)
