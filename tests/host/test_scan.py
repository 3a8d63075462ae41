"""cumsum along every dimension of every layout, all dtypes, out form, accuracy."""
import pytest
import torch

import gems
from agree import agree_sized as agree
from inputs import DTYPES, layouts, on_groups, special, values


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_cumsum(dtype):
    for shape in ((), (1,), (7,), (300,), (17, 40), (40, 17), (5, 40, 33)):
        for x in layouts(shape, dtype):
            for dim in range(-1, max(len(shape), 1)):
                agree(torch.cumsum, x, dim, op="cumsum", rtol=1e-2 if dtype == torch.bfloat16 else None)


@pytest.mark.parametrize("to", [torch.float32, torch.float64, torch.int64, torch.int16], ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.uint8, torch.int64, torch.bool], ids=str)
def test_dtype_argument(dtype, to):
    for x in layouts((17, 40), dtype):
        for dim in (0, 1):
            agree(torch.cumsum, x, dim, dtype=to, op="cumsum", routed=to.is_floating_point or not dtype.is_floating_point)


def test_out():
    x = values((6, 40))
    agree(torch.cumsum, x, 1, out=torch.empty(6, 40), op="cumsum.out")
    agree(torch.cumsum, x, 0, out=torch.empty(6, 40), op="cumsum.out")
    agree(torch.cumsum, x, 0, out=torch.empty(40, 6).t(), op="cumsum.out", routed=False)
    agree(torch.cumsum, x, 0, out=torch.empty(0), op="cumsum.out", routed=False)


def test_in_place():
    for dtype in (torch.float32, torch.bfloat16, torch.int64, torch.int32):
        for shape in ((300,), (17, 40), (3, 3000), (5, 40, 64)):
            for dim in range(len(shape)):
                x = values(shape, dtype)
                agree(lambda y: y.cumsum_(dim), x, op="cumsum_", routed=dtype != torch.int32 or None, rtol=1e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-4)
    agree(lambda y: y.cumsum_(0), values((6, 40)).t(), op="cumsum_", routed=False)


def test_special_values_errors_and_empty():
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        for dim in (0, 1):
            agree(torch.cumsum, special(dtype), dim, op="cumsum")
    agree(torch.cumsum, torch.empty(0, 3), 0, op="cumsum", routed=False)
    agree(torch.cumsum, values((3,)), 1, op="cumsum", routed=False)
    agree(torch.cumsum, values((3,), torch.bool), 0, dtype=torch.bool, op="cumsum", routed=False)  # an error


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_cummax(dtype):
    for shape in ((1,), (300,), (17, 40), (5, 40, 33)):
        for x in layouts(shape, dtype):
            for dim in range(-1, len(shape)):
                agree(torch.cummax, x, dim, op="cummax")
    agree(torch.cummin, values((3, 1000), dtype), 1, op="cummin")


def test_cummax_special_values_and_what_is_the_hosts():
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        for dim in (0, 1):
            agree(torch.cummax, special(dtype), dim, op="cummax")
            agree(torch.cummin, special(dtype), dim, op="cummin")
    agree(torch.cummax, torch.tensor(3.0), 0, op="cummax", routed=False)
    agree(torch.cummax, torch.empty(0, 3), 0, op="cummax", routed=False)
    agree(torch.cummin, values((3,)), 1, op="cummin", routed=False)


def test_cumsum_is_as_accurate_as_the_hosts():
    for shape, dim in (((1_000_000,), 0), ((3, 100_000), 1), ((20_000, 40), 0)):
        with gems.off():
            x = torch.rand(shape) - 0.3
            exact = x.double().cumsum(dim)
            host = (x.cumsum(dim) - exact).abs().max()
        ours = torch.cumsum(x, dim)
        with gems.off():
            assert (ours - exact).abs().max() <= host, (shape, dim)


def test_large():
    agree(torch.cumsum, values((300, 1001)), 1, op="cumsum")
    agree(torch.cumsum, values((1001, 300)), 0, op="cumsum")
    agree(torch.cumsum, values((1_000_000,), torch.bool), 0, op="cumsum")


def test_work_groups():
    def all_of_it():
        for shape in ((3000,), (17, 400), (400, 70), (5, 40, 70)):
            for x in layouts(shape):
                for dim in range(len(shape)):
                    agree(torch.cumsum, x, dim, op="cumsum")
        agree(torch.cumsum, special(), 1, op="cumsum")
        test_in_place()
        test_cummax(torch.float32)
        agree(torch.cummin, special(), 1, op="cummin")
        agree(torch.cumsum, values((9, 700), torch.uint8), 1, op="cumsum")
    on_groups(all_of_it)
