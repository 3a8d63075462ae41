"""Real programs as child processes, plain and preloaded, for the tests of whole processes."""
import math
import os
import pathlib
import re
import shutil
import subprocess
import sys

import gems

PROGRAMS = pathlib.Path(__file__).parent / "programs"
LIBRARY = pathlib.Path(gems.library_path() or "")
BUILD = LIBRARY.parent


def environment(preload=True, **variables):
    """This process's environment without anything of ours but the cache, then the library if wanted, with all kernels in
    use, then those of GEMS_TEST_WITH (NAME=VALUE ...), then the given variables (None removes one)."""
    env = {k: v for k, v in os.environ.items() if k in gems.CACHE or not k.startswith("GEMS_") and k != "LD_PRELOAD"}
    env["OMP_NUM_THREADS"] = "1"
    if preload:
        env.update(LD_PRELOAD=str(LIBRARY), GEMS_ROUTE="all", GEMS_REPORT="1")
        env.update(pair.split("=", 1) for pair in os.environ.get("GEMS_TEST_WITH", "").split())
    for key, value in variables.items():
        if value is None:
            env.pop(key, None)
        else:
            env[key] = str(value)
    return env


def run(command, preload=True, timeout=300, cwd=None, **variables):
    """Runs a command to its end, whatever its status. Text on both streams."""
    return subprocess.run([str(word) for word in command], env=environment(preload, **variables), text=True,
                          capture_output=True, timeout=timeout, cwd=cwd, check=False, stdin=subprocess.DEVNULL)


def python(program, *arguments, **options):
    """Runs a file of programs/, or a program given as text, with this Python."""
    where = [PROGRAMS / program] if program.endswith(".py") else ["-c", program]
    return run([sys.executable, *where, *arguments], **options)


def routed(done):
    """Calls that ran on the device, from the report on stderr (added up, if several processes wrote one)."""
    totals = re.findall(r"^\S*\s*total\s+(\d+)", done.stderr, re.MULTILINE)
    assert totals, f"no report on stderr:\n{done.stderr}"
    return sum(map(int, totals))


def complaints(done):
    """What the library said on stderr beside its report."""
    return [line for line in done.stderr.splitlines() if line.startswith("gems-preload: ")]


def alike(expected, actual, rtol=2e-5, atol=1e-6):
    """Asserts that two texts are the same, numbers within the tolerance."""
    left, right = expected.split(), actual.split()
    assert len(left) == len(right), f"plain:\n{expected}\npreloaded:\n{actual}"
    for a, b in zip(left, right):
        if a != b:
            try:
                close = math.isclose(float(a), float(b), rel_tol=rtol, abs_tol=atol)
            except ValueError:
                close = False
            assert close, f"{a} became {b}\nplain:\n{expected}\npreloaded:\n{actual}"


def same_as_plain(command, plain=None, status=0, **options):
    """Runs a command plain (unless a finished plain run is given) and preloaded: same output, same exit status. Returns
    the preloaded run."""
    plain = plain or run(command, preload=False)
    assert plain.returncode == status, plain.stderr
    done = run(command, **options)
    assert done.returncode == status, f"status {done.returncode}\n{done.stderr}"
    alike(plain.stdout, done.stdout)
    return done


def cpp_app():
    """The program made from programs/app.cpp with the headers and libraries of the installed PyTorch; kept beside the
    library. Optimised, as users' programs are: then it holds PyTorch's undefined tensor itself (a copy relocation)."""
    import torch

    source, torch_folder = PROGRAMS / "app.cpp", pathlib.Path(torch.__file__).parent
    app = BUILD / "tests" / f"app-{torch.__version__}"
    if app.exists() and app.stat().st_mtime > source.stat().st_mtime:
        return app
    app.parent.mkdir(parents=True, exist_ok=True)
    made = app.with_suffix(f".{os.getpid()}")
    libraries = torch_folder / "lib"
    run([shutil.which("g++"), "-std=c++17", "-O2", "-o", made, source, f"-I{torch_folder / 'include'}",
         f"-D_GLIBCXX_USE_CXX11_ABI={int(torch._C._GLIBCXX_USE_CXX11_ABI)}", f"-L{libraries}",
         f"-Wl,-rpath,{libraries}", "-Wl,--no-as-needed", "-ltorch_cpu", "-lc10"], preload=False).check_returncode()
    made.replace(app)
    return app
