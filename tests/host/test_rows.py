"""Every row of shim/ops.json, and every form of it, against the installed PyTorch: its schema, its symbols, the list of
operators to cover."""
import importlib.util
import json
import pathlib
import re

import pytest
import torch

import gems
import rows

ROWS = rows.operators()
HOST = pathlib.Path(torch.__file__).parent / "lib/libtorch_cpu.so"
HEADER = pathlib.Path(torch.__file__).parent / "include/torch/csrc/inductor/aoti_torch/generated/c_shim_cpu.h"
THUNKS = pathlib.Path(gems.library_path() or "").parent / "gen/thunks.c"


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


coverage = load(gems.ROOT / "scripts/coverage.py")


def struct(name):
    return name.replace(".", "_")


def each(of=lambda row: True):
    return pytest.mark.parametrize("name", [name for name, row in ROWS.items() if of(row)])


@pytest.fixture(scope="module")
def schemas():
    """{"add_.Tensor": the library's schema for it}: from the row, or derived from it"""
    return {operator["name"]: operator["schema"] for operator in gems.describe("operators")}


@pytest.fixture(scope="module")
def host():
    return coverage.dynamic_symbols(HOST)


@pytest.fixture(scope="module")
def ours():
    return coverage.our_symbols(gems.library_path())


def test_the_file_is_the_rows():
    assert json.loads((gems.ROOT / "shim/ops.json").read_text()) == rows.LINES


# Nothing is normalised: it is exactly what PyTorch prints, its odd decimals of 1e-05 included.
@each()
def test_schema(name, schemas):
    assert schemas[name] == ROWS[name]["schema"]


# The library's symbols are made from the schemas alone. A wrong type would give a symbol that the host does not have.
@each()
def test_symbols(name, ours, host):
    entries = ours[struct(name)]
    assert set(entries) == {"call", "redispatch"} | ({"aoti"} if ROWS[name]["aoti"] else set())
    assert set(entries.values()) <= host


def test_no_other_symbols(ours):
    assert sorted(ours) == sorted(map(struct, ROWS))


@each()
def test_c_shim_is_taken_where_there_is_one(name, host):
    assert ROWS[name]["aoti"] == (f"aoti_torch_cpu_{struct(name)}" in host)


def has(name, key):
    return torch._C._dispatch_has_kernel_for_dispatch_key(f"aten::{name}", key)


# Composite: PyTorch differentiates through the operator's parts, so nothing is redispatched below autograd. (It passes
# over autograd for a few more, such as bitwise_and: which ones, test_thunks.py finds out by calling them.)
@pytest.mark.parametrize("name", [n for n in ROWS if has(n, "CompositeImplicitAutograd")])
def test_composite(name):
    assert ROWS[name]["composite"]


def test_every_operator_of_flaggems():
    wanted = (gems.ROOT / "tests/host/flaggems-3.0.txt").read_text().split()
    assert len(wanted) == 290
    assert set(wanted) <= set(map(struct, ROWS))


# The C shim has no mangled names: a thunk's C parameters are compared with the header that PyTorch ships.
@pytest.mark.skipif(not HEADER.exists(), reason="this installation of PyTorch has no headers (c_shim_cpu.h)")
@pytest.mark.skipif(not THUNKS.exists(), reason="the library came without its build folder")
@each(lambda row: row["aoti"])
def test_c_shim_signature(name):
    line = re.search(rf"^typedef int32_t {struct(name)}_aoti_fn\((.*)\);$", THUNKS.read_text(), re.M)[1]
    declared = re.search(rf"\baoti_torch_cpu_{struct(name)}\((.*)\);$", HEADER.read_text(), re.M)[1]
    assert [plain(p) for p in line.split(", ")] == [plain(p) for p in declared.split(", ")]


def plain(parameter):
    """Name and type. A pointer is a pointer: lists come as void *, whatever is in them, and our results' names end in '_'."""
    kind, identifier = re.fullmatch(r"(.*?)(\w+)", parameter.replace("AtenTensorHandle", "void *")).groups()
    return identifier.rstrip("_"), "pointer" if "*" in kind else kind.strip()
