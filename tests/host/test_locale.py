"""A program may set a locale in which numbers have a decimal comma: what is read and written stays as it is."""
import os
import re
import subprocess
import sys

import pytest

import gems

PROGRAM = """
import locale, sys
sys.path.insert(0, sys.argv[1])
locale.setlocale(locale.LC_ALL, "de_DE.UTF-8")
assert locale.localeconv()["decimal_point"] == ","
import torch
import gems

x = torch.linspace(-3, 3, 4096)
calls = {"gelu": lambda: torch.nn.functional.gelu(x), "lerp.Scalar": lambda: torch.lerp(x, x + 1, 0.25),
         "pow.Tensor_Scalar": lambda: x.abs() ** 0.5, "angle": lambda: torch.angle(x),
         "softplus": lambda: torch.nn.functional.softplus(x, 0.5), "sum": lambda: x.abs().sum(), "softmax.int": lambda: x.view(64, 64).softmax(1),
         "layer_norm": lambda: torch.layer_norm(x, (4096,)), "mean": lambda: x.abs().mean(),
         "mm": lambda: x.view(64, 64) @ x.view(64, 64)}
for name, call in calls.items():
    with gems.off():
        expected = call()
    before = gems.counters(name).routed
    torch.testing.assert_close(call(), expected)
    assert gems.counters(name).routed > before, (name, gems.last_reason())
assert locale.localeconv()["decimal_point"] == ","
"""


@pytest.fixture(scope="module")
def german(tmp_path_factory):
    folder = tmp_path_factory.mktemp("locale")
    subprocess.run(["localedef", "-i", "de_DE", "-f", "UTF-8", folder / "de_DE.UTF-8"], check=True)
    return folder


def test_decimal_comma(german, tmp_path):
    """The table, given as text, has decimal points too. Kernels are kept by their text: one with a comma would be built."""
    log = tmp_path / "log"
    env = os.environ | {"LOCPATH": str(german), "GEMS_LOG": str(log), "GEMS_REPORT": "1",
                        "GEMS_TUNE_JSON": '{"rules": [{"op": "gelu", "gain": 1.25}]}'}
    done = subprocess.run([sys.executable, "-c", PROGRAM, gems.ROOT / "tests/host"], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "0.25" in log.read_text() and "0,25" not in log.read_text()
    assert re.search(r"total .* \d+\.\d\d ", done.stderr)
