"""What the library exports is what it is meant to: the functions of gems.h, the interposed symbols and the wrapped
functions of libc, nothing else."""
import pathlib
import re
import subprocess

import gems
import rows

ROOT = pathlib.Path(__file__).parents[2]


def exported():
    out = subprocess.run(["nm", "-D", "--defined-only", gems.library_path()], capture_output=True, text=True, check=True).stdout
    return {line.split()[-1].split("@")[0] for line in out.splitlines()}


def intended():
    functions = set(re.findall(r"^GEMS_API [^(]*?(\w+)\(", (ROOT / "preload/gems.h").read_text(), re.M))
    interposed = {name for names in gems.describe("symbols").values() for name in names}
    libc = re.findall(r"^EXPORT\([\w *]+, (\w+),", (ROOT / "preload/libc.c").read_text(), re.M)
    assert len(libc) == len(set(libc)) >= 60
    return functions | set(libc), interposed


def test_exports():
    functions, interposed = intended()
    assert len(functions) >= 15 and len(interposed) > 900
    registration = "_ZNR5torch7Library5_implEPKcONS_11CppFunctionENS_17_RegisterOrVerifyE"  # shim/library.c
    allocator = {"_ZN3c109alloc_cpuEm", "_ZN3c108free_cpuEPv"}  # shim/alloc.c
    assert exported() == functions | interposed | allocator | {registration}


def test_every_row_has_its_symbols():
    """Names are mangled from the rows; that they are PyTorch's own is proven against libtorch in test_rows.py."""
    symbols = gems.describe("symbols")
    operators = rows.operators()
    assert symbols.keys() == operators.keys()
    for name, row in operators.items():
        names = symbols[name]
        assert sum("4callE" in n for n in names) == 1, row
        assert sum("10redispatchE" in n for n in names) == 1, row
        assert (f"aoti_torch_cpu_{name.replace('.', '_')}" in names) == row["aoti"]


def test_needs_nothing_but_the_system_and_jansson():
    """OpenCL, CLBlast and PyTorch are found when they are needed: a program without them pays nothing."""
    out = subprocess.run(["readelf", "-d", gems.library_path()], capture_output=True, text=True, check=True).stdout
    needed = set(re.findall(r"NEEDED.*\[(.*?)\]", out))
    assert {n.split(".so")[0] for n in needed} <= {"libjansson", "libc", "libm", "libdl", "libpthread", "libgcc_s",
                                               "ld-linux-x86-64"}
    assert "TEXTREL" not in out
