"""A call through every single thunk, by `call`, `redispatch` and the C shim, with fall-through only: each is entered, and
gives the host's result. Exceptions of the host pass through, too. The calls are made by every_thunk.py in one process of
its own; a thunk that ends the process is named, and those after it fail as not reached."""
import json
import os
import pathlib
import subprocess
import sys

import pytest
import torch

import gems
import samples

HERE = pathlib.Path(__file__).parent


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    log = tmp_path_factory.mktemp("thunks") / "log"
    log.touch()
    env = {k: v for k, v in os.environ.items() if not k.startswith("GEMS_")} | {"GEMS_ROUTE": "off", "GEMS_LOG": str(log)}
    done = subprocess.run([sys.executable, HERE / "every_thunk.py"], env=env, capture_output=True, text=True, timeout=600)
    found = {}
    for line in done.stdout.splitlines():
        struct, entry, wrong = json.loads(line)
        found[struct, entry] = wrong
    return found, done.stderr[-2000:]


EVERY = [(r.struct, e) for r in samples.ROWS for e in ("call", "redispatch") + (("aoti",) if r.aoti else ())]


@pytest.mark.parametrize("struct, entry", EVERY, ids=lambda x: x)
def test_falls_through(struct, entry, outcome):
    found, stderr = outcome
    assert (struct, entry) in found, f"not reached: {stderr}"
    assert found[struct, entry] is None, found[struct, entry] + stderr


def test_nothing_else(outcome):
    assert sorted(outcome[0]) == sorted(EVERY)


# The originals throw C++ exceptions: through our frames, the host's own words arrive.
BAD = {
    "hidden result": lambda: torch.add(torch.ones(2), torch.ones(3)),
    "reference": lambda: torch.ones(2).add_(torch.ones(3)),
    "out": lambda: torch.mm(torch.ones(2, 2), torch.ones(3, 2), out=torch.ones(2, 2)),
    "tuple": lambda: torch.max(torch.ones(2, 2), 5),
    "bool": lambda: torch.allclose(torch.ones(2), torch.ones(2, dtype=torch.float64)),
    "stack arguments": lambda: torch.div(torch.ones(2), torch.ones(2), rounding_mode="nonsense"),
    "list": lambda: torch.cat([torch.ones(2), torch.ones(2, 2)]),
    "composite": lambda: torch.nn.functional.linear(torch.ones(2, 3), torch.ones(2, 2)),
    "below autograd": lambda: torch.mm(torch.ones(2, 2, requires_grad=True), torch.ones(3, 2)),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_exceptions_pass(bad):
    with gems.off(), pytest.raises((RuntimeError, IndexError)) as expected:
        bad()
    with pytest.raises(expected.type) as actual:
        bad()
    assert str(actual.value) == str(expected.value)
