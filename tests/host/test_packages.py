"""The packages that make deb and make wheel build: installed in folders of their own, used, removed."""
import fcntl
import json
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
import torch

import processes

ROOT = pathlib.Path(__file__).parents[2]
TORCH = pathlib.Path(torch.__file__).parents[1]  # the folder with PyTorch, for a Python without it
ADD = "import torch; a = torch.ones(8); print((a + a).sum().item())"


def run(*words, status=0, **more):
    """A process without anything of ours in its environment; what it printed."""
    done = processes.run(words, **{"preload": False, "MAKEFLAGS": None, "GEMS_PYTHON": sys.executable, **more})
    assert done.returncode == status, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def built(kind, pattern, folder):
    """A copy of the package, made by one process at a time: another may be testing it as well."""
    with open(processes.BUILD / "packages.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run("make", "-s", f"B={processes.BUILD}", kind, cwd=ROOT, timeout=1200)
        (package,) = (processes.BUILD / "dist").glob(pattern)
        return pathlib.Path(shutil.copy(package, folder))


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


def build_with_c(flags, folder):
    """A program in C that uses gems.h, made with a pkg-config file's flags."""
    (folder / "app.c").write_text('#include <gems.h>\n#include <stdio.h>\n'
                                  'int main(void) { puts(gems_version ? gems_version() : "alone"); return 0; }\n')
    run("cc", "-Wall", "-Werror", *flags.split(), "-o", folder / "app", folder / "app.c")
    return folder / "app"


# ---- Debian ----


@pytest.fixture
def deb(tmp_path):
    if not shutil.which("dpkg-shlibdeps") or not shutil.which("dpkg-gencontrol"):
        pytest.skip("dpkg-dev is not installed")
    return built("deb", "gems-preload_*_amd64.deb", tmp_path)


def test_deb_is_installed_used_and_purged(deb, tmp_path):
    root = tmp_path / "root"
    for folder in "info", "updates":
        (root / "var/lib/dpkg" / folder).mkdir(parents=True)
    (root / "var/lib/dpkg/status").touch()

    def dpkg(*words):  # what it depends on is in the system, which this root does not know
        run("dpkg", f"--root={root}", "--force-not-root", "--force-bad-path", "--force-depends", "--log=/dev/null",
            *words)

    dpkg("--install", deb)
    found = {name for name in files(root) if name.startswith("usr/")}
    doc = "usr/share/doc/gems-preload/"
    assert {"usr/bin/gems", "usr/lib/gems-preload/libgems_preload.so", "usr/include/gems.h",
            "usr/share/man/man1/gems.1.gz", "usr/lib/x86_64-linux-gnu/pkgconfig/gems-preload.pc",
            "usr/share/gems-preload/pocl.json", doc + "copyright", doc + "changelog.gz"} <= found

    gems, library = root / "usr/bin/gems", root / "usr/lib/gems-preload/libgems_preload.so"
    cache = {"GEMS_CACHE_DIR": tmp_path / "cache"}
    report = json.loads(run(gems, "doctor", "--json", **cache))
    assert report["problems"] == [] and report["library"] == str(library) and report["proof"]["routed"] == 1
    log = tmp_path / "log"
    assert run(gems, "run", "--route", "all", "--log", log, "--", sys.executable, "-c", ADD, **cache) == "16.0\n"
    assert re.search(r"^add\.Tensor .* -> routed", log.read_text(), re.M)

    config = {"PKG_CONFIG_PATH": root / "usr/lib/x86_64-linux-gnu/pkgconfig", "PKG_CONFIG_SYSROOT_DIR": root,
              "PKG_CONFIG_ALLOW_SYSTEM_CFLAGS": "1"}
    version = run("pkg-config", "--modversion", "gems-preload", **config)
    app = build_with_c(run("pkg-config", "--cflags", "gems-preload", **config), tmp_path)
    assert run(app) == "alone\n" and run(gems, "run", app) == version
    assert run("pkg-config", "--variable=preload", "gems-preload", **config).strip().endswith(
        "/usr/lib/gems-preload/libgems_preload.so")

    dpkg("--remove", "gems-preload")
    dpkg("--purge", "gems-preload")
    assert not {name for name in files(root) if not name.startswith("var/lib/dpkg/")}


def test_deb_depends_on_what_it_needs(deb):
    fields = dict(line.split(": ", 1) for line in run("dpkg-deb", "--field", deb).splitlines() if re.match(r"\S+: ", line))
    assert {"libc6", "libjansson4"} <= set(re.findall(r"[a-z][a-z0-9-]+", fields["Depends"]))
    assert "pocl-opencl-icd" in fields["Recommends"]
    assert fields["Version"] in (ROOT / "Makefile").read_text()
    assert fields["Version"] == re.match(r"gems-preload \((.*?)\)", (ROOT / "packaging/debian/changelog").read_text())[1]


def test_lintian_finds_nothing_wrong(deb):
    if not shutil.which("lintian"):
        pytest.skip("lintian is not installed")
    assert run("lintian", "--fail-on", "error,warning", deb) == ""


# ---- the wheel ----


@pytest.fixture
def wheel(tmp_path):
    return built("wheel", "gems_preload-*-py3-none-manylinux_2_28_x86_64.whl", tmp_path)


@pytest.fixture
def venv(tmp_path):
    """A fresh one; whose Python sees PyTorch by a variable."""
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    return tmp_path / "venv"


PROGRAM = """
import os, sys, torch, gems_preload as g
a = torch.ones(8)
with g.report() as counts:
    a + a
    with g.off():
        a + a
    with g.only("mul"):
        a + a
        a * a
    with g.use():
        a + a
try:
    with g.only("no_such_operator"):
        pass
except ValueError:
    print("refused")
print(g.active(), {name: (c["routed"], c["passed"]) for name, c in counts.items()}, sys.argv[1:])
"""


@pytest.mark.long
def test_wheel_is_installed_used_and_uninstalled(wheel, venv, tmp_path):
    python, command, before = venv / "bin/python", venv / "bin/gems", files(venv)
    run(python, "-m", "pip", "install", "--no-index", "--no-deps", wheel)
    assert "share/man/man1/gems.1" in files(venv)
    assert not {name for name in files(venv) - before if name.endswith(".pth") or "sitecustomize" in name}
    version = run(command, "--version")
    assert version == run(python, "-m", "gems_preload", "--version") and re.match(r"gems \d", version)

    seen = {"PYTHONPATH": TORCH, "GEMS_CACHE_DIR": tmp_path / "cache", "GEMS_PYTHON": None}
    for words in [command], [python, "-m", "gems_preload"]:
        report = json.loads(run(*words, "doctor", "--json", **seen))
        assert report["problems"] == [] and report["proof"]["routed"] == 1, report
        assert report["library"].startswith(str(venv))

    (tmp_path / "app.py").write_text(PROGRAM)
    options = ["--route", "all", "--log", "/dev/null"]  # with a log small calls are counted, too
    through = run(python, "-m", "gems_preload", "run", *options, "--", tmp_path / "app.py", "a b", **seen)
    assert through == "refused\nTrue {'add.Tensor': (2, 2), 'mul.Tensor': (1, 0)} ['a b']\n"
    assert run(command, "run", *options, "--", python, tmp_path / "app.py", "a b", **seen) == through
    assert run(python, tmp_path / "app.py", **seen) == "False {} []\n"
    assert run(python, "-m", "gems_preload", "run", *options, "--", "-c", ADD, **seen) == "16.0\n"
    run(python, "-m", "gems_preload", "run", tmp_path / "app.py", status=1, **seen)

    env = f"""
import gems_preload as g, os, subprocess, sys
env = g.env(route="all", exclude="mul*", log_once=True)
assert env == dict(GEMS_ROUTE="all", GEMS_EXCLUDE="mul*", GEMS_LOG_ONCE="1", LD_PRELOAD=g.library + ":" + os.environ["LD_PRELOAD"]), env
done = subprocess.run([sys.executable, "-c", "import gems_preload; print(gems_preload.active())"], env={{**os.environ, **env}})
try:
    g.env(route="fast")
except ValueError as e:
    print(e)
"""
    said = run(python, "-c", env, **seen, LD_PRELOAD="/usr/lib/x86_64-linux-gnu/libm.so.6")
    assert said == "True\ngems run: --route: fast: makes no sense; accepted: table, all or off\n"

    folder = next(venv.glob("lib/python*/site-packages/gems_preload"))
    flags = run("pkg-config", "--cflags", "gems-preload", PKG_CONFIG_PATH=folder / "lib/pkgconfig")
    assert run(command, "run", build_with_c(flags, tmp_path)).strip() == version.split()[1]

    run(python, "-m", "pip", "uninstall", "--yes", "gems-preload")
    assert not {name for name in files(venv) - before if "__pycache__" not in name or "gems" in name}


@pytest.mark.long
def test_wheel_holds_the_same_library(wheel, tmp_path):
    """Built by another compiler, it exports the same names, and asks nothing of the system that glibc 2.28 lacks."""
    shutil.unpack_archive(wheel, tmp_path / "wheel", "zip")

    def exported(library):
        return {line.split()[-1] for line in run("nm", "-D", "--defined-only", library).splitlines()}

    library = tmp_path / "wheel/gems_preload/lib/libgems_preload.so"
    assert exported(library) == exported(processes.LIBRARY)
    for file in library, tmp_path / "wheel/gems_preload/bin/gems", *(tmp_path / "wheel/gems_preload.libs").iterdir():
        wanted = re.findall(r"\bGLIBC_2\.(\d+)", run("objdump", "-T", file))
        assert wanted and max(map(int, wanted)) <= 28, file
