"""Tests against the real PyTorch, in a process that is preloaded (make check-host starts it so)."""
import os
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import gems  # noqa: E402


def pytest_configure(config):
    config.addinivalue_line("markers", "plain: does not need this process to be preloaded (starts processes of its own)")


def pytest_collection_modifyitems(items):
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
    """Environment for child processes: the library's path, and nothing that steers it."""
    e = {k: v for k, v in os.environ.items() if not k.startswith("GEMS_")}
    e["PYTHONPATH"] = str(pathlib.Path(__file__).parent)
    return e
