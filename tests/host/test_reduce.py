"""Reductions: every dtype, layout, set of dims, keepdim, dtype argument and out form; accuracy; NaN; empty inputs."""
import itertools

import pytest
import torch

import gems
from agree import agree_sized as agree
from inputs import DTYPES, layouts, on_groups, special, values

LISTS = ["sum.dim_IntList", "mean.dim", "amax", "amin"]  # dims as a list
WHOLE = ["sum", "mean", "prod", "max", "min", "any", "all", "count_nonzero"]


def function(op):
    return getattr(torch, op.split(".")[0])


def takes(op, dtype):
    return not (op.startswith("mean") and not dtype.is_floating_point)


def close(op, dtype):
    """The host adds f16 and bf16 in f32 too, but rounds a product after each step of its own tree."""
    if op.startswith("prod") and dtype in (torch.float16, torch.bfloat16):
        return {"rtol": 0.05, "atol": 1e-3}
    return {}


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64], ids=str)
@pytest.mark.parametrize("op", WHOLE)
def test_whole(op, dtype):
    for shape in ((), (7,), (300,), (17, 40), (3, 4, 5)):
        for x in layouts(shape, dtype):
            agree(function(op), x, op=op, routed=takes(op, dtype), **close(op, dtype))


@pytest.mark.parametrize("op", LISTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.int32], ids=str)
def test_dims(op, dtype):
    for shape in ((6,), (40, 17), (5, 40, 33), (2, 3, 4, 5)):
        for x in layouts(shape, dtype):
            for n in range(1, len(shape) + 1):
                for dims in itertools.combinations(range(len(shape)), n):
                    agree(function(op), x, dims, n % 2 == 0, op=op, routed=takes(op, dtype))
            agree(function(op), x, [-1], True, op=op, routed=takes(op, dtype))


@pytest.mark.parametrize("op,dtype", [("any", torch.bool), ("all", torch.uint8)], ids=str)
def test_any_all_dims(op, dtype):
    for shape in ((6,), (17, 40), (5, 40, 3)):
        for x in layouts(shape, dtype):
            x = x * (values(shape) > 1.5)
            for dim in range(-1, len(shape)):
                agree(function(op), x, dim, True, op=op + ".dim")
                agree(function(op), x, (dim,), False, op=op + ".dims")
            agree(function(op), x, tuple(range(len(shape))), op=op + ".dims")
    agree(function(op), values((3, 4), dtype), (), op=op + ".dims", routed=False)  # no dim: not a reduction


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8], ids=str)
def test_one_dim(dtype):
    for x in layouts((9, 40, 5), dtype):
        for dim in range(-1, 3):
            agree(torch.prod, x, dim, dim == 1, op="prod.dim_int", rtol=1e-5)
            agree(torch.count_nonzero, x, dim, op="count_nonzero")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_amax_every_dtype(dtype):
    for shape in ((40, 70),):
        for x in layouts(shape, dtype):
            for dim in (0, 1):
                agree(torch.amax, x, dim, op="amax")
            agree(torch.sum, x, 1, op="sum.dim_IntList")


@pytest.mark.parametrize("to", [torch.float32, torch.int32], ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.uint8, torch.int64], ids=str)
def test_dtype_argument(dtype, to):
    routed = to.is_floating_point or not dtype.is_floating_point
    for x in layouts((7, 40), dtype):
        agree(torch.sum, x, dtype=to, op="sum", routed=routed)
        agree(torch.sum, x, 0, dtype=to, op="sum.dim_IntList", routed=routed)
        agree(torch.mean, x, 1, dtype=to, op="mean.dim", routed=to.is_floating_point)


def test_dtype_that_rounds_each_element_is_the_hosts():
    agree(torch.sum, values((40,)), dtype=torch.float16, op="sum", routed=False)
    agree(torch.sum, values((40,)) * 3, dtype=torch.int64, op="sum", routed=False)
    agree(torch.sum, values((40,), torch.int64), dtype=torch.bool, op="sum", routed=False)


def test_out():
    x = values((6, 40))
    agree(torch.sum, x, 1, out=torch.empty(6), op="sum.IntList_out")
    agree(torch.sum, x, 1, True, out=torch.empty(6, 1), op="sum.IntList_out")
    agree(torch.amax, x, 0, out=torch.empty(40), op="amax.out")
    agree(torch.mean, x, 0, out=torch.empty(40), op="mean.out")
    agree(torch.any, x, 1, out=torch.empty(6, dtype=torch.bool), op="any.out")
    agree(torch.max, x, out=torch.empty(()), op="max.unary_out")
    agree(torch.max, x, 1, out=(torch.empty(6), torch.empty(6, dtype=torch.int64)), op="max.dim_max")
    agree(torch.sum, x, 1, out=torch.empty(6, 2)[:, 0], op="sum.IntList_out", routed=False)
    agree(torch.sum, x, 1, out=torch.empty(0), op="sum.IntList_out", routed=False)  # to be resized
    agree(torch.sum, x, 1, out=torch.empty(6, dtype=torch.float64), op="sum.IntList_out", routed=False)
    agree(torch.amax, x, 0, out=torch.empty(40, dtype=torch.int64), op="amax.out", routed=False)  # an error


@pytest.mark.parametrize("dtype", [torch.float32], ids=str)
def test_special_values(dtype):
    x = special(dtype)
    for t in (x, x.t().contiguous()):
        for dim in (0, 1):
            for op in LISTS:
                agree(function(op), t, dim, op=op)
            agree(torch.prod, t, dim, op="prod.dim_int")
            agree(torch.any, t, dim, op="any.dim")
            agree(torch.count_nonzero, t, dim, op="count_nonzero")
    for op in WHOLE:
        agree(function(op), x, op=op)


def test_errors_and_empty():
    x = values((4, 5))
    agree(torch.sum, x, 2, op="sum.dim_IntList", routed=False)
    agree(torch.sum, x, (0, 0), op="sum.dim_IntList", routed=False)
    agree(torch.mean, values((4,), torch.int32), op="mean", routed=False)
    for shape in ((0,), (0, 3), (3, 0)):
        e = torch.empty(shape)
        for op in WHOLE:
            agree(function(op), e, op=op, routed=False)
        for op in LISTS:
            agree(function(op), e, 0, op=op, routed=False)


def test_sum_is_as_accurate_as_the_hosts():
    def sums():
        for shape, dim in (((3_000_000,), 0), ((30, 100_000), 1), ((100_000, 40), 0), ((100_000, 3), 0), ((1 << 24,), 0)):
            with gems.off():
                x = torch.rand(shape) + 0.5
                exact = x.double().sum(dim)
                host = (x.sum(dim) - exact).abs().max()
            ours = torch.sum(x, dim)
            with gems.off():
                error = (ours - exact).abs().max()
                half_a_place = exact.max() * 2.0 ** -24
                assert error <= max(host, half_a_place), (shape, dim, error, host)
    sums()
    for splits in (1, 3, 500):
        on_groups(sums, splits)


def test_same_bits_each_time():
    for x, dim in ((values((1_000_000,)), 0), (values((2000, 300)), 0), (values((2000, 300)), 1)):
        first = torch.sum(x, dim)
        for _ in range(5):
            assert torch.equal(torch.sum(x, dim), first)


@pytest.mark.long
def test_large():
    x = values((3000, 1001))
    agree(torch.sum, x, op="sum", rtol=1e-5, atol=1e-2)
    for dim in (0, 1, (0, 1)):
        agree(torch.sum, x, dim, op="sum.dim_IntList", rtol=1e-5, atol=1e-3)
        agree(torch.amax, x, dim, op="amax")
    agree(torch.sum, values((300, 40, 80))[:, ::2], (0, 2), op="sum.dim_IntList", rtol=1e-5, atol=1e-3)
    agree(torch.count_nonzero, values((1_000_000,), torch.bool), op="count_nonzero")


def test_work_groups():
    def all_of_it():
        for shape in ((300,), (17, 400)):
            for x in layouts(shape):
                agree(torch.sum, x, op="sum", rtol=1e-5, atol=1e-4)
                for dim in range(len(shape)):
                    agree(torch.sum, x, dim, op="sum.dim_IntList")
                    agree(torch.amax, x, dim, True, op="amax")
        x = special()
        for dim in (0, 1):
            agree(torch.sum, x, dim, op="sum.dim_IntList")
            agree(torch.amax, x, dim, op="amax")
        agree(torch.sum, values((40, 300), torch.int8), 1, op="sum.dim_IntList")
    on_groups(all_of_it)


def vector_norms():
    for shape in ((300,), (40, 17), (5, 40, 33), (3, 20_000)):
        for x in layouts(shape):
            for dim in (None, 0, -1, (0, -1)) if len(shape) > 1 else (None, 0):
                agree(torch.linalg.vector_norm, x, 2, dim, op="linalg_vector_norm", rtol=1e-5)  # the host adds up plainly
    for dtype in torch.float16, torch.bfloat16, torch.float64:
        agree(torch.linalg.vector_norm, values((40, 300), dtype), 2.0, 1, True, op="linalg_vector_norm")
        agree(torch.linalg.vector_norm, special(dtype), dim=1, op="linalg_vector_norm")
    agree(torch.linalg.vector_norm, special(), dim=0, op="linalg_vector_norm")


def test_vector_norm():
    vector_norms()
    x = values((40, 300))
    agree(torch.linalg.vector_norm, x.half(), dtype=torch.float32, op="linalg_vector_norm")
    agree(torch.linalg.vector_norm, x, dim=1, out=torch.empty(40), op="linalg_vector_norm.out")
    for other in 0, 1, 3, 0.5, -2, float("inf"):
        agree(torch.linalg.vector_norm, x, other, 1, op="linalg_vector_norm", routed=False)
    agree(torch.linalg.vector_norm, torch.empty(0, 3), op="linalg_vector_norm", routed=False)
    agree(torch.linalg.vector_norm, x.int(), op="linalg_vector_norm", routed=False)  # an error
    on_groups(vector_norms)


def test_vector_norm_is_as_accurate_as_the_hosts():
    def norms():
        for shape, dim in (((1_000_000,), 0), ((3, 100_000), 1), ((20_000, 40), 0)):
            with gems.off():
                x = torch.rand(shape) - 0.3
                exact = x.double().norm(dim=dim)
                host = (x.norm(dim=dim) - exact).abs().max()
            ours = torch.linalg.vector_norm(x, dim=dim)
            with gems.off():
                assert ((ours - exact).abs().max() <= 2 * host + exact.max() * 1.2e-7), (shape, dim)
    norms()
    on_groups(norms)


# ---- argmax, argmin, max.dim, min.dim ----

ARG_CASES = [("argmax", torch.float32), ("argmax", torch.bfloat16), ("argmax", torch.int64), ("argmax", torch.uint8),
             ("argmin", torch.float32), ("max", torch.float32), ("min", torch.float32)]


@pytest.mark.parametrize("name,dtype", ARG_CASES, ids=str)
def test_arg(name, dtype):
    fn, pair = getattr(torch, name), name in ("max", "min")
    for shape in ((7,), (300,), (40, 17), (5, 40, 33)):
        for x in layouts(shape, dtype):
            for dim in range(-1, len(shape)):
                agree(fn, x, dim, dim == 0, op=name + ".dim" if pair else name)
            if not pair:
                agree(fn, x, op=name)
                agree(fn, x, None, True, op=name)


def test_arg_special():
    for dtype in (torch.float32,):
        x = special(dtype)
        for t in (x, x.t().contiguous()):
            for dim in (0, 1):
                for name in ("argmax", "argmin"):
                    agree(getattr(torch, name), t, dim, op=name)
                agree(torch.max, t, dim, op="max.dim")
                agree(torch.min, t, dim, op="min.dim")
    agree(torch.max, values((9, 40), torch.bool), 1, op="max.dim")
    agree(torch.argmax, values((9,), torch.bool), op="argmax", routed=False)  # an error
    agree(torch.argmax, torch.empty(0), op="argmax", routed=False)
    agree(torch.argmax, torch.tensor(3.0), 0, op="argmax")
    ties = torch.zeros(1_000_000)
    agree(torch.argmax, ties, op="argmax")
    agree(torch.argmax, torch.cat([ties, torch.ones(5)]), op="argmax")
    one = torch.zeros(9, dtype=torch.int64)
    agree(lambda x, both: torch.max(x, 1, out=(both, both)), values((9, 40), torch.int64), one, op="max.dim_max", routed=False)  # an error


def test_arg_work_groups():
    def all_of_it():
        for shape in ((3000,), (17, 400), (400, 17), (5, 40, 70)):
            for x in layouts(shape):
                agree(torch.argmax, x, op="argmax")
                for dim in range(len(shape)):
                    agree(torch.max, x, dim, op="max.dim")
        x = special()
        agree(torch.argmax, x, op="argmax")
        agree(torch.min, x, 1, op="min.dim")
    on_groups(all_of_it)
