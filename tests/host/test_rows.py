"""Every row of shim/ops.json against the installed PyTorch: its schema, its symbols, the list of operators to cover."""
import importlib.util
import json
import pathlib
import re

import pytest
import torch

import gems

ROWS = [json.loads(line.rstrip(",\n")) for line in (gems.ROOT / "shim/ops.json").open() if line.startswith("{")]
HOST = pathlib.Path(torch.__file__).parent / "lib/libtorch_cpu.so"
HEADER = pathlib.Path(torch.__file__).parent / "include/torch/csrc/inductor/aoti_torch/generated/c_shim_cpu.h"
THUNKS = pathlib.Path(gems.library_path() or "").parent / "gen/thunks.c"


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


coverage = load(gems.ROOT / "scripts/coverage.py")


def name(row):
    return row["schema"].split("(")[0]


def struct(row):
    return name(row).replace(".", "_")


@pytest.fixture(scope="module")
def schemas():
    """{"add.Tensor": what PyTorch prints for it}"""
    every = torch._C._jit_get_all_schemas()
    return {s.name[6:] + ("." + s.overload_name if s.overload_name else ""): str(s)[6:] for s in every if s.name[:6] == "aten::"}


@pytest.fixture(scope="module")
def host():
    return coverage.dynamic_symbols(HOST)


@pytest.fixture(scope="module")
def ours():
    return coverage.our_symbols(gems.library_path())


def test_the_file_is_the_rows():
    assert json.loads((gems.ROOT / "shim/ops.json").read_text()) == ROWS


# Nothing is normalised: a row holds exactly what PyTorch prints, its odd decimals of 1e-05 included.
@pytest.mark.parametrize("row", ROWS, ids=name)
def test_schema(row, schemas):
    assert row["schema"] == schemas[name(row)]


# The library's symbols are made from the schemas alone. A wrong type would give a symbol that the host does not have.
@pytest.mark.parametrize("row", ROWS, ids=name)
def test_symbols(row, ours, host):
    entries = ours[struct(row)]
    assert set(entries) == {"call", "redispatch"} | ({"aoti"} if "aoti" in row else set())
    assert set(entries.values()) <= host
    assert row.get("aoti", f"aoti_torch_cpu_{struct(row)}") == f"aoti_torch_cpu_{struct(row)}"


def test_no_other_symbols(ours):
    assert sorted(ours) == sorted(map(struct, ROWS))


@pytest.mark.parametrize("row", ROWS, ids=name)
def test_c_shim_is_taken_where_there_is_one(row, host):
    assert ("aoti" in row) == (f"aoti_torch_cpu_{struct(row)}" in host)


def has(row, key):
    return torch._C._dispatch_has_kernel_for_dispatch_key(f"aten::{name(row)}", key)


# Composite: PyTorch differentiates through the operator's parts, so nothing is redispatched below autograd. (It passes
# over autograd for a few more, such as bitwise_and: which ones, test_thunks.py finds out by calling them.)
@pytest.mark.parametrize("row", [r for r in ROWS if has(r, "CompositeImplicitAutograd")], ids=name)
def test_composite(row):
    assert row.get("composite")


def test_every_operator_of_flaggems():
    wanted = (gems.ROOT / "tests/host/flaggems-3.0.txt").read_text().split()
    assert len(wanted) == 290
    assert set(wanted) <= set(map(struct, ROWS))


# The C shim has no mangled names: a thunk's C parameters are compared with the header that PyTorch ships.
@pytest.mark.skipif(not HEADER.exists(), reason="this installation of PyTorch has no headers (c_shim_cpu.h)")
@pytest.mark.skipif(not THUNKS.exists(), reason="the library came without its build folder")
@pytest.mark.parametrize("row", [r for r in ROWS if "aoti" in r], ids=name)
def test_c_shim_signature(row):
    line = re.search(rf"^typedef int32_t {struct(row)}_aoti_fn\((.*)\);$", THUNKS.read_text(), re.M)[1]
    declared = re.search(rf"\b{row['aoti']}\((.*)\);$", HEADER.read_text(), re.M)[1]
    assert [plain(p) for p in line.split(", ")] == [plain(p) for p in declared.split(", ")]


def plain(parameter):
    """Name and type. A pointer is a pointer: lists come as void *, whatever is in them, and our results' names end in '_'."""
    kind, identifier = re.fullmatch(r"(.*?)(\w+)", parameter.replace("AtenTensorHandle", "void *")).groups()
    return identifier.rstrip("_"), "pointer" if "*" in kind else kind.strip()
