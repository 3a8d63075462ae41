"""cat, stack, triu, tril, flip, repeat, repeat_interleave (of clone), constant_pad_nd, fill_: values, strides and errors of the host."""
import pytest
import torch
import torch.nn.functional as F

from agree import agree

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.int32, torch.int16, torch.int8,
          torch.uint8, torch.bool]


def values(shape, dtype=torch.float32):
    x = torch.randint(-100, 100, shape)
    return (x > 0) if dtype == torch.bool else (x.abs() if dtype == torch.uint8 else x).to(dtype)


def layouts(*shape):
    """The same shape in several layouts."""
    x = values(shape)
    yield x
    yield values(shape[::-1]).permute(*range(len(shape) - 1, -1, -1))
    yield values([2 * s for s in shape])[tuple(slice(None, None, 2) for _ in shape)]
    yield values([s + 3 for s in shape])[tuple(slice(1, 1 + s) for s in shape)]
    yield values([1] + list(shape[1:])).expand(shape)


# ---- cat ----

@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("dim", [0, 1, 2, -1, -2])
def test_cat(dtype, dim):
    a, b, c = values((3, 4, 5), dtype), values((3, 4, 5), dtype), values((3, 4, 5), dtype)
    agree(torch.cat, [a, b, c], dim, op="cat")
    agree(torch.cat, [a], dim, op="cat")


# Every dtype with f32 and with its neighbours in the list: each pair is a program of its own, so not all of them.
PAIRS = [(d, o) for i, d in enumerate(DTYPES) for o in (DTYPES[0], DTYPES[i - 1], DTYPES[i - 3]) if d != o]


@pytest.mark.parametrize("dtype, other", PAIRS, ids=str)
def test_cat_promotes(dtype, other):
    a, b = values((3, 5), dtype), values((3, 2), other)
    agree(torch.cat, [a, b, a], 1, op="cat")


def test_cat_promotes_strided():
    a, b = values((3, 5)), values((3, 2), torch.bfloat16)
    agree(torch.cat, [b.t(), a.t()], 0, op="cat")
    agree(torch.cat, [b[:, :1].expand(3, 4), a[:, ::2]], 1, op="cat")


def test_cat_converts_exactly():
    big = torch.tensor([2 ** 53 + 1, -(2 ** 62) - 1, 16777217, 65505, 2 ** 31])
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        agree(torch.cat, [big, torch.ones(2, dtype=dtype)], 0, op="cat", rtol=0, atol=0)
    odd = torch.tensor([float("nan"), float("inf"), -float("inf"), 1e-8, 65519.0, -0.0, 1e-45], dtype=torch.float16)
    agree(torch.cat, [odd, torch.ones(2)], 0, op="cat", rtol=0, atol=0)
    agree(torch.cat, [odd, torch.ones(2, dtype=torch.bfloat16)], 0, op="cat", rtol=0, atol=0)


def test_cat_layouts():
    for a in layouts(4, 6, 5):
        for b in layouts(4, 6, 5):
            agree(torch.cat, [a, b], 1, op="cat")
    for dim in range(3):
        agree(torch.cat, list(layouts(4, 6, 5)), dim, op="cat")


def test_cat_empties():
    none, a = torch.empty(0), values((2, 3))
    agree(torch.cat, [none, a, none, a], 0, op="cat")
    agree(torch.cat, [none, a], 1, op="cat")
    agree(torch.cat, [none, a], -1, op="cat")
    agree(torch.cat, [torch.empty(0, dtype=torch.float64), a], 1, op="cat")
    agree(torch.cat, [torch.empty(0, 3), a], 0, op="cat")
    agree(torch.cat, [torch.empty(2, 0), a, torch.empty(2, 0)], 1, op="cat")
    agree(torch.cat, [none, none], 0, op="cat", routed=False)
    agree(torch.cat, [torch.empty(0, 3), torch.empty(0, 3)], 0, op="cat", routed=False)


@pytest.mark.parametrize("dim", [0, 1, 2, 3])
def test_cat_memory_formats(dim):
    last, plain = torch.channels_last, torch.contiguous_format
    shapes = [(2, 3, 4, 5), (2, 1, 4, 5), (2, 3, 1, 1), (1, 3, 4, 5), (1, 1, 1, 1)]
    for shape in shapes:
        for formats in ((last, last), (last, plain), (plain, last)):
            agree(torch.cat, [torch.randn(shape).contiguous(memory_format=f) for f in formats], dim, op="cat")
    mixed = torch.randn(2, 3, 4, 5).contiguous(memory_format=last)
    agree(torch.cat, [mixed, mixed.double()], dim, op="cat")
    agree(torch.cat, [torch.empty(0), mixed, mixed], dim, op="cat")
    solid = torch.randn(2, 3, 4, 5, 2).contiguous(memory_format=torch.channels_last_3d)
    agree(torch.cat, [solid, solid], dim, op="cat")


def test_cat_many_and_large():
    agree(torch.cat, [values((i % 3 + 1, 7)) for i in range(40)], 0, op="cat")
    agree(torch.cat, [values((300, 700)) for _ in range(3)], 1, op="cat")
    agree(torch.cat, [values((5000, 1)) for _ in range(3)], 1, op="cat")
    agree(torch.cat, [values((1, 12, 100, 64)), values((1, 12, 1, 64))], 2, op="cat")
    agree(torch.cat, [values((1,) * 9), values((1,) * 9)], 4, op="cat")


def test_cat_out():
    a, b = values((3, 4)), values((3, 2))

    def into(make):
        def call(x, y):
            out = make(x)
            assert torch.cat([x, y], 1, out=out) is out
            return out
        return call
    agree(into(lambda x: torch.empty(3, 6)), a, b, op="cat.out")
    agree(into(lambda x: torch.empty(6, 3).t()), a, b, op="cat.out")
    agree(into(lambda x: torch.zeros(5, 8)[1:4, 1:7]), a, b, op="cat.out")
    agree(into(lambda x: torch.empty(0)), a, b, op="cat.out", routed=False)
    agree(into(lambda x: torch.empty(3, 6, dtype=torch.float64)), a, b, op="cat.out", routed=False)
    agree(into(lambda x: torch.empty(3, 6, dtype=torch.int64)), a, b, op="cat.out", routed=False)
    agree(into(lambda x: torch.empty(1).expand(3, 6)), a, b, op="cat.out", routed=False)
    agree(lambda x, y: torch.cat([x[:, :4], y], 1, out=x), values((3, 6)), b, op="cat.out", routed=False)


@pytest.mark.parametrize("args", [
    ([], 0),
    ([torch.zeros(2), torch.tensor(1.0)], 0),
    ([torch.tensor(1.0)], 0),
    ([torch.zeros(2, 3), torch.zeros(3, 3)], 1),
    ([torch.zeros(2, 3), torch.zeros(2)], 0),
    ([torch.zeros(2, 3), torch.zeros(2, 3)], 2),
    ([torch.zeros(2, 3), torch.zeros(2, 3)], -3),
    ([torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.complex64)], 0),
], ids=str)
def test_cat_left_to_host(args):
    agree(torch.cat, *args, op="cat", routed=False)


def test_cat_gradient():
    def step(a, b):
        a.requires_grad_()
        torch.cat([a, b], 1).pow(2).sum().backward()
        return a.grad
    agree(step, values((3, 4)), values((3, 2)), op="cat")


# ---- stack and its kind ----

@pytest.mark.parametrize("dim", [0, 1, 2, -1])
def test_stack(dim):
    agree(torch.stack, list(layouts(4, 6)), dim, op="stack")
    agree(torch.stack, [values((3, 2), torch.int16)], dim, op="stack")
    images = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    agree(torch.stack, [images, images], dim, op="stack")


def test_stack_others():
    a, b = values((3, 4)), values((3, 4))
    agree(torch.stack, [torch.tensor(1.0), torch.tensor(2.0)], op="stack")
    agree(torch.stack, [a, b.double()], op="stack")
    agree(torch.stack, [torch.tensor(1, dtype=torch.int8), torch.tensor(2.5)], op="stack")
    agree(torch.stack, [a, b[:2]], op="stack", routed=False)
    agree(torch.stack, [a, b], 3, op="stack", routed=False)
    for fn in (torch.hstack, torch.vstack, torch.dstack):
        agree(fn, [a, b], op=None)
    agree(torch.stack, [], 0, op="stack", routed=False)


# ---- triu, tril ----

@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("diagonal", [-9, -2, -1, 0, 1, 3, 9, 1 << 40, -(1 << 40)])
def test_triangles(dtype, diagonal):
    for shape in ((5, 5), (4, 7), (7, 4), (2, 3, 4), (1, 6), (6, 1)):
        x = values(shape, dtype)
        agree(torch.triu, x, diagonal, op="triu")
        agree(torch.tril, x, diagonal, op="tril")


def test_triangle_layouts():
    for x in layouts(5, 6):
        agree(torch.triu, x, op="triu")
        agree(torch.tril, x, -1, op="tril")
    for x in layouts(3, 5, 6):
        agree(torch.triu, x, 1, op="triu")
    images = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    agree(torch.tril, images, op="tril")


def test_triangle_forgets_nan():
    x = torch.full((4, 4), float("nan"))
    agree(torch.triu, x, op="triu")
    agree(lambda t: t.triu_(1), x, op="triu_")


def test_triangle_in_place():
    for x in layouts(5, 6):
        repeats = x.stride(0) == 0
        agree(lambda t: t.triu_(), x, op="triu_", routed=None if repeats else True)
        agree(lambda t: t.tril_(-2), x, op="tril_", routed=None if repeats else True)
    agree(lambda t: t.triu_(5), values((3, 400, 500)), op="triu_")


def test_triangle_out():
    x = values((4, 5))

    def into(make):
        def call(t):
            out = make(t)
            assert torch.triu(t, 1, out=out) is out
            return out
        return call
    agree(into(lambda t: torch.empty(4, 5)), x, op="triu.out")
    agree(into(lambda t: torch.empty(5, 4).t()), x, op="triu.out")
    agree(into(lambda t: torch.empty(0)), x, op="triu.out", routed=False)
    agree(into(lambda t: t), x, op="triu.out", routed=None)
    agree(into(lambda t: torch.empty(4, 5, dtype=torch.float64)), x, op="triu.out", routed=False)


@pytest.mark.parametrize("x", [torch.zeros(3), torch.tensor(1.0), torch.zeros(0, 3), torch.zeros(3, 3).to(torch.complex64)],
                         ids=str)
def test_triangle_left_to_host(x):
    agree(torch.triu, x, op="triu", routed=False)
    agree(torch.tril, x, op="tril", routed=False)


# ---- flip, repeat ----

@pytest.mark.parametrize("dims", [(0,), (1,), (0, 2), (0, 1, 2), (-1,), ()])
def test_flip(dims):
    for x in layouts(4, 5, 6):
        agree(torch.flip, x, dims, op="flip")
    for dtype in DTYPES:
        agree(torch.flip, values((3, 4, 5), dtype), dims, op="flip")
    images = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    agree(torch.flip, images, dims, op="flip")
    agree(torch.flip, values((6, 1, 4)).transpose(0, 2)[:, :, ::2], dims, op="flip")


def test_flip_others():
    agree(torch.flip, torch.tensor(2.0), (), op="flip")
    agree(torch.flip, values((3, 4)), (0, 0), op="flip", routed=False)
    agree(torch.flip, values((3, 4)), (2,), op="flip", routed=False)


@pytest.mark.parametrize("repeats", [(1, 1), (2, 3), (3, 1, 2), (1, 4), (2, 1, 1, 2)])
def test_repeat(repeats):
    for x in layouts(4, 5):
        agree(lambda t: t.repeat(repeats), x, op="repeat")
        agree(torch.tile, x, repeats, op=None)
    for dtype in DTYPES:
        agree(lambda t: t.repeat(repeats), values((3, 4), dtype), op="repeat")
    agree(lambda t: t.repeat(repeats), torch.tensor(3.0), op="repeat")


def test_repeat_left_to_host():
    for repeats in ((2,), (0, 1), (-1, 2)):
        agree(lambda t: t.repeat(repeats), values((3, 4)), op="repeat", routed=False)


@pytest.mark.parametrize("dim", [None, 0, -1])
@pytest.mark.parametrize("repeats", [1, 3])
def test_repeat_interleave(dim, repeats):
    """The host makes it of a clone, which is routed, and returns a view of that."""
    for x in layouts(4, 30):
        agree(torch.repeat_interleave, x, repeats, dim, op="clone", routed=repeats > 1 or None)
        assert torch.repeat_interleave(x, repeats, dim)._is_view()
    agree(torch.repeat_interleave, x, -1, 0, op="clone", routed=False)


# ---- constant_pad_nd, fill_ ----

@pytest.mark.parametrize("pad", [(1, 2), (0, 3), (1, 0, 2, 1), (-1, 2), (2, -1, -1, 3), (1, 1, 1, 1, 1, 1)])
@pytest.mark.parametrize("value", [0, 1.5, -3, float("inf"), True])
def test_pad(pad, value):
    for x in layouts(3, 4, 5):
        agree(torch.constant_pad_nd, x, pad, value, op="constant_pad_nd")
    for dtype in (torch.bfloat16, torch.float16, torch.float64, torch.int32, torch.bool, torch.uint8):
        agree(torch.constant_pad_nd, values((3, 4, 5), dtype), pad, value, op="constant_pad_nd", routed=None)


def test_pad_others():
    images = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    agree(F.pad, images, (1, 1, 2, 0), op="constant_pad_nd")
    x = values((3, 4))
    agree(torch.constant_pad_nd, x, (-1, -1), 0, op="constant_pad_nd", routed=False)
    agree(torch.constant_pad_nd, x, (1,), 0, op="constant_pad_nd", routed=False)
    agree(torch.constant_pad_nd, x, (1, 1, 1, 1, 1, 1), 0, op="constant_pad_nd", routed=False)
    agree(torch.constant_pad_nd, x, (-3, -3), 0, op="constant_pad_nd", routed=False)
    agree(torch.constant_pad_nd, x.to(torch.int8), (1, 1), 300, op="constant_pad_nd", routed=False)


@pytest.mark.parametrize("value", [0, 1, -7, 2.75, 200, 1e6, float("nan"), -float("inf"), True, 2 ** 40, 1e300, 3.3e38])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_fill(dtype, value):
    agree(lambda t: t.fill_(value), torch.ones(3, 5, dtype=dtype), op="fill_.Scalar", routed=None)


def test_fill_layouts():
    for x in layouts(3, 4, 5):
        repeats = x.stride(0) == 0
        agree(lambda t: t.fill_(3), x, op="fill_.Scalar", routed=None if repeats else True)
    agree(lambda t: t[1:3, 2].fill_(3), values((4, 5)), op="fill_.Scalar")
    agree(lambda t: t.fill_(3), torch.tensor(1.0), op="fill_.Scalar")
    agree(lambda t: t.fill_(3), values((700, 600)), op="fill_.Scalar")
