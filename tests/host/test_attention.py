"""scaled_dot_product_attention on the CPU backend: values, logsumexp, strides, masks, NaN and errors of the host."""
import ctypes

import pytest
import torch
import torch.nn.functional as F

import gems
from agree import agree

OP = "_scaled_dot_product_flash_attention_for_cpu"
flash = getattr(torch.ops.aten, OP)
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def sizes(q, k, v, dropout_p=0.0, is_causal=False, attn_mask=None, scale=None, **kwargs):
    """Of what is summed: weighted |v|, and by how much an error of the scores, one of the weights, counts more."""
    scale = abs(q.size(-1) ** -0.5 if scale is None else scale)
    scores = scale * q.abs() @ k.abs().repeat_interleave(q.size(1) // k.size(1), 1).mT
    if attn_mask is not None and attn_mask.dtype.is_floating_point:
        scores = scores + attn_mask.abs().nan_to_num(0, 0, 0)
    spread = 1 + scores.nan_to_num(0, 0, 0).amax(-1)
    given = {"attn_mask": attn_mask, "is_causal": is_causal, "scale": scale, "enable_gqa": k.size(1) != q.size(1)}
    if attn_mask is not None:
        given["is_causal"] = False
    return F.scaled_dot_product_attention(q, k, v.abs(), **given), spread


def near(*args, fn=flash, rounds=True, **kwargs):
    """rounds: weights of 16-bit dtypes may be rounded before they are multiplied by v, as matrix units take them."""
    def shaped(q, k, v, *rest, **more):
        out, spread = sizes(q, k, v, *rest, **more)
        exact = fn(q, k, v, *rest, **more)
        out = spread[..., None] * out
        return (out, spread + exact[1].abs()) if isinstance(exact, tuple) else out
    agree(fn, *args, op=OP, sums=args[0].size(-1) + args[1].size(-2), size=shaped,
          rounded=(lambda *a, **k: sizes(*a, **k)[0]) if rounds else None, **kwargs)


def qkv(batch, heads, queries, keys, head, dtype=torch.float32, kv_heads=None):
    return (torch.randn(batch, heads, queries, head).to(dtype), torch.randn(batch, kv_heads or heads, keys, head).to(dtype),
            torch.randn(batch, kv_heads or heads, keys, head).to(dtype))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("batch,heads,queries,keys,head", [(2, 4, 5, 7, 8), (1, 1, 1, 1, 1), (2, 3, 64, 64, 64), (1, 2, 100, 33, 64),
                                                           (1, 2, 33, 150, 64), (3, 2, 1, 70, 64), (1, 1, 130, 130, 40),
                                                           (1, 2, 20, 30, 100)])
def test_shapes(causal, batch, heads, queries, keys, head):
    near(*qkv(batch, heads, queries, keys, head), 0.0, causal)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dtypes(dtype):
    args = qkv(2, 3, 40, 70, 32, dtype)
    near(*args)
    near(*args, 0.0, True, attn_mask=torch.randn(40, 70).to(dtype))
    if dtype.itemsize == 2:
        near(*args, attn_mask=torch.randn(40, 70))


@pytest.mark.parametrize("shape", [(5, 70), (1, 70), (5, 1), (2, 1, 1, 70), (2, 4, 5, 70), (1, 4, 5, 70), (1, 1, 5, 1), (2, 1, 5, 70)],
                         ids=str)
def test_masks(shape):
    args = qkv(2, 4, 5, 70, 16)
    near(*args, attn_mask=torch.randn(shape))
    near(*args, attn_mask=torch.randn(shape[::-1]).permute(*range(len(shape) - 1, -1, -1)))
    near(*args, attn_mask=torch.rand(shape) > 0.3, fn=F.scaled_dot_product_attention)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("queries,keys,head", [(1, 300, 64), (70, 77, 64), (130, 257, 40), (300, 200, 128), (64, 600, 80), (150, 150, 256),
                                               (129, 65, 160), (40, 40, 20)])
def test_blocks(dtype, queries, keys, head):
    """Lengths around the blocks of the kernels for matrix units, heads of all their sizes."""
    args = qkv(2, 4, queries, keys, head, dtype, kv_heads=2)
    near(*args)
    near(*args, 0.0, True)
    rows = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in args]
    near(*rows, 0.0, True)
    mask = torch.randn(queries, keys).to(dtype)
    mask[queries // 2], mask[0, :keys // 2] = float("-inf"), torch.finfo(dtype).min
    near(*args, attn_mask=mask)
    near(*rows, 0.0, True, attn_mask=torch.rand(2, 1, 1, keys).to(dtype))
    near(args[0], *(x[:, :1].expand(-1, 2, -1, -1) for x in args[1:]))


def test_f32_of_all_sizes():
    """Elements that f32's parts (kernels/attention/parts.cl) cover, or not: of all sizes, or neither finite; in odd places."""
    def parted():
        return qkv(2, 4, 150, 300, 64, kv_heads=2)

    q, k, v = parted()
    near(q * 1e15, k * 1e-15, v * 1e20)
    near(q * 1e-12, k * 1e-12, v * 1e-12)
    near(q, k * 0, v * 0)
    near(*(torch.randn(2, 300, h, 67).transpose(1, 2)[..., 1:64] for h in (4, 2, 2)))
    for few in (slice(5, 6), slice(3, None)):
        v = parted()[2]
        v[0, 1, :, few] *= 1e-7
        k = parted()[1]
        k[1, 0, few] *= 1e-6
        near(q, k, v)
        near(q, k, v, 0.0, True)
    q, k, v = parted()
    k[0, 1, 290, 5], v[1, 0, 3, 60], q[0, 0, 149, 0] = float("inf"), float("nan"), float("-inf")
    near(q, k, v)


def test_rows_without_a_key():
    args, mask = qkv(2, 4, 5, 70, 16), torch.zeros(5, 70)
    mask[2], mask[3, 5:], mask[4, :66] = float("-inf"), float("-inf"), float("-inf")
    near(*args, attn_mask=mask)


def test_nan_and_inf():
    q, k, v = qkv(1, 2, 6, 70, 16)
    q[0, 0, 1, 3], k[0, 1, 60, 2], v[0, 0, 69, 7], q[0, 1, 2, 2] = float("nan"), float("nan"), float("nan"), float("inf")
    near(q, k, v)
    mask = torch.zeros(6, 70)
    mask[1, 2] = float("nan")
    near(*qkv(1, 2, 6, 70, 16), attn_mask=mask)
    mask[2, 3] = float("inf")  # gives NaN, but whether the host's logsumexp is NaN or inf depends on its vector width
    near(*qkv(1, 2, 6, 70, 16), fn=lambda *a, **k: flash(*a, **k)[0], attn_mask=mask)
    near(*(100 * x for x in qkv(1, 2, 6, 70, 16)))


@pytest.mark.parametrize("scale", [None, 0.3, -1.0])
def test_scale(scale):
    near(*qkv(2, 4, 5, 70, 16), scale=scale)


def test_layouts():
    q, k, v = qkv(2, 4, 5, 70, 16)
    packed = torch.randn(2, 50, 3, 4, 16).permute(2, 0, 3, 1, 4)
    near(packed[0], packed[1], packed[2])
    for other in [torch.randn(2, 5, 4, 16).transpose(1, 2), torch.randn(4, 2, 5, 16).transpose(0, 1),
                  torch.randn(1, 4, 5, 16).expand(2, 4, 5, 16), torch.randn(2, 1, 5, 16).expand(2, 4, 5, 16),
                  torch.randn(2, 4, 10, 16)[:, :, ::2], torch.randn(3, 5, 5, 20)[1:, :4, :, 3:19]]:
        near(other, k, v)
    for other in [torch.randn(2, 70, 4, 16).transpose(1, 2), torch.randn(2, 1, 70, 16).expand(2, 4, 70, 16)]:
        near(q, other, v)
        near(q, k, other)


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_grouped_queries(kv_heads):
    args = qkv(2, 4, 20, 70, 16, kv_heads=kv_heads)
    near(*args)
    near(*args, is_causal=True, enable_gqa=True, fn=F.scaled_dot_product_attention)


def test_what_the_host_does():
    q, k, v = qkv(2, 4, 5, 7, 8)
    agree(flash, q, k, v, 0.1, op=OP, routed=False)
    agree(flash, q, k, v, 0.0, True, scale=-1.0, op=OP, routed=False)
    agree(flash, q / 0.0, k, v, scale=0.0, op=OP, routed=False)
    agree(flash, q, k, torch.randn(2, 4, 7, 6), op=OP, routed=False)
    agree(flash, q, k, v, attn_mask=torch.ones(5, 7, dtype=torch.bool), op=OP, routed=False)
    agree(flash, q, k, v, attn_mask=torch.ones(7), op=OP, routed=False)
    agree(flash, q[0], k[0], v[0], op=OP, routed=False)
    agree(flash, q.int(), k.int(), v.int(), op=OP, routed=False)
    agree(flash, q, k.double(), v, op=OP, routed=False)
    agree(flash, q, torch.randn(2, 4, 8, 7).mT, v, op=OP, routed=False)
    agree(F.scaled_dot_product_attention, q, torch.randn(2, 4, 8, 7).mT, v, op=OP, routed=False, sums=70)
    agree(flash, q[:0], k[:0], v[:0], op=OP, routed=False)


def test_trains():
    """Forward is routed also where a gradient is wanted, and its logsumexp serves the host's backward."""
    args = [x.requires_grad_() for x in qkv(1, 2, 20, 30, 16)]

    def step():
        y = F.scaled_dot_product_attention(*args)
        return (y, *torch.autograd.grad(y.square().sum(), args))

    with gems.off():
        expected = step()
    before = gems.counters(OP)
    actual = step()
    assert gems.counters(OP).routed == before.routed + 1
    for e, a in zip(expected, actual):
        torch.testing.assert_close(a, e, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rule", ['"variant": "cpu", "params": {"bq": 16, "bk": 32}', '"variant": "gpu"', '"variant": "wgmma"',
                                  '"variant": "wgmma", "params": {"bq": 64}', '"variant": "wgmma", "params": {"bq": 128}',
                                  '"variant": "split", "params": {"bq": 64}', '"variant": "split", "params": {"bq": 128}', '"params": {"lane": 1}'])
def test_variants(rule):
    rounds = "cpu" not in rule and "gpu" not in rule
    error = ctypes.create_string_buffer(200)
    assert gems.lib.gems_table_set(('{"rules": [{"op": "%s", %s}]}' % (OP, rule)).encode(), error, 200) == 0, error.value
    try:
        for args in [qkv(2, 4, 5, 7, 16), qkv(1, 2, 100, 133, 16), qkv(1, 4, 70, 20, 14, kv_heads=2),
                     qkv(1, 3, 130, 70, 64, torch.bfloat16)]:
            n, m = args[0].size(2), args[1].size(2)
            mask = torch.randn(n, m).to(args[0].dtype)
            mask[n // 2] = float("-inf")
            near(*args, rounds=rounds)
            near(*args, 0.0, True, rounds=rounds)
            near(*args, attn_mask=mask, rounds=rounds)
    finally:
        gems.lib.gems_table_set(None, error, 200)
