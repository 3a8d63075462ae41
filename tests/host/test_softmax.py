"""softmax and log_softmax, forward and backward, along every dimension of every layout."""
import pytest
import torch

import gems
from agree import agree_sized as agree
from inputs import FLOATS, layouts, on_groups, special, values

SHAPES = [(), (7,), (300,), (17, 40), (5, 40, 33), (2, 3, 4, 5)]


def dims(shape):
    return range(-1, max(len(shape), 1))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_forward(name, dtype):
    # Beside the last dimension the host rounds log_softmax of half types several times.
    wide = {"atol": 2e-2 if dtype == torch.bfloat16 else 4e-3} if dtype.itemsize == 2 and name == "log_softmax" else {}
    for shape in SHAPES:
        for x in layouts(shape, dtype):
            for dim in dims(shape):
                agree(getattr(torch, name), x, dim, op=name + ".int", **wide)
                agree(getattr(torch, "_" + name), x, dim, False, op="_" + name, **wide)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_half_types_are_rounded_once(name, dtype):
    for dim in (0, 1):
        x = values((40, 60), dtype)
        ours = getattr(torch, name)(x, dim)
        with gems.off():
            exact = getattr(torch, name)(x.double(), dim)
            place = torch.finfo(dtype).eps / 2 * exact.abs() + torch.finfo(dtype).smallest_normal
            assert bool(((ours.double() - exact).abs() <= 1.01 * place).all())


@pytest.mark.parametrize("name", [pytest.param("softmax", marks=pytest.mark.long), "log_softmax"])
def test_dtype_argument(name):
    fn, op = getattr(torch, name), name + ".int"
    for dtype in [torch.bfloat16, torch.int64]:
        for x in layouts((17, 40), dtype):
            agree(fn, x, 1, dtype=torch.float32, op=op)
    agree(fn, values((5, 40), torch.bfloat16), 0, dtype=torch.float32, op=op)
    agree(fn, values((5,)), 0, dtype=torch.float64, op=op)
    agree(fn, values((5, 7)), 1, dtype=torch.bfloat16, op=op, routed=False)
    agree(fn, values((5, 7), torch.int32), 1, op=op, routed=False)  # an error
    agree(getattr(torch, "_" + name), values((5, 7), torch.float16), 1, True, op="_" + name, routed=False)  # an error


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_backward(name, dtype):
    for shape in SHAPES:
        for dim in dims(shape):
            y = getattr(torch, name)(values(shape, dtype), dim)
            for g in layouts(shape, dtype):
                wide = {"rtol": 2e-5, "atol": 2e-5} if dtype == torch.float32 else {}
                agree(getattr(torch, f"_{name}_backward_data"), g, y, dim, dtype, op=f"_{name}_backward_data", **wide)


def test_gradient():
    for name in ("softmax", "log_softmax"):
        def both(x):
            x = x.clone().requires_grad_()
            getattr(torch, name)(x, 1).square().sum().backward()
            return x.grad
        agree(both, values((17, 40)), op="_" + name, routed=None, rtol=1e-5)


def test_special_values():
    x = special()
    for t in (x, x.t().contiguous()):
        for dim in (0, 1):
            agree(torch.softmax, t, dim, op="softmax.int")
            agree(torch.log_softmax, t, dim, op="log_softmax.int")
    agree(torch.softmax, torch.tensor([[1e4, 1e4 - 1], [-1e4, 1e4]]), 1, op="softmax.int")
    agree(torch.softmax, torch.empty(0, 3), 1, op="softmax.int", routed=False)
    agree(torch.softmax, values((3,)), 1, op="softmax.int", routed=False)  # an error


def test_large():
    for shape, dim in (((600, 1001), 1), ((1001, 600), 0), ((3, 200_000), 1)):
        agree(torch.softmax, values(shape), dim, op="softmax.int", rtol=1e-5)
        agree(torch.log_softmax, values(shape), dim, op="log_softmax.int", rtol=1e-5)


def test_work_groups():
    def all_of_it():
        for shape in ((300,), (17, 400), (400, 17), (5, 40, 70), (2, 3, 4, 5)):
            for x in layouts(shape):
                for dim in range(len(shape)):
                    agree(torch.softmax, x, dim, op="softmax.int")
        agree(torch.log_softmax, special(), 1, op="log_softmax.int")
        agree(torch.log_softmax, values((9, 400), torch.bfloat16), 1, op="log_softmax.int")
        y = torch.softmax(values((9, 400)), 1)
        agree(torch._softmax_backward_data, values((9, 400)), y, 1, torch.float32, op="_softmax_backward_data")
    on_groups(all_of_it)
