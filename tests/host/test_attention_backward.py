"""Gradients of attention: values, the host's strides, masks, layouts of the output's gradient, and what the host does.

They are asked for through autograd: Python calls the operator itself past what is preloaded. (test_thunks.py calls it.)"""
import ctypes

import pytest
import torch
import torch.nn.functional as F

import gems
from agree import agree
from inputs import FLOATS, layouts, some

forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
OP = "_scaled_dot_product_flash_attention_for_cpu_backward"


def gradients(g, q, k, v, *args, fn=forward, **kwargs):
    """The three gradients, with `g` just as it is, after the host's forward pass."""
    inputs = [x.detach().requires_grad_() for x in (q, k, v)]
    with gems.off(), torch.enable_grad():
        out = fn(*inputs, *args, **kwargs)
    return torch.autograd.grad(out[0] if isinstance(out, tuple) else out, inputs, g)


def sizes(g, q, k, v, dropout_p=0.0, is_causal=False, attn_mask=None, scale=None, **kwargs):
    """Of what is summed, an error of the scores being one of the weights, which are summed in turn."""
    scale = q.size(-1) ** -0.5 if scale is None else scale
    group = q.size(1) // k.size(1)
    many = lambda x: x.repeat_interleave(group, 1)  # noqa: E731
    few = lambda x: x.unflatten(1, (-1, group)).sum(2)  # noqa: E731
    scores, bound = scale * q @ many(k).mT, abs(scale) * q.abs() @ many(k).abs().mT
    if attn_mask is not None:
        scores, bound = scores + attn_mask, bound + attn_mask.abs().nan_to_num(0, 0, 0)
    if is_causal:
        scores = scores.masked_fill(~torch.ones(scores.shape[-2:], dtype=torch.bool).tril(), float("-inf"))
    p = scores.softmax(-1).nan_to_num(0) * (1 + 2 * bound.amax(-1, keepdim=True))
    g, q, k, v = g.abs(), q.abs(), many(k).abs(), many(v).abs()
    slope = g @ v.mT
    ds = abs(scale) * p * (slope + (p * slope).sum(-1, keepdim=True))
    return ds @ k, few(ds.mT @ q), few(p.mT @ g)


def near(g, q, k, v, *args, routed=True, **kwargs):
    agree(gradients, g, q, k, v, *args, op=OP, routed=routed, sums=q.size(-1) + q.size(-2) + k.size(-2), size=sizes, **kwargs)


def gqkv(batch, heads, queries, keys, head, dtype=torch.float32, kv_heads=None):
    q, kv = (batch, heads, queries, head), (batch, kv_heads or heads, keys, head)
    return tuple(torch.randn(s).to(dtype) for s in (q, q, kv, kv))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shape", [(2, 4, 5, 7, 8), (1, 1, 1, 1, 1), (2, 3, 64, 64, 64), (1, 2, 100, 33, 64), (1, 2, 33, 150, 64),
                                   (3, 2, 1, 70, 64), (1, 1, 130, 130, 40), (1, 2, 20, 30, 100), (1, 1, 400, 400, 64)], ids=str)
def test_shapes(shape, causal):
    near(*gqkv(*shape), 0.0, causal)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_dtypes(dtype):
    args = gqkv(2, 3, 40, 70, 32, dtype)
    near(*args)
    near(*args, 0.0, True)
    near(*args, attn_mask=torch.randn(40, 70).to(dtype))
    if dtype.itemsize == 2:
        near(*args, attn_mask=torch.randn(40, 70))


@pytest.mark.parametrize("shape", [(5, 70), (1, 70), (5, 1), (2, 1, 1, 70), (2, 4, 5, 70), (1, 4, 5, 70), (2, 1, 5, 70)], ids=str)
def test_masks(shape):
    near(*gqkv(2, 4, 5, 70, 16), attn_mask=torch.randn(shape))
    near(*gqkv(2, 4, 5, 70, 16), 0.0, True, attn_mask=torch.randn(shape))


def test_rows_without_a_key():
    mask = torch.zeros(5, 70)
    mask[2], mask[3, 5:], mask[4, :66] = float("-inf"), float("-inf"), float("-inf")
    near(*gqkv(2, 4, 5, 70, 16), attn_mask=mask)


@pytest.mark.parametrize("scale", [0.3, -1.0])
def test_scale(scale):
    near(*gqkv(2, 4, 5, 70, 16), scale=scale)


def test_layouts():
    """Whatever the operands' strides, those of the gradients are the host's."""
    g, q, k, v = gqkv(2, 4, 5, 70, 16)
    for other in [*layouts((2, 4, 5, 16)), torch.randn(2, 5, 4, 16).transpose(1, 2), torch.randn(()).expand(2, 4, 5, 16),
                  torch.randn(4, 2, 5, 16).transpose(0, 1), torch.randn(2, 5, 64).view(2, 5, 4, 16).transpose(1, 2)]:
        near(other, q, k, v)
        if other.stride(3) == 1:
            near(g, other, k, v)
    packed = torch.randn(2, 50, 3, 4, 16).permute(2, 0, 3, 1, 4)
    near(torch.randn(2, 50, 4, 16).transpose(1, 2), packed[0], packed[1], packed[2], 0.0, True)
    for other in [torch.randn(2, 70, 4, 16).transpose(1, 2), torch.randn(2, 1, 70, 16).expand(2, 4, 70, 16),
                  torch.randn(2, 4, 140, 16)[:, :, ::2], torch.randn(3, 5, 70, 20)[1:, :4, :, 3:19]]:
        near(g, q, other, v)
        near(g, q, k, other)


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_grouped_queries(kv_heads):
    args = gqkv(2, 4, 20, 70, 16, kv_heads=kv_heads)
    near(*args)
    near(*args, 0.0, True)


def test_nan_and_inf():
    for i in range(4):
        args = gqkv(1, 2, 6, 70, 16)
        args[i][0, 1, 3, 2] = float("nan")
        near(*args)
        args[i][0, 1, 3, 2] = float("inf")
        near(*args)
    near(*(5 * x for x in gqkv(1, 2, 6, 70, 16)))


def test_what_the_host_does():
    args = gqkv(2, 4, 5, 7, 8)
    near(*args, 0.0, True, scale=-1.0, routed=False)
    near(*(x.to(torch.float32)[:0] for x in args), routed=False)


@pytest.mark.parametrize("causal", [False, True])
def test_through_autograd(causal):
    """As a model calls it: heads are a transposed view, and the result is put back."""
    def step(x, w, masked):
        x, w = x.detach().requires_grad_(), w.detach().requires_grad_()
        q, k, v = (t.unflatten(-1, (4, 16)).transpose(1, 2) for t in (x @ w).chunk(3, -1))
        mask = torch.ones(50, 50, dtype=torch.bool).tril() if masked else None
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal and not masked)
        y = y.transpose(1, 2).flatten(2)
        return torch.autograd.grad(y.square().sum(), (x, w))

    for masked in (False, True):
        args = torch.randn(2, 50, 64), torch.randn(64, 192) / 8, masked
        with gems.off():
            expected = step(*args)
        before = gems.counters(OP).routed
        actual = step(*args)
        assert gems.counters(OP).routed == before + 1
        for e, a in zip(expected, actual):
            assert e.stride() == a.stride()
            torch.testing.assert_close(a, e, rtol=1e-5, atol=1e-4)


def test_twice_has_the_same_bits():
    args = gqkv(2, 4, 200, 150, 64)
    for one, two in zip(gradients(*args), gradients(*args)):
        assert torch.equal(one, two)


@pytest.mark.long
@pytest.mark.parametrize("rule", ['"variant": "cpu", "params": {"kept": 32, "walked": 24}', '"variant": "gpu"',
                                  '"params": {"passes": 1}', '"params": {"passes": 2}', '"params": {"lane": 1}'])
def test_variants(rule):
    error = ctypes.create_string_buffer(200)
    assert gems.lib.gems_table_set(('{"rules": [{"op": "%s", %s}]}' % (OP, rule)).encode(), error, 200) == 0, error.value
    try:
        for args in some([gqkv(1, 2, 100, 133, 16), gqkv(2, 4, 5, 7, 16), gqkv(1, 4, 70, 20, 14, kv_heads=2), gqkv(1, 1, 70, 90, 70)]):
            mask = torch.randn(args[1].size(2), args[2].size(2))
            mask[2] = float("-inf")
            near(*args)
            near(*args, 0.0, True)
            near(*args, attn_mask=mask)
    finally:
        gems.lib.gems_table_set(None, error, 200)
