"""embedding, index_select, gather: the host's values, strides and errors; out-of-range indices never reach a kernel."""
import pytest
import torch
import torch.nn.functional as F

from agree import agree

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.int32, torch.int16, torch.int8,
          torch.uint8, torch.bool]


def values(shape, dtype=torch.float32):
    x = torch.randint(-100, 100, shape)
    return (x > 0) if dtype == torch.bool else (x.abs() if dtype == torch.uint8 else x).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("index", [torch.int64, torch.int32], ids=str)
def test_embedding_dtypes(dtype, index):
    agree(torch.embedding, values((11, 6), dtype), torch.tensor([[3, 0, 10], [1, 1, 2]], dtype=index), op="embedding")


@pytest.mark.parametrize("shape", [(), (1,), (4,), (2, 3), (2, 3, 4), (1, 1)])
@pytest.mark.parametrize("cols", [1, 3, 16, 384])
def test_embedding_shapes(shape, cols):
    agree(F.embedding, torch.randint(0, 30, shape), values((30, cols)), op="embedding")


@pytest.mark.parametrize("padding", [-1, 0, 2, 29])
def test_embedding_padding(padding):
    weight, index = values((30, 8)), torch.tensor([[2, 0], [29, 2]])
    agree(torch.embedding, weight, index, padding, op="embedding")
    agree(F.embedding, index, weight, padding_idx=padding if padding >= 0 else None, op="embedding")
    agree(torch.embedding, weight, index, padding, True, op="embedding")


def test_embedding_strided():
    index = torch.randint(0, 20, (6, 5))
    agree(torch.embedding, values((20, 9))[:, 2:7], index, op="embedding")
    agree(torch.embedding, values((9, 20)).t(), index.t(), op="embedding")
    agree(torch.embedding, values((40, 8))[::2], index[::2, 1::2], op="embedding")
    agree(torch.embedding, values((1, 8)).expand(20, 8), index, op="embedding")
    agree(torch.embedding, values((20, 1)).expand(20, 8), index[0].expand(3, 5), op="embedding")


def test_embedding_large():
    agree(torch.embedding, torch.randn(1000, 384), torch.randint(0, 1000, (64, 128)), op="embedding")


@pytest.mark.parametrize("bad", [-1, 20, 1 << 40, -(1 << 40)])
@pytest.mark.parametrize("n", [1, 5000])
def test_embedding_out_of_range(bad, n):
    index = torch.zeros(n, dtype=torch.int64)
    index[-1] = bad
    agree(torch.embedding, values((20, 8)), index, op="embedding", routed=False)


@pytest.mark.parametrize("args", [
    (torch.zeros(4, 4), torch.zeros(2)),
    (torch.zeros(4), torch.zeros(2, dtype=torch.int64)),
    (torch.zeros(4, 4, 4), torch.zeros(2, dtype=torch.int64)),
    (torch.zeros(4, 4), torch.zeros(2, dtype=torch.int16)),
    (torch.zeros(0, 4), torch.zeros(2, dtype=torch.int64)),
    (torch.zeros(4, 4), torch.zeros(0, dtype=torch.int64)),
    (torch.zeros(4, 0), torch.zeros(2, dtype=torch.int64)),
], ids=str)
def test_embedding_left_to_host(args):
    agree(torch.embedding, *args, op="embedding", routed=False)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("dim", [0, 1, 2, -1, -3])
def test_index_select(dtype, dim):
    agree(torch.index_select, values((4, 5, 6), dtype), dim, torch.tensor([3, 0, 0, 2, 1]), op="index_select")
    agree(torch.index_select, values((4, 5, 6), dtype), dim, torch.tensor([3], dtype=torch.int32), op="index_select")


def test_index_select_strided():
    index = torch.tensor([1, 0, 3, 3, 2, 1])
    x = values((4, 6, 5))
    for t in (x.transpose(0, 2), x.permute(1, 0, 2), x[:, ::2], x[..., 1:4], x.expand(3, 4, 6, 5), x[:1].expand(4, 6, 5)):
        for dim in range(t.dim()):
            agree(torch.index_select, t, dim, index[::2].clamp(max=t.shape[dim] - 1), op="index_select")
            agree(torch.index_select, t, dim, index[:1].expand(4).clamp(max=t.shape[dim] - 1), op="index_select")
    images = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    agree(torch.index_select, images, 1, torch.tensor([2, 0]), op="index_select")
    agree(torch.index_select, x, 1, torch.tensor(2), op="index_select")
    agree(torch.index_select, torch.tensor(3.0), 0, torch.tensor([0]), op="index_select", routed=None)


def test_index_select_out():
    x, index = values((4, 6)), torch.tensor([1, 0, 3])

    def into(make):
        def call(a, i):
            out = make()
            r = torch.index_select(a, 0, i, out=out)
            assert r is out
            return out
        return call
    agree(into(lambda: torch.empty(3, 6)), x, index, op="index_select.out")
    agree(into(lambda: torch.empty(6, 3).t()), x, index, op="index_select.out")
    agree(into(lambda: torch.zeros(3, 12)[:, ::2]), x, index, op="index_select.out")
    agree(into(lambda: torch.empty(0)), x, index, op="index_select.out", routed=False)
    agree(into(lambda: torch.empty(3, 6, dtype=torch.float64)), x, index, op="index_select.out", routed=False)


def test_index_select_aliases():
    agree(lambda a, i: torch.index_select(a, 0, i, out=a), values((4, 6)), torch.tensor([1, 0, 3, 2]),
          op="index_select.out", routed=False)
    agree(lambda a, i: torch.index_select(a, 0, i, out=torch.zeros(1).expand(4, 6)), values((4, 6)),
          torch.tensor([1, 0, 3, 2]), op="index_select.out", routed=False)


@pytest.mark.parametrize("args", [
    (torch.zeros(4, 4), 2, torch.tensor([0])),
    (torch.zeros(4, 4), -3, torch.tensor([0])),
    (torch.zeros(4, 4), 0, torch.tensor([4])),
    (torch.zeros(4, 4), 0, torch.tensor([-1])),
    (torch.zeros(4, 4), 0, torch.tensor([0.0])),
    (torch.zeros(4, 4), 0, torch.tensor([[0]])),
    (torch.zeros(4, 0), 1, torch.tensor([0])),
    (torch.zeros(4, 4), 1, torch.tensor([], dtype=torch.int64)),
], ids=str)
def test_index_select_left_to_host(args):
    agree(torch.index_select, *args, op="index_select", routed=False)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_gather(dtype, dim):
    x = values((5, 6, 7), dtype)
    index = torch.randint(0, 5, (4, 3, 5))
    agree(torch.gather, x, dim, index, op="gather")
    agree(torch.gather, x.transpose(0, 2), dim, index, op="gather")
    agree(torch.gather, x, dim, index.transpose(0, 1)[:4], op="gather")
    agree(torch.gather, x[:, :1].expand(5, 6, 7), dim, index[:, :, :1].expand(4, 3, 6), op="gather")


def test_gather_large_and_out():
    x, index = torch.randn(64, 1000), torch.randint(0, 1000, (64, 700))
    agree(torch.gather, x, 1, index, op="gather")

    def into(a, i):
        out = torch.empty(64, 700)
        assert torch.gather(a, 1, i, out=out) is out
        return out
    agree(into, x, index, op="gather.out")


@pytest.mark.parametrize("args", [
    (torch.zeros(4, 4), 1, torch.tensor([[4]])),
    (torch.zeros(4, 4), 1, torch.tensor([[-1]])),
    (torch.zeros(4, 4), 0, torch.zeros(2, 5, dtype=torch.int64)),
    (torch.zeros(4, 4), 0, torch.zeros(2, dtype=torch.int64)),
    (torch.zeros(4, 4), 3, torch.zeros(2, 2, dtype=torch.int64)),
    (torch.zeros(4, 4), 0, torch.zeros(2, 2)),
], ids=str)
def test_gather_left_to_host(args):
    agree(torch.gather, *args, op="gather", routed=False)


def test_gradients_flow():
    """The backward functions are the host's; the forward result belongs to the same graph."""
    def step(weight, index):
        weight.requires_grad_()
        F.embedding(index, weight, padding_idx=1).sum().backward()
        return weight.grad
    agree(step, values((6, 4)), torch.tensor([0, 1, 1, 5]), op="embedding")

    def select(x, index):
        x.requires_grad_()
        torch.index_select(x, 1, index).pow(2).sum().backward()
        return x.grad
    agree(select, values((6, 4)), torch.tensor([0, 1, 1]), op="index_select")


def test_inference_mode():
    def run(weight, index):
        with torch.inference_mode():
            return F.embedding(index, weight)
    agree(run, values((6, 4)), torch.tensor([0, 1, 1, 5]), op="embedding", routed=None)
