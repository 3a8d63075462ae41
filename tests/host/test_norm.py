"""layer_norm, rms_norm and batch_norm: results, saved statistics, mixed dtypes, layouts."""
import pytest
import torch

import gems
from agree import agree_sized as agree
from inputs import FLOATS, layouts, on_groups, special, values

# One element a row is its own mean: 0 by subtraction, a few last places of x * rstd in the host's form.
WIDE = {torch.float32: {"rtol": 1e-5, "atol": 1e-5}, torch.float64: {}, torch.float16: {"atol": 1e-4},
        torch.bfloat16: {"atol": 1e-4}}
SHAPES = [(1,), (7,), (300,), (17, 40), (5, 4, 33), (2, 3, 4, 5)]


def affine(shape, dtype):
    """Weight and bias, each there or not."""
    w, b = values(shape, dtype), values(shape, dtype)
    return [(None, None), (w, None), (None, b), (w, b)] if dtype == torch.float32 else [(None, None), (w, b)]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_layer_norm(dtype):
    for shape in SHAPES:
        for inner in range(1, min(len(shape), 2) + 1):
            normalized = list(shape[-inner:])
            for x in layouts(shape, dtype):
                rows_are_walks = inner == 1 or x.is_contiguous() or x.shape[-2:].numel() == x.shape[-1]
                for w, b in affine(normalized, dtype):
                    routed = True if rows_are_walks else None
                    agree(torch.native_layer_norm, x, normalized, w, b, 1e-5, op="native_layer_norm", routed=routed, **WIDE[dtype])
                    agree(torch.layer_norm, x, normalized, w, b, op="layer_norm", routed=routed, **WIDE[dtype])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_layer_norm_with_f32_weight(dtype):
    for shape in SHAPES[2:]:
        w, b = values(shape[-1:]), values(shape[-1:])
        for x in layouts(shape, dtype):
            agree(torch.native_layer_norm, x, shape[-1:], w, b, 1e-5, op="native_layer_norm", **WIDE[dtype])
    agree(torch.native_layer_norm, values((3, 8), dtype), [8], w[:8].double(), None, 1e-5, op="native_layer_norm", routed=False)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_rms_norm(dtype):
    for shape in SHAPES:
        for inner in range(1, min(len(shape), 2) + 1):
            normalized = list(shape[-inner:])
            w = values(normalized, dtype)
            for i, x in enumerate(layouts(shape, dtype)):
                for weight in (None, w):
                    for eps in (None, 1e-6):
                        agree(torch.rms_norm, x, normalized, weight, eps, op="rms_norm", routed=True if i == 0 else None, **WIDE[dtype])
                        agree(torch._fused_rms_norm, x, normalized, weight, eps, op="_fused_rms_norm",
                              routed=True if i == 0 else None, **WIDE[dtype])


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_group_norm(dtype):
    for shape, groups in (((2, 6, 16), 3), ((3, 12, 5, 7), 1), ((1, 8, 4, 4), 8), ((2, 32, 16, 16), 8)):
        span = torch.Size(shape[2:]).numel()
        for w, b in affine(shape[1:2], dtype):
            x = values(shape, dtype)
            agree(torch.native_group_norm, x, w, b, shape[0], shape[1], span, groups, 1e-5, op="native_group_norm", **WIDE[dtype])
            agree(torch.group_norm, x, groups, w, b, op="native_group_norm", **WIDE[dtype])
    if dtype in (torch.float16, torch.bfloat16):
        agree(torch.native_group_norm, values((2, 6, 16), dtype), values((6,)), values((6,)), 2, 6, 16, 3, 1e-5,
              op="native_group_norm", **WIDE[dtype])
    x = values((2, 8, 3, 5), dtype)  # channels last, or too short: the host's
    agree(torch.group_norm, x.contiguous(memory_format=torch.channels_last), 4, op="native_group_norm", routed=False)
    agree(torch.group_norm, values((4, 8), dtype), 4, op="native_group_norm", routed=False)


def test_channels_last_is_kept():
    x = values((2, 3, 4, 5)).contiguous(memory_format=torch.channels_last)
    agree(torch.rms_norm, x, [5], op="rms_norm", routed=None)
    agree(torch.layer_norm, x, [5], op="layer_norm")


def test_gradient():
    def both(x, w, b):
        x = x.clone().requires_grad_()
        torch.layer_norm(x, [40], w, b).square().sum().backward()
        return x.grad
    agree(both, values((17, 40)), values((40,)), values((40,)), op="native_layer_norm", rtol=1e-4, atol=1e-4)


def test_special_values():
    for x in (special(), special(torch.bfloat16)):
        agree(torch.layer_norm, x, [33], op="layer_norm")
        agree(torch.rms_norm, x, [33], op="rms_norm")
    far = values((5, 400)) + 1e4  # nothing cancels
    agree(torch.layer_norm, far, [400], op="layer_norm", rtol=2e-3, atol=2e-3)
    same = torch.full((3, 50), 2.5)
    agree(torch.layer_norm, same, [50], op="layer_norm")


def test_long_rows_are_as_accurate_as_the_hosts():
    for shape, transposed in (((1, 1_000_000), False), ((20_000, 20), True)):
        with gems.off():
            x = values(shape)
            x = x.t() if transposed else x
            exact, host = (torch.native_layer_norm(t, x.shape[1:], None, None, 1e-5) for t in (x.double(), x))
        ours = torch.native_layer_norm(x, x.shape[1:], None, None, 1e-5)
        with gems.off():
            for e, h, o in zip(exact, host, ours):
                assert (o - e).abs().max() <= max(1.5 * (h - e).abs().max(), 1e-7), shape


def test_errors_and_empty():
    x = values((4, 5))
    agree(torch.layer_norm, x, [4], op="layer_norm", routed=False)
    agree(torch.layer_norm, x, [5], values((4,)), op="layer_norm", routed=False)
    agree(torch.layer_norm, values((4, 5), torch.int32), [5], op="layer_norm", routed=False)
    agree(torch.layer_norm, torch.empty(0, 5), [5], op="layer_norm", routed=False)
    agree(torch.rms_norm, x.bfloat16(), [5], values((5,)), op="rms_norm", routed=None)


def test_work_groups():
    def all_of_it():
        for shape in ((300,), (17, 40), (5, 4, 1100)):
            for x in layouts(shape):
                if x.stride(-1) == 0:
                    # A row of equal elements is exactly 0 here; in the host's form (x * rstd - mean * rstd) it is what
                    # rounding leaves of 300 times the value. So it is not compared, but held to be 0.
                    before = gems.counters("native_layer_norm").routed
                    assert not torch.native_layer_norm(x, shape[-1:], None, None, 1e-5)[0].any()
                    assert gems.counters("native_layer_norm").routed > before
                    continue
                w, b = values(shape[-1:]), values(shape[-1:])
                agree(torch.native_layer_norm, x, shape[-1:], w, b, 1e-5, op="native_layer_norm", rtol=1e-5)
                agree(torch.rms_norm, x, shape[-1:], w, op="rms_norm", routed=None, rtol=1e-5)
    on_groups(all_of_it)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_batch_norm(dtype):
    last = torch.channels_last
    inputs = [x for shape in ((2, 8, 5, 6), (5, 8), (2, 8, 7), (1, 8, 1, 1), (2, 8, 3, 4, 5)) for x in layouts(shape, dtype)]
    inputs += [values((2, 8, 5, 6), dtype).to(memory_format=last), values((2, 11, 5, 6), dtype).to(memory_format=last)[:, :8],
               values((2, 8, 3, 4, 5), dtype).to(memory_format=torch.channels_last_3d)]
    for of in {dtype, torch.float32 if dtype.itemsize == 2 else dtype}:
        mean, variance = values((16,), of)[::2], values((8,), of).abs()
        for x in inputs:
            for w, b in affine((8,), of):
                agree(torch.native_batch_norm, x, w, b, mean, variance, False, 0.1, 1e-3, op="native_batch_norm")


def test_batch_norm_of_special_values():
    nan, inf = float("nan"), float("inf")
    x = special()[None]
    mean, variance = torch.tensor([0.0, nan, inf, 1, 1, 1, 1, 1]), torch.tensor([1.0, 1, 1, nan, inf, 0, -1, 1e-30])
    agree(torch.native_batch_norm, x, None, None, mean, variance, False, 0.1, 0.0, op="native_batch_norm")
    agree(torch.native_batch_norm, x, None, None, mean.nan_to_num(0, 0, 0), variance.abs(), False, 0.1, 1e-5, op="native_batch_norm")


def test_batch_norm_left_to_the_host():
    x, w, m, v = values((2, 8, 5, 6)), values((8,)), values((8,)), values((8,)).abs()
    for args in ((x, w, w, m, v, True, 0.1, 1e-5), (x, None, None, None, None, True, 0.1, 1e-5), (x[:0], w, w, m, v, False, 0.1, 1e-5),
                 (x, w.double(), None, m, v, False, 0.1, 1e-5), (x.double(), w, w, m, v, False, 0.1, 1e-5),
                 (x.bfloat16(), w, w, m.bfloat16(), v, False, 0.1, 1e-5)):
        agree(torch.native_batch_norm, *args, op="native_batch_norm", routed=False)


@pytest.mark.parametrize("grad", [False, True])
def test_batch_norm_modules(grad):
    for module, x in ((torch.nn.BatchNorm2d(8), values((2, 8, 5, 6))), (torch.nn.BatchNorm1d(8, affine=False), values((5, 8)))):
        module.eval()

        def run(t):
            with torch.set_grad_enabled(grad):
                y = module(t)
            if grad:
                y.square().sum().backward()
            return y.detach(), t.grad
        agree(run, x.requires_grad_(), op="native_batch_norm")
