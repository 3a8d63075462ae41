"""Pooling of images: max_pool2d with indices, avg_pool2d, adaptive_avg_pool2d: values, layouts, NaN and ties, ceil_mode, errors."""
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from agree import agree_sized as agree
from inputs import FLOATS, layouts, values

MAX, AVERAGE, ADAPTIVE = "max_pool2d_with_indices", "avg_pool2d", "_adaptive_avg_pool2d"
maximum, average, adaptive = (getattr(torch.ops.aten, name) for name in (MAX, AVERAGE, ADAPTIVE))
LAST = torch.channels_last


def images(dtype=torch.float32):
    return layouts((2, 3, 9, 12), dtype) + layouts((3, 9, 12), dtype) + [
        values((2, 3, 9, 12), dtype).to(memory_format=LAST), values((2, 5, 9, 12), dtype).to(memory_format=LAST)[:, 1:4],
        values((1, 1, 9, 12), dtype), values((2, 1, 9, 12), dtype).to(memory_format=LAST)]


# Window, stride, padding, dilation, ceil_mode.
WINDOWS = [([3, 3], [2, 2], [1, 1], [1, 1], False), ([2], [], [0], [1], False), ([2, 3], [1, 2], [1, 0], [2, 3], False),
           ([3, 2], [2, 3], [1, 1], [1, 1], True), ([4], [3], [2], [1], True), ([9, 12], [1], [0], [1], False),
           ([1, 1], [5, 5], [0, 0], [1, 1], True), ([5], [1], [2], [2], True)]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_max(dtype):
    for x in images(dtype):
        for how in WINDOWS:
            agree(maximum, x, *how, op=MAX, atol=0, rtol=0)
            agree(maximum, x.round(), *how, op=MAX, atol=0, rtol=0)


def test_max_of_special_values():
    nan, inf = float("nan"), float("inf")
    x = values((2, 3, 9, 12)).round()
    x[0, 0, 2:4, 3:6] = nan
    x[0, 1] = -inf
    x[0, 2, 4, :] = inf
    x[1, 0] = nan
    x[1, 1, ::2] = -0.0
    x[1, 1, 1::2] = 0.0
    for how in WINDOWS:
        for dtype in FLOATS:
            agree(maximum, x.to(dtype), *how, op=MAX, atol=0, rtol=0)
            agree(maximum, x.to(dtype).to(memory_format=LAST), *how, op=MAX, atol=0, rtol=0)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_average(dtype):
    for x in images(dtype):
        for window, stride, padding, dilation, ceil in WINDOWS:
            if all(2 * p <= k for p, k in zip(padding, window)):
                for outside in (True, False):
                    agree(average, x, window, stride, padding, ceil, outside, None, op=AVERAGE)
                agree(average, x, window, stride, padding, ceil, True, 7, op=AVERAGE)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_adaptive(dtype):
    for x in images(dtype):
        for size in ([1, 1], [3, 4], [5, 7], [9, 12], [11, 25], [2, 1]):
            agree(adaptive, x, size, op=ADAPTIVE)


def test_averages_of_special_values():
    x = values((1, 2, 6, 8))
    x[0, 0, 1, 2], x[0, 0, 4, 5], x[0, 1, 3, 3] = float("nan"), float("inf"), -float("inf")
    agree(average, x, [3, 3], [1, 1], [1, 1], op=AVERAGE)
    agree(adaptive, x, [3, 3], op=ADAPTIVE)


def test_left_to_the_host():
    x = values((2, 3, 9, 12))
    for args in ((x[:0], [2, 2]), (x[:, :0], [2, 2]), (x, [0, 2]), (x, [2, 2], [0, 1]), (x, [2, 2], [1, 1], [2, 2]), (x, [2, 2, 2]), (x, [10, 2]),
                 (x, [2, 2], [1, 1], [-1, 0]), (x, [2, 2], [1, 1], [0, 0], [0, 1]), (x[0, 0], [2, 2]), (x.long(), [2, 2])):
        agree(maximum, *args, op=MAX, routed=False)
    for args in ((x[:0], [2, 2]), (x, [0, 2]), (x, [2, 2], [1, 1], [2, 2]), (x, [10, 2]), (x, [2, 2], [1, 1], [0, 0], False, True, 0), (x.long(), [2, 2])):
        agree(average, *args, op=AVERAGE, routed=False)
    for args in ((x[:0], [2, 2]), (x, [0, 2]), (x, [-1, 2]), (x[0, 0], [2, 2]), (x.long(), [2, 2])):
        agree(adaptive, *args, op=ADAPTIVE, routed=False)


@pytest.mark.parametrize("grad", [False, True])
def test_modules(grad):
    for module, op in ((nn.MaxPool2d(3, 2, 1), MAX), (nn.MaxPool2d(2, return_indices=True), MAX), (nn.AvgPool2d(3, 2, 1), AVERAGE), (nn.AvgPool1d(2), AVERAGE),
                       (nn.AdaptiveAvgPool2d((3, 5)), ADAPTIVE), (nn.AdaptiveAvgPool2d(1), "mean.dim")):
        def run(t):
            with torch.set_grad_enabled(grad):
                y = module(t)
            first = y[0] if isinstance(y, tuple) else y
            if grad:
                first.square().sum().backward()
            return first.detach(), t.grad
        agree(run, values((3, 9, 12) if isinstance(module, nn.AvgPool1d) else (2, 3, 9, 12)).requires_grad_(), op=op)
    with torch.no_grad():
        agree(F.max_pool2d, values((2, 3, 9, 12)), 3, op=MAX)
