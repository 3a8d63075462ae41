"""scatter and index_add: which of several elements stays, sums, forms; what the host refuses never reaches a kernel."""
import pytest
import torch

from agree import agree
from inputs import DTYPES, FLOATS, layouts, some, values

FORMS = {"scatter.src": torch.scatter, "scatter_.src": torch.Tensor.scatter_}


def indices(shape, end, dtype=torch.int64):
    return torch.randint(0, end, shape, dtype=dtype)


@pytest.mark.parametrize("dtype", some(DTYPES), ids=str)
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_the_last_one_stays(dtype, dim):
    x, index, src = values((5, 6, 7), dtype), indices((4, 5, 9), 4), values((4, 6, 9), dtype)
    if dim != -1:
        index, src = index[..., :6], src[..., :8]
    for op, fn in FORMS.items():
        agree(fn, x, dim, index, src, op=op)


def test_layouts():
    for x, src in zip(layouts((6, 5, 8)), layouts((6, 5, 8))):
        for index in layouts((6, 5, 8), torch.int64):
            agree(torch.scatter, x, 1, index.abs() % 5, src, op="scatter.src")
    rows = indices((300, 1), 40).expand(300, 64)
    agree(torch.scatter, values((40, 64)), 0, rows, values((300, 64)), op="scatter.src")
    agree(lambda x, i, s: x.t().scatter_(1, i.t(), s.t()), values((40, 64)), rows, values((300, 64)), op="scatter_.src")


def test_out():
    x, index, src = values((4, 6)), indices((3, 6), 4), values((3, 6))

    def into(make):
        def call(x, index, src):
            out = make()
            assert torch.scatter(x, 0, index, src, out=out) is out
            return out
        return call
    agree(into(lambda: torch.empty(4, 6)), x, index, src, op="scatter.src_out")
    agree(into(lambda: torch.zeros(4, 12)[:, ::2]), x, index, src, op="scatter.src_out")
    agree(lambda x, i, s: torch.scatter(x, 0, i, s, out=x), x, index, src, op="scatter.src_out", routed=False)
    agree(lambda x, i, s: torch.index_add(x, 0, i[:, 0], s, out=torch.empty(4, 6)), x, index, src, op="index_add.out")


@pytest.mark.parametrize("dtype", some(DTYPES), ids=str)
@pytest.mark.parametrize("reduce", ["add", "multiply"])
def test_reduce(dtype, reduce):
    index, src = indices((9, 5), 4), values((9, 5), dtype)
    sums = 10 if dtype.is_floating_point else None
    with torch.inference_mode():  # else PyTorch comes to it by its boxed fallback, which no symbol shows
        agree(lambda x, i, s: x.scatter(0, i, s, reduce=reduce), values((4, 5), dtype), index, src, op="scatter.reduce",
              sums=sums)
    agree(lambda x, i, s: x.scatter_(0, i, s, reduce=reduce), values((4, 5), dtype), index, src, op="scatter_.reduce",
          sums=sums)


@pytest.mark.parametrize("dtype", [*FLOATS, *some([d for d in DTYPES if d not in FLOATS and d != torch.bool])], ids=str)
@pytest.mark.parametrize("alpha", [1, -2])
def test_index_add(dtype, alpha):
    if dtype == torch.uint8:
        alpha = abs(alpha)
    sums = 40 if dtype.is_floating_point else None
    for dim, index in ((0, indices((40,), 4)), (1, indices((40,), 4, torch.int32))):
        src = values((40, 6) if dim == 0 else (4, 40), dtype)
        for op, fn in {"index_add": torch.index_add, "index_add_": torch.Tensor.index_add_}.items():
            agree(fn, values((4, 6), dtype), dim, index, src, alpha=alpha, op=op, sums=sums)


def test_index_add_large_and_the_same_bits_each_time():
    x, index, src = values((1000, 33)), indices((20_000,), 1000), values((20_000, 33))
    index[3000:9000] = 7
    agree(torch.index_add, x, 0, index, src, op="index_add", sums=6100)
    assert torch.equal(torch.index_add(x, 0, index, src), torch.index_add(x, 0, index, src))


def test_special():
    nan, inf = float("nan"), float("inf")
    src = torch.tensor([nan, 1, inf, -inf, inf, -0.0, -0.0])
    index = torch.tensor([0, 0, 1, 2, 2, 3, 4])
    x = torch.tensor([1, 2, 3, -0.0, 0.0])
    agree(torch.index_add, x, 0, index, src, op="index_add")
    agree(torch.scatter, x, 0, index, src, op="scatter.src")


def test_gradients_flow():
    def step(x, index, src):
        x.requires_grad_()
        src.requires_grad_()
        (x.index_add(0, index, src) + x.scatter(0, index[:, None].expand(6, 4), src)).pow(2).sum().backward()
        return x.grad, src.grad
    agree(step, values((5, 4)), torch.tensor([4, 1, 0, 2, 3, 3])[:6], values((6, 4)), op="index_add")


four, zero = torch.zeros(4, 4), torch.zeros(2, 2, dtype=torch.int64)


@pytest.mark.parametrize("args", [
    (four, 0, zero + 4, four), (four, 0, zero - 1, four), (four, 2, zero, four), (four, 0, zero[0], four),
    (four, 0, zero.double(), four), (four, 0, zero, four.double()), (four, 0, zero, four[:1]),
    (four, 1, zero[:, :0], four), (torch.zeros(1, 4).expand(4, 4), 0, zero, four),
], ids=str)
def test_left_to_host(args):
    agree(torch.Tensor.scatter_, *args, op="scatter_.src", routed=False)


@pytest.mark.parametrize("args", [
    (four, 0, zero[0] + 4, four[:2]), (four, 0, zero[0] - 1, four[:2]), (four, 2, zero[0], four[:2]),
    (four, 0, zero, four[:2]), (four, 0, zero[0], four), (four, 0, zero[0], four[:2, :3]),
    (four, 0, zero[0], four[:2].double()), (four > 1, 0, zero[0], four[:2] > 1), (torch.tensor(1.0), 0, zero[0, :1], four[0, :1]),
], ids=str)
def test_index_add_left_to_host(args):
    agree(torch.Tensor.index_add_, *args, op="index_add_", routed=False)


def test_alias_is_left_to_the_host():
    agree(lambda x, i: x.index_add_(0, i, x), values((4, 4)), torch.arange(4), op="index_add_", routed=False)
    agree(lambda x, i: x.scatter_(0, i, x), values((4, 4)), indices((4, 4), 4), op="scatter_.src", routed=False)
