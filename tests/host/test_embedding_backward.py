"""The gradient of an embedding's weight: sums in the host's order, padding, what is left to the host."""
import pytest
import torch
import torch.nn.functional as F

import gems
from agree import agree
from inputs import FLOATS, layouts, values

backward = torch.ops.aten.embedding_dense_backward
NAME = "embedding_dense_backward"


def same(g, index, rows, padding=-1, routed=True):
    most = index[index >= 0].bincount(minlength=1).max().item() if routed and index.numel() else 1
    agree(backward, g, index, rows, padding, False, op=NAME, routed=routed, sums=most)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("index", [torch.int64, torch.int32], ids=str)
@pytest.mark.parametrize("shape", [(), (1,), (40,), (5, 8), (2, 3, 4)], ids=str)
def test_values(shape, dtype, index):
    for rows, cols in ((1, 5), (11, 16), (300, 37)):
        i = torch.randint(0, rows, shape, dtype=index)
        for padding in (-1, 0, rows - 1, rows, -2):
            same(values((*shape, cols), dtype), i, rows, padding)


def test_layouts():
    for g in layouts((6, 5, 20)):
        for i in layouts((6, 5), torch.int64):
            same(g, i.abs(), 12)


def test_f32_has_the_hosts_bits():
    g, i = values((3000, 50)), torch.randint(0, 9, (3000,))
    with gems.off():
        expected = backward(g, i, 9, 3, False)
    assert torch.equal(backward(g, i, 9, 3, False), expected)


def test_large():
    same(values((8, 512, 96)), torch.randint(0, 5000, (8, 512)), 5000)
    same(values((4096, 40)), torch.zeros(4096, dtype=torch.int64), 100_000)


def test_padding_may_be_out_of_range():
    i = torch.tensor([[3, -1, 0], [-1, -1, 4]])
    same(values((2, 3, 8)), i, 5, -1)
    same(values((2, 3, 8)), i, 5, 4, routed=False)


@pytest.mark.parametrize("bad", [-2, 20, 1 << 40, -(1 << 40)])
def test_out_of_range_is_what_the_host_makes_of_it(bad):
    i = torch.randint(0, 20, (30,))
    i[7] = bad
    same(values((30, 8)), i, 20, routed=False)
    agree(lambda w, i: F.embedding(i, w).sum().backward(), values((20, 8)).requires_grad_(), i, op=NAME, routed=False)


def test_left_to_the_host():
    g, i = values((6, 4)), torch.arange(6)
    for args in ((g, i, 6, -1, True), (g, i.short(), 6, -1, False), (g.int(), i, 6, -1, False), (g[:0], i[:0], 6, -1, False),
                 (g[:, :0], i, 6, -1, False), (g, i.view(2, 3), 6, -1, False), (g[:5], i, 6, -1, False), (g, i, 0, -1, False)):
        agree(backward, *args, op=NAME, routed=False)


def test_special_values():
    g = values((6, 20))
    g[0, 3], g[2, 3], g[1, 4], g[5, 4] = float("nan"), float("inf"), float("inf"), -float("inf")
    same(g, torch.tensor([0, 1, 0, 1, 2, 1]), 4)


def test_through_autograd():
    def step(weight, index, padding):
        weight.requires_grad_()
        F.embedding(index, weight, padding_idx=padding).square().sum().backward()
        return weight.grad
    for padding in (None, 0, 5):
        agree(step, values((11, 24)), torch.randint(0, 11, (4, 9)), padding, op=NAME)


def test_a_small_gpt():
    """Tied weights, both embeddings, layer norms and the loss: all of a step's gradients."""
    def step(wte, wpe, w1, b1, ln, ids):
        for p in (wte, wpe, w1, b1, *ln):
            p.requires_grad_()
        x = F.embedding(ids[:, :-1], wte) + F.embedding(torch.arange(ids.shape[1] - 1), wpe)
        x = x + F.gelu(F.linear(F.layer_norm(x, x.shape[-1:], ln[0], ln[1]), w1, b1))
        logits = F.linear(F.layer_norm(x, x.shape[-1:], ln[2], ln[3]), wte)
        loss = F.cross_entropy(logits.view(-1, logits.shape[-1]), ids[:, 1:].reshape(-1))
        loss.backward()
        return [loss.detach()] + [p.grad for p in (wte, wpe, w1, b1, *ln)]
    args = values((60, 32)), values((17, 32)), values((32, 32)), values((32,)), [values((32,)) for _ in range(4)], torch.randint(0, 60, (3, 18))
    for op in (NAME, "nll_loss_forward", "nll_loss_backward", "native_layer_norm_backward"):
        agree(step, *args, op=op, rtol=1e-4, atol=1e-4)
