"""Tests against the real PyTorch, in a process that is preloaded (make check-host starts it so)."""
import collections
import os
import pathlib
import sys
import zlib

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import gems  # noqa: E402


def pytest_configure(config):
    config.addinivalue_line("markers", "plain: does not need this process to be preloaded (starts processes of its own)")
    config.addinivalue_line("markers", "long: half a minute of building kernels; not in a sample")


def is_in_sample(item, seen):
    """Of a test's cases for several dtypes the first one and a sixth of the others; nothing that takes long."""
    import torch

    if "long" in item.keywords:
        return False
    params = item.callspec.params.values() if hasattr(item, "callspec") else ()
    if not any(isinstance(p, torch.dtype) for p in params):
        return True
    test = item.nodeid.split("[")[0]
    seen[test] += 1
    return seen[test] == 1 or zlib.crc32(item.nodeid.encode()) % 6 == 0


def pytest_collection_modifyitems(config, items):
    from inputs import FULL

    if not FULL:
        kept, left_out, seen = [], [], collections.Counter()
        for item in items:
            (kept if is_in_sample(item, seen) else left_out).append(item)
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept
    if gems.lib is None:
        for item in items:
            if "plain" not in item.keywords:
                raise pytest.UsageError("run these tests with LD_PRELOAD=<build>/libgems_preload.so GEMS_ROUTE=all")


@pytest.fixture(autouse=True)
def seeded():
    import torch

    torch.manual_seed(0)


@pytest.fixture
def env():
    """Environment for child processes: the library's path, and nothing that steers it but where the cache is."""
    e = {k: v for k, v in os.environ.items() if k in gems.CACHE or not k.startswith("GEMS_")}
    e["PYTHONPATH"] = str(pathlib.Path(__file__).parent)
    return e
