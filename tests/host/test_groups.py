"""Devices whose work-groups have few items: the kernels for GPUs, on a PoCL that says so of itself."""
import pathlib

import pytest

from processes import complaints, python

PROGRAM = """
import ctypes, sys, torch
import gems
from agree import agree
from inputs import on_groups

def calls():
    x, y = torch.randn(300, 70), torch.randn(5, 4, 33).transpose(0, 2)
    for op, fn in [("sum.dim_IntList", lambda a: a.sum(0)), ("sum.dim_IntList", lambda a: a.sum(-1)), ("amax", lambda a: a.amax(0)),
                   ("max.dim", lambda a: a.max(0).values), ("argmax", lambda a: a.argmax(-1)), ("cumsum", lambda a: a.cumsum(-1)),
                   ("softmax.int", lambda a: a.softmax(-1)), ("flip", lambda a: a.flip(0)), ("add.Tensor", lambda a: a + a)]:
        for t in (x, y):
            agree(fn, t, op=op, rtol=1e-4, atol=1e-5)
    agree(torch.layer_norm, x, [70], op="layer_norm", rtol=1e-4, atol=1e-5)
    for a, b in ((x, x.t()), (x[:3], x.t()), (x, x[:70]), (x[:1], x.t())):
        agree(torch.mm, a, b[:70], op="mm", sums=70)
    q = torch.randn(1, 2, 40, 16)
    agree(torch.nn.functional.scaled_dot_product_attention, q, q, q, op="_scaled_dot_product_flash_attention_for_cpu", rtol=1e-4, atol=1e-5)

on_groups(calls)
error = ctypes.create_string_buffer(256)
assert gems.lib.gems_table_set(b'{"rules": [{"op": "*", "variant": "gpu"}]}', error, 256) == 0, error.value
calls()
print("fine")
"""


@pytest.mark.long
@pytest.mark.parametrize("most", [16, 64])
def test_few_items(most):
    done = python(PROGRAM, GEMS_ROUTE="all", POCL_MAX_WORK_GROUP_SIZE=most, PYTHONPATH=pathlib.Path(__file__).parent)
    assert done.stdout == "fine\n" and not complaints(done), done.stdout + done.stderr
