"""Every operator that has a kernel, on the sample inputs of samples.py: the routed call agrees with the host. Small and quick: this
is what also runs under Oclgrind, a sanitizer or another OpenCL implementation; the test of each family goes further."""
import copy

import pytest
import torch

import gems
import samples
from agree import agree

WITH_KERNEL = [row for row in samples.ROWS if gems.lib.gems_operator_has_kernel(row.name.encode()) == 1]


@pytest.fixture(scope="module")
def pool():
    with gems.off():
        return samples.samples()


@pytest.mark.parametrize("row", WITH_KERNEL, ids=lambda row: row.name)
def test_agrees_and_is_routed(row, pool):
    assert pool[row.name], "no sample inputs"
    reasons, before = [], gems.counters(row.name).routed
    for args in pool[row.name]:
        # What an out= argument holds before is not an input: give both sides the same.
        args = [torch.zeros_like(a) if p.written and row.out else copy.deepcopy(a) for p, a in zip(row.params, args)]
        positional, keywords = samples.positional(row, args)
        with torch.no_grad():
            agree(row.host, *positional, routed=None, rtol=2e-5, atol=2e-5, **keywords)
        reasons.append(gems.last_reason())
    assert gems.counters(row.name).routed > before, f"never routed: {set(reasons)}"
