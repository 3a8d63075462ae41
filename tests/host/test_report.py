"""GEMS_REPORT and GEMS_LOG on real programs: a call is one call, and its reason is true."""
from processes import python

PROGRAM = """
import torch
x, y = torch.ones(4, 4), torch.ones(4, 4)
with torch.inference_mode():  # tensors from outside: PyTorch counts the write, then the call comes again
    x.add_(1)
    torch.mul(x, y, out=y)
x.divide_(2)  # a composite: its part is routed
torch.func.grad(lambda a: a.neg().sum())(x)
"""


def counts(done):
    """{operator: (routed, left to the host, why)}"""
    words = [line.split(None, 7) for line in done.stderr.splitlines() if line.startswith("gems: ")]
    return {w[1]: (int(w[2]), int(w[3]), w[7] if len(w) > 7 else "") for w in words if w[2].isdigit()}


def test_a_call_is_counted_once_with_its_last_outcome():
    seen = counts(python(PROGRAM))
    assert seen["add_.Tensor"] == (1, 0, "")  # left to PyTorch above ADInplaceOrView, routed below
    assert seen["mul.out"] == (1, 0, "")
    assert seen["neg"][0] + seen["neg"][1] == 2  # forward and backward


def test_a_plain_tensor_is_not_said_to_be_none():
    seen = counts(python(PROGRAM))
    assert seen["divide_.Tensor"] == (0, 1, "PyTorch must count the write (1)")
    assert seen["div_.Tensor"] == (1, 0, "")
