"""Random programs with fixed seeds, plain and preloaded (fuzz.py says what is compared; `make fuzz` runs further ones)."""
import sys

import pytest

import processes


@pytest.mark.parametrize("variables, seed, programs", [
    (["GEMS_FUSE=all"], 1000, 100), (["GEMS_FUSE=auto"], 2000, 30),
    # Each operator's own kernel, too, of so few that they are soon built.
    (["GEMS_ROUTE=all", "GEMS_ONLY=add.Tensor,where.self,copy_"], 3000, 6),
    # What they read and write stays on the device.
    (["GEMS_ROUTE=all", "GEMS_MEMORY=staged", "GEMS_RESIDENT=force", "GEMS_ONLY=add.Tensor,where.self,copy_,add_.Tensor,mul_.Tensor"],
     4000, 12)])
def test_random_programs(variables, seed, programs, tmp_path):
    done = processes.run([sys.executable, processes.PROGRAMS.parent / "fuzz.py", processes.LIBRARY, *variables, "--seed", seed,
                          "--programs", programs, "--folder", tmp_path, "--no-reduce"], preload=False, timeout=600,
                         GEMS_CACHE_MB="4096")
    scripts = "\n".join(path.read_text().split("# ---- the program ----")[1] for path in sorted(tmp_path.iterdir())[:1])
    assert done.returncode == 0, f"{done.stdout}{done.stderr}{scripts}"


def test_an_error_is_found(tmp_path):
    """A wrong value, a wrong last bit of what is exact, a missing exception: fuzz.py's own comparison sees them."""
    import numpy as np

    import fuzz

    one, off = np.ones(4, np.float32), np.array([1, 1, 1, 1 + 2 ** -23], np.float32)
    assert fuzz.differ("exact", "float32", one, None, off) and not fuzz.differ("exact", "float32", one, None, one.copy())
    assert fuzz.differ("exact", "float32", one * 0, None, one * -0.0) and not fuzz.differ("order", "float32", one * 0, None, one * -0.0)
    assert not fuzz.differ("close", "float32", one, off, off) and fuzz.differ("close", "float32", one, off, one + 0.001)
    assert not fuzz.differ("exact", "float32", one * np.nan, None, -one * np.nan)
    plain = {"errors": {1: "RuntimeError"}, "reads": [1], "live": {}}
    assert fuzz.compare("exact", plain, None, {**plain, "errors": {}}) and not fuzz.compare("exact", plain, None, plain)
    assert fuzz.compare("exact", plain, None, {"died": "why"}) and fuzz.compare("exact", plain, None, {**plain, "reads": [2]})
