"""Convolutions: values, layouts, groups, dilation, padding, dtypes, modules below autograd, and errors of the host."""
import ctypes

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import gems
from agree import agree
from inputs import FLOATS, layouts, values

OP = "convolution"
LAST = torch.channels_last


def near(x, w, b=None, stride=1, padding=0, dilation=1, groups=1, **kwargs):
    def pair(v):
        return [v] * (x.dim() - 2) if isinstance(v, int) else list(v)
    agree(torch.convolution, x, w, b, pair(stride), pair(padding), pair(dilation), False, pair(0), groups, op=OP, sums=w[:1].numel(), **kwargs)


def operands(xs, ws, dtype=torch.float32, last=(False, False)):
    x, w = values(xs, dtype), values(ws, dtype)
    return x.to(memory_format=LAST) if last[0] else x, w.to(memory_format=LAST) if last[1] else w, values(ws[:1], dtype)


# Input, weight, and what windows have.
CASES = [
    ((2, 8, 9, 10), (12, 8, 3, 3), {}),
    ((2, 8, 9, 10), (12, 8, 3, 3), {"padding": 1}),
    ((2, 8, 9, 10), (12, 8, 3, 3), {"stride": (2, 3), "padding": (0, 2), "dilation": (1, 2)}),
    ((1, 3, 40, 37), (64, 3, 7, 7), {"stride": 2, "padding": 3}),
    ((3, 16, 20, 20), (70, 16, 1, 1), {}),
    ((3, 16, 20, 20), (70, 16, 1, 1), {"stride": 2}),
    ((2, 3, 32, 48), (40, 3, 16, 16), {"stride": 16}),
    ((2, 4, 3, 3), (5, 4, 3, 3), {"padding": 7}),
    ((2, 140, 9, 9), (33, 140, 3, 3), {"padding": 1}),
    ((16, 8, 3, 3), (140, 8, 3, 3), {"padding": 1}),
    ((1, 1, 1, 1), (1, 1, 1, 1), {}),
    ((2, 8, 9, 10), (8, 1, 3, 3), {"padding": 1, "groups": 8}),
    ((2, 8, 9, 10), (16, 1, 3, 3), {"padding": 1, "groups": 8, "stride": 2}),
    ((2, 12, 9, 10), (36, 4, 3, 3), {"padding": 1, "groups": 3}),
    ((2, 6, 9, 10), (60, 3, 1, 3), {"padding": 2, "groups": 2, "dilation": 3}),
]


@pytest.mark.parametrize("last", [(False, False), (True, False), (False, True), (True, True)], ids=str)
@pytest.mark.parametrize("xs,ws,how", CASES, ids=str)
def test_shapes(xs, ws, how, last):
    x, w, b = operands(xs, ws, last=last)
    near(x, w, b, **how)
    near(x, w, **how)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_dtypes(dtype):
    for xs, ws, how in CASES[1:4] + CASES[8:9] + CASES[11:14]:
        for last in ((False, False), (True, True)):
            x, w, b = operands(xs, ws, dtype, last)
            near(x, w, b, **how)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_signals(dtype):
    for xs, ws, how in (((2, 8, 30), (12, 8, 3), {"padding": 1}), ((2, 8, 31), (4, 4, 5), {"groups": 2, "stride": 2, "dilation": 2, "padding": 9}),
                        ((2, 1, 30), (12, 1, 3), {}), ((2, 8, 1), (12, 8, 1), {}), ((1, 1, 30), (1, 1, 1), {})):
        near(*operands(xs, ws, dtype), **how)
        x, w, b = operands((xs[0], xs[2], xs[1]), (ws[0], ws[2], ws[1]), dtype)
        near(x.transpose(1, 2), w.transpose(1, 2), b, **how)
        near(x.transpose(1, 2), values(ws, dtype), **how)


def test_layouts():
    for x in layouts((2, 5, 7, 9)):
        for w in layouts((4, 5, 3, 2)):
            near(x, w, padding=1)
    x, w, b = operands((2, 8, 9, 10), (12, 8, 3, 3))
    near(x.to(memory_format=LAST)[:, 1:6], w[:, :5], b)
    near(x[:, :, ::2, 1:], w, values((24,))[::2], padding=(1, 0))
    near(x[:, :1].expand(2, 8, 9, 10), w, values((1,)).expand(12))


def test_special_values():
    nan, inf = float("nan"), float("inf")
    x, w, b = operands((2, 8, 9, 10), (12, 8, 3, 3))
    x[0, 3, 4, 4], x[1, 2, 0, 0], b[3] = nan, inf, -inf
    for last in (False, True):
        near(x.to(memory_format=LAST) if last else x, w, b)
        near(x, w.to(memory_format=LAST) if last else w, b, padding=1)


@pytest.mark.long
@pytest.mark.parametrize("variant", ["direct", "gpu", "cpu"])
def test_variants(variant):
    error = ctypes.create_string_buffer(256)
    table = f'{{"rules": [{{"op": "convolution", "variant": "{variant}", "params": {{"lane": 0}}}}]}}'
    assert gems.lib.gems_table_set(table.encode(), error, len(error)) == 0, error.value
    try:
        for xs, ws, how in CASES[1:5] + CASES[7:10] + CASES[13:]:
            for last in ((False, False), (True, False), (True, True)):
                x, w, b = operands(xs, ws, last=last)
                near(x, w, b, **how)
    finally:
        gems.lib.gems_table_set(None, None, 0)


# 0 images, and what the host refuses or means another way.
def test_left_to_the_host():
    x, w, b = operands((2, 8, 9, 10), (12, 8, 3, 3))
    one, none = [1, 1], [0, 0]
    for args in ((x[:0], w, b, one, none, one, False, none, 1),
                 (x, w, b, one, none, one, True, none, 1),
                 (x.to(torch.bfloat16), w, b, one, none, one, False, none, 1),
                 (x, w, b.double(), one, none, one, False, none, 1),
                 (x, w[:, :7], b, one, none, one, False, none, 1),
                 (x, w, b[:11], one, none, one, False, none, 1),
                 (x, w, b, one, none, one, False, none, 3),
                 (x, w, b, one, none, one, False, none, 0),
                 (x, w, b, [0, 1], none, one, False, none, 1),
                 (x, w, b, one, [-1, 0], one, False, none, 1),
                 (x, w, b, one, none, [0, 1], False, none, 1),
                 (x, w, b, one, none, [9, 9], False, none, 1),
                 (x, w, b, [1, 1, 1], none, one, False, none, 1),
                 (x[:, :, :2], w, b, one, none, one, False, none, 1),
                 (x[0], w, b, one, none, one, False, none, 1),
                 (x.long(), w.long(), None, one, none, one, False, none, 1),
                 (x.to(torch.complex64), w.to(torch.complex64), None, one, none, one, False, none, 1)):
        agree(torch.convolution, *args, op=OP, routed=False)
    volume = torch.randn(1, 2, 4, 5, 6)
    agree(F.conv3d, volume, torch.randn(3, 2, 2, 2, 2), op=OP, routed=False)


@pytest.mark.parametrize("grad", [False, True])
def test_modules(grad):
    for module, x in ((nn.Conv2d(8, 12, 3, padding=1), values((2, 8, 9, 10))), (nn.Conv2d(8, 12, 3, padding="same", dilation=2), values((8, 9, 10))),
                      (nn.Conv2d(8, 8, 3, groups=8, padding_mode="circular", padding=1), values((2, 8, 9, 10))),
                      (nn.Conv1d(8, 12, 3, stride=2), values((2, 8, 20)))):
        def run(weight, bias, t):
            with torch.set_grad_enabled(grad):
                y = torch.func.functional_call(module, {"weight": weight, "bias": bias}, (t,))
            if grad:
                y.square().sum().backward()
            return [y.detach(), weight.grad, bias.grad, t.grad]
        agree(run, *(t.detach().clone().requires_grad_() for t in (module.weight, module.bias, x)), op=OP, rtol=2e-5, atol=2e-5)
