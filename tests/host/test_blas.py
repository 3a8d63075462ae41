"""mm, bmm, addmm, addmv, mv, dot, vdot, addr, linear: values, strides, aliasing and errors of the host, and its accuracy."""
import ctypes
import itertools

import pytest
import torch
import torch.nn.functional as F

import gems
from agree import agree

FLOATS = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
INTS = [torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64]
SIZES = [(1, 1, 1), (2, 3, 4), (17, 33, 65), (1, 70, 40), (70, 1, 40), (3, 200, 300), (200, 3, 300), (9, 64, 31), (33, 130, 257),
         (128, 96, 600), (5, 16, 2000), (16, 5, 1), (1, 1, 9000)]
EDGES = [(0, 3, 4), (3, 0, 4), (3, 4, 0), (0, 0, 0), (1, 4, 0)]


def values(shape, dtype=torch.float32):
    if dtype.is_floating_point:
        return torch.randn(shape).to(dtype)
    return torch.randint(0 if dtype == torch.uint8 else -100, 100, shape).to(dtype)


def layouts(rows, cols, dtype=torch.float32):
    """The same matrix row-major, transposed, with gaps, with every second element, with one row repeated."""
    yield values((rows, cols), dtype)
    yield values((cols, rows), dtype).t()
    yield values((rows + 2, cols + 3), dtype)[1:rows + 1, 2:cols + 2]
    yield values((2 * cols, 2 * rows), dtype)[::2, ::2].t()
    yield values((1, cols), dtype).expand(rows, cols)


def close(dtype, k):
    """Sums of k products, compared with the exact ones."""
    return {"sums": k} if dtype.is_floating_point else {}


# ---- mm ----

@pytest.mark.parametrize("m,n,k", SIZES)
def test_mm_sizes(m, n, k):
    agree(torch.mm, values((m, k)), values((k, n)), op="mm", **close(torch.float32, k))


@pytest.mark.parametrize("dtype", FLOATS + INTS, ids=str)
@pytest.mark.parametrize("m,n,k", [(17, 33, 65), (3, 40, 70)] + EDGES)
def test_mm(dtype, m, n, k):
    agree(torch.mm, values((m, k), dtype), values((k, n), dtype), op="mm", **close(dtype, k))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("m,n,k", [(37, 50, 70), (2, 50, 70), (50, 2, 70)])
def test_mm_layouts(dtype, m, n, k):
    for a, b in itertools.product(layouts(m, k, dtype), layouts(k, n, dtype)):
        agree(torch.mm, a, b, op="mm", **close(dtype, k))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("m,n,k", [(64, 64, 64), (9, 72, 64), (130, 200, 136), (300, 1000, 40), (33, 40, 8), (256, 16, 1024)])
def test_mm_of_rows_at_multiples_of_16_bytes(dtype, m, n, k):
    """What NVIDIA's tensor cores take, in each layout."""
    m8 = (m + 7) // 8 * 8
    for a in (values((m, k), dtype), values((k, m8), dtype).t()[:m]):
        for b in (values((k, n), dtype), values((n, k), dtype).t(), values((k, n + 16), dtype)[:, 8:-8]):
            agree(torch.mm, a, b, op="mm", **close(dtype, k))
            agree(torch.addmm, values((n,), dtype), a, b, op="addmm", **close(dtype, k))
    agree(torch.bmm, values((3, m, k), dtype), values((3, n, k), dtype).transpose(1, 2), op="bmm", **close(dtype, k))


@pytest.mark.parametrize("m,n,k", [(37, 50, 70), (2, 50, 70)])
def test_mm_out(m, n, k):
    a, b = values((m, k)), values((k, n))
    for out in list(layouts(m, n))[:4]:
        agree(lambda x, y, o: torch.mm(x, y, out=o), a, b, out, op="mm.out", **close(torch.float32, k))


def test_mm_out_the_host_does():
    a, b = values((4, 4)), values((4, 4))
    mm = lambda x, y, o: torch.mm(x, y, out=o)  # noqa: E731
    with pytest.warns(UserWarning):
        agree(mm, a, b, torch.empty(3), op="mm.out", routed=False)
    agree(mm, a, b, torch.empty(0), op="mm.out", routed=False)
    agree(mm, a, b, torch.empty(4, 4).double(), op="mm.out", routed=False)
    agree(lambda x, y: torch.mm(x, y, out=x), a, b, op="mm.out", routed=False)
    agree(lambda x, y: torch.mm(x, y[:4], out=y[1:]), a, values((5, 4)), op="mm.out", routed=False)


@pytest.mark.parametrize("args", [((2, 3), (4, 5)), ((2, 3), (3,)), ((3,), (3, 2)), ((1, 2, 3), (3, 2))], ids=str)
def test_mm_errors(args):
    agree(torch.mm, *(torch.ones(s) for s in args), op="mm", routed=False)


def test_mm_dtypes_the_host_does():
    agree(torch.mm, torch.ones(2, 3), torch.ones(3, 2).double(), op="mm", routed=False)
    agree(torch.mm, torch.ones(2, 3, dtype=torch.bool), torch.ones(3, 2, dtype=torch.bool), op="mm", routed=False)
    agree(torch.mm, torch.ones(2, 3, dtype=torch.cfloat), torch.ones(3, 2, dtype=torch.cfloat), op="mm", routed=False)


def test_mm_nan_and_inf():
    for m in (40, 3):
        a, b = values((m, 50)), values((50, 60))
        a[1, 3], a[2, 5], b[7, 40], b[9, 59] = float("nan"), float("inf"), float("-inf"), float("nan")
        agree(torch.mm, a, b, op="mm", **close(torch.float32, 50))
        agree(torch.mm, b.t(), a.t(), op="mm", **close(torch.float32, 50))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("m,n,k", [(64, 64, 64), (64, 96, 5000), (1, 128, 5000), (128, 1, 5000), (4, 256, 3000), (1, 1, 200000)])
def test_error_is_not_worse_than_the_hosts(dtype, m, n, k):
    """Against a reference of twice the digits: root mean square at most twice the host's, or half a unit of the result's
    size (where the host is lucky to be exact)."""
    for turned in (False, True):
        a, b = values((m, k), dtype), values((n, k), dtype).t() if turned else values((k, n), dtype)
        with gems.off():
            scale = 1 if dtype == torch.float32 else 2 ** 52
            if dtype == torch.float32:
                exact = a.double() @ b.double()
            else:
                a, b = (a * 2 ** 20).round(), (b * 2 ** 20).round()  # products and sums are exact in 64-bit integers
                exact, scale = (a.long() @ b.long()), 1
            host = a @ b
        got = torch.mm(a, b)
        assert gems.last_reason() == ""
        with gems.off():
            def error(x):
                return (x.double() - exact if dtype == torch.float32 else (x - exact.double())).pow(2).mean().sqrt().item() / scale
            unit = exact.double().pow(2).mean().sqrt().item() * torch.finfo(dtype).eps / 2
            assert error(got) <= max(2 * error(host), unit)


def test_same_bits_again():
    for m, n, k in [(130, 70, 900), (1, 70, 20000), (3, 500, 4000)]:
        a, b = values((m, k)), values((k, n))
        first = torch.mm(a, b)
        assert all(torch.equal(first, torch.mm(a, b)) for _ in range(5))


# ---- bmm ----

@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.int8], ids=str)
@pytest.mark.parametrize("b,m,n,k", [(1, 3, 4, 5), (7, 33, 20, 40), (5, 1, 64, 32), (3, 40, 2, 70), (0, 3, 4, 5), (2, 0, 4, 5),
                                     (2, 3, 4, 0), (65, 4, 5, 6)])
def test_bmm(dtype, b, m, n, k):
    agree(torch.bmm, values((b, m, k), dtype), values((b, k, n), dtype), op="bmm", **close(dtype, k))


def test_bmm_layouts():
    b, m, n, k = 4, 20, 34, 18
    lefts = [values((b, m, k)), values((b, k, m)).transpose(1, 2), values((m, b, k)).transpose(0, 1), values((1, m, k)).expand(b, m, k),
             values((b, m + 1, 2 * k))[:, 1:, ::2]]
    rights = [values((b, k, n)), values((b, n, k)).transpose(1, 2), values((k, b, n)).transpose(0, 1), values((1, k, n)).expand(b, k, n),
              values((b, 1, n)).expand(b, k, n)]
    for x, y in itertools.product(lefts, rights):
        agree(torch.bmm, x, y, op="bmm", **close(torch.float32, k))
    out = values((n, m, b)).permute(2, 1, 0)
    agree(lambda x, y, o: torch.bmm(x, y, out=o), lefts[0], rights[1], out, op="bmm.out", **close(torch.float32, k))


def test_bmm_errors():
    agree(torch.bmm, torch.ones(2, 3, 4), torch.ones(3, 4, 5), op="bmm", routed=False)
    agree(torch.bmm, torch.ones(2, 3, 4), torch.ones(2, 5, 4), op="bmm", routed=False)
    agree(torch.bmm, torch.ones(3, 4), torch.ones(4, 5), op="bmm", routed=False)


# ---- addmm ----

@pytest.mark.parametrize("dtype", FLOATS + INTS, ids=str)
@pytest.mark.parametrize("m,n,k", [(3, 4, 5), (33, 130, 257), (2, 60, 100), (60, 2, 100), (3, 4, 0), (1, 1, 1)])
def test_addmm(dtype, m, n, k):
    a, b = values((m, k), dtype), values((k, n), dtype)
    for shape in [(m, n), (n,), (m, 1), (1, n), (), (1,)]:
        agree(torch.addmm, values(shape, dtype), a, b, op="addmm", **close(dtype, k))
    for beta, alpha in [(2, 3), (0, 1), (-1, 2), (1, -1), (True, 2)]:
        agree(torch.addmm, values((n,), dtype), a, b, beta=beta, alpha=alpha, op="addmm", **close(dtype, 9 * k + 9))
    if dtype.is_floating_point:
        agree(torch.addmm, values((m, n), dtype), a, b, beta=0.5, alpha=1.25, op="addmm", **close(dtype, 2 * k + 2))


def test_addmm_factors_of_integers():
    x, a, b = values((3, 5), torch.int8), values((3, 4), torch.int8), values((4, 5), torch.int8)
    agree(torch.addmm, x, a, b, alpha=2.5, op="addmm", routed=False)
    agree(torch.addmm, x.long(), a.long(), b.long(), alpha=2 ** 40, beta=-2 ** 61, op="addmm")
    agree(torch.addmm, x, a, b, alpha=100, beta=-77, op="addmm")
    agree(torch.addmm, x, a, b, alpha=1000, op="addmm", routed=False)
    agree(torch.addmm, x, a, b, beta=-129, op="addmm", routed=False)
    agree(torch.addmm, x.abs().byte(), a.abs().byte(), b.abs().byte(), beta=-1, op="addmm")
    agree(torch.addmm, x.abs().byte(), a.abs().byte(), b.abs().byte(), beta=200, op="addmm")


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("m,n,k", [(40, 50, 60), (2, 50, 60), (4, 4, 0)])
def test_addmm_beta_zero_ignores_the_addend(dtype, m, n, k):
    a, b = values((m, k), dtype), values((k, n), dtype)
    for shape in [(m, n), (n,)]:
        agree(torch.addmm, torch.full(shape, float("nan"), dtype=dtype), a, b, beta=0, op="addmm", **close(dtype, k))
        agree(torch.addmm, torch.full(shape, float("nan"), dtype=dtype), a, b, beta=2, op="addmm", **close(dtype, k))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_addmm_alpha_zero_ignores_the_product(dtype):
    a, b = torch.full((40, 60), float("nan"), dtype=dtype), values((60, 50), dtype)
    agree(torch.addmm, values((50,), dtype), a, b, alpha=0, op="addmm", routed=dtype.itemsize > 2)
    agree(torch.addmv, values((40,), dtype), a, b[:, 0], alpha=0, op="addmv", routed=dtype.itemsize > 2)


@pytest.mark.parametrize("m,n,k", [(37, 50, 70), (2, 50, 70), (50, 2, 70)])
def test_addmm_in_place_and_out(m, n, k):
    a, b, near = values((m, k)), values((k, n)), close(torch.float32, 4 * k)
    for x in list(layouts(m, n))[:4]:
        agree(lambda s, p, q: s.addmm_(p, q, beta=0.5, alpha=2), x, a, b, op="addmm_", **near)
        agree(lambda s, p, q: torch.addmm(s, p, q, beta=0.5, out=s), x, a, b, op="addmm.out", **near)
        agree(lambda s, p, q, o: torch.addmm(s, p, q, beta=0.5, out=o), values((n,)), a, b, x, op="addmm.out", **near)
    agree(lambda s, p, q: torch.addmm(s, p, q, out=s.t()), values((m, m)), values((m, k)), values((k, m)), op="addmm.out", routed=False,
          **near)


def test_result_that_overlaps_itself():
    before = gems.counters("addmm_").routed
    torch.zeros(30).as_strided((8, 8), (1, 1)).addmm_(values((8, 4)), values((4, 8)))
    assert gems.counters("addmm_").routed == before
    agree(lambda s, u, v: s.addr_(u, v), torch.zeros(13).as_strided((5, 2), (3, 0)), values((5,)), values((2,)), op="addr.out", routed=False)


def test_odd_factors():
    a, b = values((40, 60), torch.bfloat16), torch.zeros(60, dtype=torch.bfloat16)
    for dtype in FLOATS + INTS:
        agree(torch.addr, values((3, 4), dtype), values((3,), dtype), values((4,), dtype), beta=True, op="addr", routed=False)
    for alpha in [float("inf"), float("nan")]:
        agree(torch.addmv, values((40,), torch.bfloat16), a, b, alpha=alpha, op="addmv", routed=False)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_factors_that_the_dtype_does_not_hold(dtype):
    """The host converts factors to the dtype, or to f32 where it multiplies matrices of 16 bits, and raises for what does not
    fit; where there is nothing to sum, it does not look at alpha."""
    def factors(*shapes, fn):
        args = [values(s, dtype) for s in shapes]
        for name, factor in itertools.product(("alpha", "beta"), FACTORS):
            agree(lambda *a: fn(*a, **{name: factor}), *args, op=None, routed=None, sums=shapes[-1][0])
    factors((6,), (6, 7), (7,), fn=torch.addmv)
    factors((6,), (6, 7), (7,), fn=lambda s, a, b, **k: s.addmv_(a, b, **k))
    factors((6, 5), (6, 7), (7, 5), fn=torch.addmm)
    factors((6, 5), (6, 0), (0, 5), fn=torch.addmm)
    factors((6,), (6, 0), (0,), fn=torch.addmv)
    factors((5,), (6, 7), (7, 5), fn=lambda s, a, b, **k: torch.addmm(s, a, b, out=torch.empty(6, 5, dtype=s.dtype), **k))
    factors((2, 6, 5), (2, 6, 7), (2, 7, 5), fn=torch.baddbmm)
    factors((6, 5), (2, 6, 7), (2, 7, 5), fn=torch.addbmm)
    factors((6, 5), (6,), (5,), fn=torch.addr)


FACTORS = [2, -3, 0.1, 65504, 65505.0, 65519.0, 65520, -65536.0, 1e6, 2 ** 40, 3.39e38, 3.4e38, 3.5e38, -1e39, 1e-8, 1e-50, True]


def test_addmm_errors():
    agree(torch.addmm, torch.ones(2, 3, 5), torch.ones(3, 4), torch.ones(4, 5), op="addmm", routed=False)
    agree(torch.addmm, torch.ones(4), torch.ones(3, 4), torch.ones(4, 5), op="addmm", routed=False)
    agree(torch.addmm, torch.ones(5).double(), torch.ones(3, 4), torch.ones(4, 5), op="addmm", routed=False)
    agree(lambda s, a, b: s.addmm_(a, b), torch.ones(5), torch.ones(3, 4), torch.ones(4, 5), op="addmm_", routed=False)


# ---- vectors ----

@pytest.mark.parametrize("dtype", FLOATS + INTS, ids=str)
@pytest.mark.parametrize("m,k", [(1, 1), (100, 300), (3, 4000), (4000, 3), (0, 4), (4, 0)])
def test_mv(dtype, m, k):
    for a in list(layouts(m, k, dtype))[:4]:
        agree(torch.mv, a, values((k,), dtype), op="mv", **close(dtype, k))
    agree(torch.mv, values((m, k), dtype), values((2 * k,), dtype)[::2], op="mv", **close(dtype, k))


@pytest.mark.parametrize("dtype", FLOATS + [torch.int64, torch.uint8], ids=str)
def test_addmv(dtype):
    a, x = values((40, 60), dtype), values((60,), dtype)
    for shape in [(40,), (1,), ()]:
        agree(torch.addmv, values(shape, dtype), a, x, op="addmv", **close(dtype, 60))
        agree(torch.addmv, values(shape, dtype), a, x, beta=2, alpha=3, op="addmv", **close(dtype, 900))
    agree(lambda s, p, q: s.addmv_(p, q, beta=3), values((80,), dtype)[::2], a, x, op="addmv_", **close(dtype, 100))
    agree(lambda s, p, q, o: torch.addmv(s, p, q, out=o), values((1,), dtype), a, x, values((40,), dtype), op="addmv.out",
          **close(dtype, 100))
    if dtype.is_floating_point:
        agree(torch.addmv, torch.full((40,), float("nan"), dtype=dtype), a, x, beta=0, op="addmv", **close(dtype, 60))
    agree(torch.addmv, values((40,), dtype), a, values((61,), dtype), op="addmv", routed=False)
    agree(torch.addmv, values((), dtype), a[:0], x, op="addmv", routed=False)
    agree(torch.addmv, values((1,), dtype), a[:, :0], x[:0], op="addmv", routed=False)
    agree(lambda s, p, q: s.addmv_(p, q), values((2,), dtype)[::2], a[:1], x, op="addmv_", **close(dtype, 100))


@pytest.mark.parametrize("dtype", FLOATS + INTS, ids=str)
@pytest.mark.parametrize("op", [torch.dot, torch.vdot])
@pytest.mark.parametrize("k", [0, 1, 15, 16, 1000, 100003])
def test_dot(op, dtype, k):
    near = close(dtype, k)
    agree(op, values((k,), dtype), values((k,), dtype), op=op.__name__, **near)
    agree(op, values((3 * k,), dtype)[::3], values((2 * k,), dtype)[::2], op=op.__name__, **near)


def test_dot_errors():
    agree(torch.dot, torch.ones(3), torch.ones(4), op="dot", routed=False)
    agree(torch.dot, torch.ones(3), torch.ones(3).double(), op="dot", routed=False)
    agree(torch.dot, torch.ones(3, 1), torch.ones(3), op="dot", routed=False)


@pytest.mark.parametrize("dtype", FLOATS + INTS, ids=str)
def test_addr(dtype):
    u, v, near = values((37,), dtype), values((50,), dtype), close(dtype, 2)
    narrow = dtype in (torch.float16, torch.bfloat16)  # the host rounds after each step
    for x in list(layouts(37, 50, dtype)) + [values(s, dtype) for s in [(50,), (37, 1), (1, 50), ()]]:
        agree(torch.addr, x, u, v, op="addr", **near)
        agree(torch.addr, x, u, v, beta=2, alpha=3, op="addr", routed=not narrow, **near)
        agree(torch.addr, x, u, v, beta=-1, op="addr", **near)
    for m, n in [(1, 50), (37, 1), (1, 1), (0, 5)]:
        for x in list(layouts(m, n, dtype))[:2]:
            agree(torch.addr, x, u[:m], v[:n], op="addr", **near)
    if dtype.is_floating_point:
        agree(torch.addr, torch.full((37, 50), float("nan"), dtype=dtype), u, v, beta=0, op="addr", **near)
    agree(torch.addr, values((3, 4), torch.float64), values((3,), torch.float32), values((4,), torch.float32), op="addr", routed=False)


# ---- linear ----

@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("shape", [(40,), (5, 40), (3, 5, 40), (2, 3, 4, 40), (0, 40)], ids=str)
def test_linear(dtype, shape):
    w, b, near = values((30, 40), dtype), values((30,), dtype), close(dtype, 40)
    with torch.no_grad():
        agree(F.linear, values(shape, dtype), w, b, op="linear", **near)
        agree(F.linear, values(shape, dtype), w, op="linear", **near)
        if len(shape) == 3:
            agree(F.linear, values((5, 3, 40), dtype).transpose(0, 1), w, b, **near)
            agree(F.linear, values((3, 10, 40), dtype)[:, ::2], w, b, **near)
            agree(F.linear, values((3, 1, 40), dtype).expand(3, 5, 40), w, b, **near)
            agree(F.linear, values((1, 5, 40), dtype).expand(3, 5, 40), w, b, **near)


def test_linear_trains():
    """With gradients the composite is left alone, and its part is routed; the backward pass goes on from our result."""
    x, w, b = values((7, 40)).requires_grad_(), values((30, 40)).requires_grad_(), values((30,)).requires_grad_()

    def step(x, w, b):
        y = F.linear(x, w, b)
        return (y, *torch.autograd.grad(y.square().sum(), [x, w, b]))

    with gems.off():
        expected = step(x, w, b)
    before = gems.counters("addmm")
    actual = step(x, w, b)
    assert gems.counters("addmm").routed == before.routed + 1
    for e, a in zip(expected, actual):
        torch.testing.assert_close(a, e, rtol=1e-5, atol=1e-4)


# ---- every variant, whatever the table chooses ----

@pytest.mark.parametrize("rule", ['"variant": "cpu"', '"variant": "gpu", "params": {"tm": 64, "tn": 64}',
                                  '"variant": "vector", "params": {"split": 3}', '"params": {"lane": 1}'])
def test_variants(rule):
    error = ctypes.create_string_buffer(200)
    table = '{"rules": [{"op": ["addmm"], %s}]}' % rule
    assert gems.lib.gems_table_set(table.encode(), error, 200) == 0, error.value
    try:
        for m, n, k in [(37, 50, 70), (130, 200, 40), (3, 77, 1500), (77, 3, 1500), (3, 20, 5000)]:
            for a, b in itertools.product(list(layouts(m, k))[:3], list(layouts(k, n))[:3]):
                agree(torch.addmm, values((n,)), a, b, op="addmm", **close(torch.float32, k))
    finally:
        gems.lib.gems_table_set(None, error, 200)
