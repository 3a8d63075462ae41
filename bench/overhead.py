"""What interposing costs: a call that is not routed, one that is, `import torch`, the first call cold and warm. Each figure
is a difference between processes with and without the preload, started in turn."""
import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent


def library():
    for entry in os.environ.get("LD_PRELOAD", "").replace(" ", ":").split(":"):
        if "libgems_preload" in entry:
            return entry
    return None


LIBRARY = library()


def plain_env(**extra):
    """The environment without us."""
    e = {k: v for k, v in os.environ.items() if not k.startswith("GEMS_")}
    rest = [x for x in e.pop("LD_PRELOAD", "").replace(" ", ":").split(":") if x and x != LIBRARY]
    if rest:
        e["LD_PRELOAD"] = ":".join(rest)
    return {**e, "OMP_NUM_THREADS": "1", **extra}


def preload_env(**extra):
    e = plain_env(**extra)
    e["LD_PRELOAD"] = ":".join([LIBRARY] + [x for x in [e.get("LD_PRELOAD")] if x])
    return e


# Nanoseconds a call, the best of several stretches: what disturbs can only add.
LOOP = """
import sys, time, torch
a, b = torch.ones(4, 4), torch.ones(4, 4)
n = int(sys.argv[1])
def stretch():
    start = time.perf_counter_ns()
    for _ in range(n):
        torch.add(a, b)
    return (time.perf_counter_ns() - start) / n
stretch()
print(min(stretch() for _ in range(int(sys.argv[2]))))
"""
# Wall time, and the process's CPU time, which other work on the machine disturbs less.
IMPORT = """
import resource, time
start = time.perf_counter_ns()
import torch
wall = time.perf_counter_ns() - start
used = resource.getrusage(resource.RUSAGE_SELF)
print(wall, (used.ru_utime + used.ru_stime) * 1e9)
"""
# A fresh process in which nothing was routed before the clock starts: not even torch.ones, which is. Wall and CPU time.
FIRST = """
import time, torch
a = torch.empty(1024, 1024)
def once():
    start = time.perf_counter_ns()
    torch.add(a, a)
    return time.perf_counter_ns() - start
used = time.process_time_ns()
first = once()
used = time.process_time_ns() - used
print(first, used, once(), min(once() for _ in range(20)))
"""


def child(command, env):
    return subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout.split()


def python(text, env, *args):
    return [float(x) for x in child([sys.executable, "-c", text, *map(str, args)], env)]


def paired(run, pairs, **preloaded):
    """Medians of the plain figures, of the preloaded ones, and of differences and ratios within a pair."""
    plain, ours = [], []
    for i in range(pairs):
        for which in ((plain, ours) if i % 2 else (ours, plain)):
            which.append(run(preload_env(**preloaded) if which is ours else plain_env()))
    m = statistics.median
    return {"plain_ns": m(plain), "preloaded_ns": m(ours), "added_ns": m(b - a for a, b in zip(plain, ours)),
            "best_added_ns": min(ours) - min(plain), "ratio": m(b / a for a, b in zip(plain, ours)), "pairs": pairs}


def build_loop(folder):
    """loop.cpp against the PyTorch of this Python; None where there is no compiler."""
    import torch
    import torch.utils.cpp_extension as cpp

    lib = pathlib.Path(torch.__file__).parent / "lib"
    exe = pathlib.Path(folder) / "loop"
    includes = [f"-I{d}" for d in cpp.include_paths()]
    command = ["c++", "-O2", "-std=c++17", f"-D_GLIBCXX_USE_CXX11_ABI={int(torch._C._GLIBCXX_USE_CXX11_ABI)}", *includes,
               str(HERE / "loop.cpp"), "-o", str(exe), f"-L{lib}", f"-Wl,-rpath,{lib}", "-ltorch", "-ltorch_cpu", "-lc10"]
    try:
        subprocess.run(command, check=True, env=plain_env(), capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as e:
        print(f"no C++ loop: {getattr(e, 'stderr', e) or e}"[:400], file=sys.stderr)
        return None
    return str(exe)


def measure_first(folder):
    """The first routed call of a process."""
    cold, warm, cpu, second, steady = [], [], [], [], []
    for i in range(3):
        cache = os.path.join(folder, f"cache{i}")
        # Vendors keep caches of their own beside ours: new ones for each cold start.
        env = preload_env(GEMS_ROUTE="all", GEMS_CACHE_DIR=cache, CUDA_CACHE_PATH=cache + "-cuda")
        cold.append(python(FIRST, env)[0])
        for _ in range(5):
            for figures, ns in zip((warm, cpu, second, steady), python(FIRST, env)):
                figures.append(ns)
    m = statistics.median
    return {"cold_ns": m(cold), "warm_ns": m(warm), "warm_best_ns": min(warm), "warm_cpu_ns": m(cpu),
            "second_ns": m(second), "steady_ns": m(steady)}


def measure(pairs=9):
    """All figures; takes about two minutes, most of it `import torch`."""
    out = {}
    folder = tempfile.mkdtemp()
    try:
        exe = build_loop(folder)
        if exe:
            def loop(env):
                return float(child([exe, "20000", "60"], env)[0])
            out["not routed, C++"] = paired(loop, 2 * pairs, GEMS_ROUTE="off")
            out["as the table says, C++"] = paired(loop, pairs)
            out["routed, C++"] = paired(loop, pairs, GEMS_ROUTE="all")
        out["not routed, Python"] = paired(lambda e: python(LOOP, e, 20000, 30)[0], pairs, GEMS_ROUTE="off")
        for i, name in enumerate(("import torch", "import torch, CPU time")):
            out[name] = paired(lambda e, i=i: python(IMPORT, e)[i], pairs)
        out["first call"] = measure_first(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return out


def markdown(figures):
    lines = ["| | plain | preloaded | added (median of pairs) | best less best | ratio |", "|---|---:|---:|---:|---:|---:|"]
    units = {"import torch": (1e6, "ms"), "import torch, CPU time": (1e6, "ms")}
    for name, f in figures.items():
        if "plain_ns" not in f:
            continue
        by, unit = units.get(name, (1.0, "ns"))
        what = name if name in units else f"one 4x4 add, {name}"
        lines.append(f"| {what} | {f['plain_ns'] / by:.0f} {unit} | {f['preloaded_ns'] / by:.0f} {unit} | "
                     f"{f['added_ns'] / by:.1f} {unit} | {f['best_added_ns'] / by:.1f} {unit} | {f['ratio']:.3f} |")
    f = figures.get("first call")
    if f:
        lines += ["", f"First routed call of a process (1024x1024 add): {f['cold_ns'] / 1e6:.0f} ms cold, "
                  f"{f['warm_ns'] / 1e6:.0f} ms with a warm binary cache (best {f['warm_best_ns'] / 1e6:.0f}, CPU time "
                  f"{f['warm_cpu_ns'] / 1e6:.0f}), then {f['second_ns'] / 1e6:.1f} and {f['steady_ns'] / 1e6:.2f} ms."]
    return lines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, epilog="To be started with the library in LD_PRELOAD.")
    parser.add_argument("--first", action="store_true", help="the first routed call only")
    parser.add_argument("--pairs", type=int, default=9, help="pairs of processes for each figure (default: 9)")
    args = parser.parse_args()
    if not LIBRARY:
        parser.error("libgems_preload.so is not in LD_PRELOAD")
    if args.first:
        with tempfile.TemporaryDirectory() as scratch:
            print(json.dumps(measure_first(scratch), indent=1))
    else:
        print(json.dumps(measure(args.pairs), indent=1))
