#!/usr/bin/env python3
"""Which of our symbols do other PyTorch releases export?

A release is looked at from outside: its wheel is downloaded as pip would install it, libtorch_cpu.so is taken out, its
dynamic symbols are compared with those that libgems_preload.so interposes, and both are deleted again. A changed
signature is a changed name, so what matches by name has exactly the arguments that the thunk expects.

  coverage.py [--lib build/libgems_preload.so] [--markdown FILE] [VERSION ...]

Without versions: the newest patch of every minor release from 2.6 on that PyPI has (about 0.9 GB is downloaded for each).
A VERSION may also be the path of a libtorch_cpu.so.
"""
import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile

OLDEST = (2, 6)
MEMBER = "torch/lib/libtorch_cpu.so"
PLATFORMS = ["manylinux_2_28_x86_64", "manylinux2014_x86_64", "manylinux1_x86_64"]


def dynamic_symbols(path):
    """Names that an ELF file defines in its dynamic symbol table."""
    command = ["nm", "--dynamic", "--defined-only", "--format=just-symbols", path]
    return set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())


def struct_of(symbol):
    """<struct> of the symbol of a function at::_ops::<struct>::..., or None."""
    found = re.match(r"_ZN2at4_ops(\d+)", symbol)
    return found and symbol[found.end() : found.end() + int(found[1])]


def our_symbols(lib):
    """{operator struct: {"call"|"redispatch"|"aoti": symbol}} of what the library interposes."""
    ours = {}
    for symbol in dynamic_symbols(lib):
        if symbol.startswith("aoti_torch_cpu_"):
            ours.setdefault(symbol[len("aoti_torch_cpu_") :], {})["aoti"] = symbol
        elif struct := struct_of(symbol):
            entry = "redispatch" if "10redispatchE" in symbol else "call"
            ours.setdefault(struct, {})[entry] = symbol
    return ours


def released_versions():
    text = subprocess.run(
        [sys.executable, "-m", "pip", "index", "versions", "torch"], check=True, capture_output=True, text=True
    ).stdout
    newest = {}
    for version in re.search(r"Available versions: (.*)", text)[1].split(", "):
        if re.fullmatch(r"\d+\.\d+\.\d+", version):
            number = tuple(map(int, version.split(".")))
            if number[:2] >= OLDEST:
                newest[number[:2]] = max(number, newest.get(number[:2], number))
    return [".".join(map(str, newest[minor])) for minor in sorted(newest)]


def symbols_of(version):
    if os.path.isfile(version):
        return dynamic_symbols(version)
    folder = tempfile.mkdtemp(prefix="gems-coverage-")
    try:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-cache-dir"]
        command += ["--no-deps", "--only-binary=:all:", "--python-version", "3.11", "--dest", folder]
        for platform in PLATFORMS:
            command += ["--platform", platform]
        subprocess.run([*command, f"torch=={version}"], check=True)
        (wheel,) = (os.path.join(folder, f) for f in os.listdir(folder))
        with zipfile.ZipFile(wheel) as z:
            library = z.extract(MEMBER, folder)
        os.remove(wheel)
        return dynamic_symbols(library)
    finally:
        shutil.rmtree(folder)


def compare(ours, theirs):
    """Numbers found and wanted an entry, and the operators of which not a single entry is there, or not all."""
    found = {entry: [0, 0] for entry in ("call", "redispatch", "aoti")}
    absent, partial = [], []
    for operator, entries in sorted(ours.items()):
        there = [e for e, s in entries.items() if s in theirs]
        for e in entries:
            found[e][0] += e in there
            found[e][1] += 1
        if not there:
            absent.append(operator)
        elif len(there) < len(entries):
            partial.append((operator, sorted(set(entries) - set(there))))
    return found, absent, partial


def split_absent(operators, theirs):
    """Of absent operators: those that the release does not know, and those that it has with other arguments."""
    known = {struct_of(symbol) for symbol in theirs}
    return [o for o in operators if o not in known], [o for o in operators if o in known]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("versions", nargs="*", metavar="VERSION")
    parser.add_argument("--lib", default="build/libgems_preload.so")
    parser.add_argument("--markdown", help="also write the table to this file")
    args = parser.parse_args()

    ours = our_symbols(args.lib)
    table = ["| PyTorch | operators | `call` | `redispatch` | C shim |", "|---|---|---|---|---|"]
    notes = []
    for version in args.versions or released_versions():
        theirs = symbols_of(version)
        found, absent, partial = compare(ours, theirs)
        cells = [f"{n} of {m}" for n, m in found.values()]
        table.append(f"| {version} | {len(ours) - len(absent)} of {len(ours)} | " + " | ".join(cells) + " |")
        unknown, changed = split_absent(absent, theirs)
        for what, operators in [
            ("does not have", unknown),
            ("has with other arguments", changed),
            ("exports in part", [f"{o} (no {', '.join(e)})".replace("aoti", "C shim") for o, e in partial]),
        ]:
            if operators:
                notes.append(f"- {version} {what}: " + ", ".join(f"`{o}`" for o in operators))
        print(table[-1], file=sys.stderr, flush=True)
    text = "\n".join(table) + "\n" + ("\n" + "\n".join(notes) + "\n" if notes else "")
    print(text, end="")
    if args.markdown:
        with open(args.markdown, "w") as f:
            f.write(text)


if __name__ == "__main__":
    main()
