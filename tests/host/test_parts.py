"""Operators without a kernel that the host makes of others ("parts" in shim/ops.json): all that they name is routed."""
import pytest
import torch
from torch.nn import functional

import gems
import rows
from agree import agree
from inputs import values

aten = torch.ops.aten
MADE = {name: row["parts"] for name, row in rows.operators().items() if "parts" in row}

A, B, Q = values((20, 20)), values((20, 20)), values((2, 3, 8, 16))
CALLS = {
    "_scaled_dot_product_attention_math": [lambda: aten._scaled_dot_product_attention_math(Q, Q, Q)],
    "allclose": [lambda: torch.allclose(A, A), lambda: torch.allclose(A, B)],
    "embedding_backward": [lambda: aten.embedding_backward(A, torch.arange(20) // 3, 9, -1, False, False)],
    "full": [lambda: torch.full((3, 5), 7), lambda: torch.full((3, 5), 0.5, dtype=torch.bfloat16)],
    "hstack": [lambda: torch.hstack([A, B])],
    "hstack.out": [lambda: torch.hstack([A, B], out=torch.empty(20, 40))],
    "kron": [lambda: torch.kron(A, B)],
    "kron.out": [lambda: torch.kron(A, B, out=torch.empty(400, 400))],
    "matmul": [lambda: A @ B, lambda: Q @ Q.mT, lambda: A @ B[0], lambda: A[0] @ B[0]],
    "ones": [lambda: torch.ones(3, 5)],
    "pad": [lambda: functional.pad(A, (1, 2, 3, 4), value=0.5)],
    "quantile": [lambda: torch.quantile(A, 0.3, dim=1)],
    "repeat_interleave.self_int": [lambda: torch.repeat_interleave(A, 3, dim=1)],
    "resolve_conj": [lambda: torch.resolve_conj(A) + 0],
    "resolve_neg": [lambda: torch.resolve_neg(A) + 0],
    "scaled_dot_product_attention": [lambda: functional.scaled_dot_product_attention(Q, Q, Q)],
    "tile": [lambda: torch.tile(A, (2, 3))],
    "vstack": [lambda: torch.vstack([A, B])],
    "vstack.out": [lambda: torch.vstack([A, B], out=torch.empty(40, 20))],
}


def parts_of(name):
    """Of a form with `out` those that have it, too, of others those that have not."""
    parts = [p for p in MADE[name].split() if p != "none"]
    given = [p for p in parts if p.endswith("out") == name.endswith("out")]
    return given or parts


def test_there_are_calls_of_each():
    assert set(CALLS) == set(MADE)
    assert all(operator["parts"] == MADE.get(operator["name"]) for operator in gems.describe("operators"))


@pytest.mark.parametrize("name", sorted(MADE))
def test_its_parts_are_routed(name):
    before = {part: gems.counters(part).routed for part in parts_of(name)}
    for call in CALLS[name]:
        agree(call, routed=None, rtol=1e-5, atol=1e-5)
    for part, routed in before.items():
        assert gems.counters(part).routed > routed, part
