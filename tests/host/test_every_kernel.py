"""Every operator that has a kernel, on the sample inputs of samples.py, called as compiled code calls it: routed at least once,
and it agrees with the host. Small and quick: this is what also runs under Oclgrind, a sanitizer and another OpenCL
implementation; the test of each family goes further.

GEMS_TEST_EVERY=family: one operator of each family and kernel only, and in a sample no gradients of attention, which take
llvmpipe four minutes to compile."""
import os

import pytest
import torch

import agree
import gems
import hostcall
import inputs
import samples

WITH_KERNEL = [row for row in samples.ROWS if gems.lib.gems_operator_has_kernel(row.name.encode()) == 1]
if os.environ.get("GEMS_TEST_EVERY") == "family":
    WITH_KERNEL = list({(row.fields["family"], row.fields["kernel"]): row for row in WITH_KERNEL}.values())
    if not inputs.FULL:
        WITH_KERNEL = [row for row in WITH_KERNEL if not ("attention" in row.name and "backward" in row.name)]
SYMBOLS = samples.symbols()


# Where none of the recorded samples is one that the kernel takes.
MORE = {
    "all.dims": [torch.eye(5), [0], False],
    "any.dims": [torch.eye(5), [0], False],
    "all.dims_out": [torch.eye(5), [0], False, torch.zeros(5, dtype=torch.bool)],
    "any.dims_out": [torch.eye(5), [0], False, torch.zeros(5, dtype=torch.bool)],
    "fill.Scalar": [torch.rand(3, 4), 2.5],
    "native_group_norm": [torch.rand(2, 3, 16), torch.rand(3), None, 2, 3, 16, 3, 1e-5],
    "ones_like": [torch.rand(3, 4), None, None, None, None, None],
}


@pytest.fixture(scope="module")
def pool():
    with gems.off():
        pool = samples.samples()
    for name, args in MORE.items():
        pool[name].append(args)
    return pool


def call(row, args):
    return hostcall.call_cpp(getattr(gems.lib, SYMBOLS[row.struct]["call"]), row, args, None)


@pytest.mark.parametrize("row", WITH_KERNEL, ids=lambda row: row.name)
@torch.inference_mode()  # without it an operator that has an autograd formula is routed only below it
def test_agrees_and_is_routed(row, pool):
    assert pool[row.name], "no sample inputs"
    reasons, before = set(), gems.counters(row.name).routed
    for args in pool[row.name]:
        with gems.off():
            host_args, our_args = samples.copy(args), samples.copy(args)
            expected = call(row, host_args)
        actual = call(row, our_args)
        reasons.add(gems.last_reason())
        with gems.off():
            agree.same(expected, actual, rtol=2e-5, atol=2e-5)
            agree.same(host_args, our_args, rtol=2e-5, atol=2e-5)
    assert gems.counters(row.name).routed > before, f"never routed: {reasons}"
