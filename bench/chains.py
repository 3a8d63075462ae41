#!/usr/bin/env python3
"""Times unmodified programs whose pointwise operators can be computed together: plain, with the pool, fused, by torch.compile.

    make bench-chains                                        # results in bench/results/chains.{md,json,png}
    make bench-chains CHAINS="--only 'gelu,heat' --sizes 1M --modes plain,pool,fused,compile"
    make bench-chains CHAINS=--quick                         # a few minutes

It must run under the preload (make sees to it), which its worker processes then have or have not. plain: without the
library. pool: with it, GEMS_FUSE=off. fused: GEMS_FUSE=auto. compile: torch.compile of the same function, without the
library. The workers of all modes live at the same time and take turns; each pass has new ones, because the luck of a process's heap
alone can make a program half or twice as fast. A ratio is plain's time by the mode's: above 1 is faster."""
import argparse
import contextlib
import datetime
import fnmatch
import importlib.metadata
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests" / "host")]
import bars  # noqa: E402
import overhead  # noqa: E402

SIZES = {"32": 32, "64K": 1 << 16, "256K": 1 << 18, "1M": 1 << 20, "4M": 1 << 22, "16M": 1 << 24}
MODES = {"plain": None, "pool": {"GEMS_FUSE": "off"}, "fused": {"GEMS_FUSE": "auto"}, "compile": None}
NAMES = "black_scholes gelu mandelbrot heat rms_norm adamw kmeans nbody filters adam adam_foreach one_operator two_operators tiny".split()
LARGEST = {"mandelbrot": 1 << 22, "adam": 1 << 22, "adam_foreach": 1 << 22}  # larger ones take too long
LOW = 0.97  # less is marked
UNITS = {"float32": 2.0 ** -23, "float64": 2.0 ** -52, "float16": 2.0 ** -10, "bfloat16": 2.0 ** -7}


# ---- the measured processes ----

def worker(mode, threads):
    """Reads commands from stdin, a JSON object a line, and answers with one each."""
    import programs
    import torch

    torch.set_grad_enabled(False)
    torch.set_num_threads(threads)
    functions, args, answers = dict(programs.PROGRAMS), None, os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def touch(values):
        for x in values:
            for t in x if isinstance(x, (list, tuple)) else [x]:
                if isinstance(t, torch.Tensor):
                    t.view(-1)[0].item()

    def run(name):
        """Seconds until the results can be read, those that the program wrote to its arguments too, and the results."""
        start = time.perf_counter()
        out = functions[name](*args)
        touch((out, *args))
        return time.perf_counter() - start, out

    def ready(name, n):
        made = programs.inputs(name, n)
        touch(made)
        return made

    for line in sys.stdin:
        command = json.loads(line)
        name = command["name"]
        if command["do"] == "prepare":
            args = None
            if mode == "compile" and functions[name] is programs.PROGRAMS[name]:
                functions[name] = torch.compile(functions[name])
            args = ready(name, command["n"])
            first, out = run(name)
            answer = {"first": first}
            if mode == "plain":
                torch.save(out, command["file"])
            elif "file" in command:
                answer["difference"] = difference(out, torch.load(command["file"]))
            del out
        elif command["do"] == "warm":  # what is compiled in the background may need some calls
            start, best, count = time.perf_counter(), math.inf, 0
            better = start
            while count < 3 or (now := time.perf_counter()) < start + command["seconds"] or (
                    mode == "fused" and now < min(better + 3, start + 25)):
                took = run(name)[0]
                count += 1
                if took < 0.9 * best:
                    best, better = took, time.perf_counter()
            answer = {"seconds": min(run(name)[0] for _ in range(2))}
        else:
            answer = {"times": [run(name)[0] for _ in range(command["repeats"])]}
        print(json.dumps(answer), file=answers, flush=True)


def difference(ours, plain):
    """The largest difference, relative to the largest value, in units of the dtype's last place. By NumPy: what is compared
    must not be part of what is tested."""
    import numpy

    o, p = (t.numpy().astype(numpy.float64) for t in (ours, plain))
    finite = numpy.isfinite(p)
    if not (numpy.isfinite(o) == finite).all():
        return math.inf
    return float(abs(o - p)[finite].max() / max(abs(p)[finite].max(), 1e-300) / UNITS[str(plain.dtype)[6:]]) if finite.any() else 0.0


class Worker:
    def __init__(self, mode, threads, scratch, errors=None, **variables):
        env = (overhead.plain_env if MODES[mode] is None else overhead.preload_env)(
            OMP_NUM_THREADS=str(threads), OMP_WAIT_POLICY="passive", PYTHONWARNINGS="ignore",
            GEMS_CACHE_DIR=f"{scratch}/gems", POCL_CACHE_DIR=f"{scratch}/pocl", TORCHINDUCTOR_CACHE_DIR=f"{scratch}/inductor")
        if MODES[mode]:
            chosen = {name: os.environ[name] for name in ("GEMS_VENDOR", "GEMS_DEVICE") if name in os.environ}
            env.update(MODES[mode], **chosen, **variables)
        for folder in ("gems", "pocl", "inductor"):
            os.makedirs(f"{scratch}/{folder}", exist_ok=True)
        self.mode = mode
        self.process = subprocess.Popen([sys.executable, __file__, "--worker", mode, "--threads", str(threads)], text=True, env=env,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)

    def ask(self, **command):
        try:
            print(json.dumps(command), file=self.process.stdin, flush=True)
            return json.loads(self.process.stdout.readline())
        except (BrokenPipeError, ValueError):
            sys.exit(f"{self.mode} ended with status {self.process.wait()} at {command}")

    def stop(self):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()


# ---- measuring ----

def one_pass(cases, results, args, say):
    """All cases once, in new processes with new caches; adds to {label: {mode: {times, firsts, difference}}}."""
    with tempfile.TemporaryDirectory() as scratch:
        workers = {mode: Worker(mode, args.threads, f"{scratch}/{mode}") for mode in args.modes}
        for label, (name, n) in cases.items():
            case = results.setdefault(label, {mode: {"times": [], "firsts": [], "differences": []} for mode in args.modes})
            for mode, w in workers.items():
                answer = w.ask(do="prepare", name=name, n=n, file=f"{scratch}/plain.pt")
                case[mode]["firsts"].append(answer["first"])
                case[mode]["differences"].append(answer.get("difference", 0.0))
            warm = [w.ask(do="warm", name=name, seconds=args.seconds / 4)["seconds"] for w in workers.values()]
            for mode, w in workers.items():  # the results again, from inputs like the first
                answer = w.ask(do="prepare", name=name, n=n, file=f"{scratch}/plain.pt")
                case[mode]["differences"].append(answer.get("difference", 0.0))
            repeats = max(1, min(500, int(args.seconds / args.rounds / max(warm))))
            for i in range(args.rounds):
                for mode in args.modes[i % len(args.modes):] + args.modes[:i % len(args.modes)]:
                    case[mode]["times"] += workers[mode].ask(do="run", name=name, repeats=repeats)["times"]
            say(label, case)
        for w in workers.values():
            w.stop()


def report(name, n, args):
    """What GEMS_REPORT=1 says of ten fused runs."""
    with tempfile.TemporaryDirectory() as scratch, open(f"{scratch}/errors", "w+") as errors:
        w = Worker("fused", args.threads, scratch, errors, GEMS_REPORT="1")
        w.ask(do="prepare", name=name, n=n)
        w.ask(do="run", name=name, repeats=10)
        w.stop()
        errors.seek(0)
        return errors.read()


def ratio(case, mode, value=min):
    return value(case["plain"]["times"]) / value(case[mode]["times"])


# ---- what is written ----

def markdown(result):
    modes, head = result["modes"], result["machine"]
    others = [m for m in modes if m != "plain"]
    lines = ["# Chains of pointwise operators", "",
             f"{head['date']}, {head['cpu']}, {head['cpus']} cores, {head['threads']} threads, PyTorch {head['torch']}, gems-preload {head['library']}; "
             f"{result['passes']} passes of new processes. A ratio is plain's time by the mode's, of the least times, and after the comma of the "
             f"medians; above 1 is faster. First call: in a new process, nothing compiled before, caches empty (median of the passes). "
             f"Difference: the largest to plain's results, relative to the largest value, in units of the dtype's last place. "
             f"**Low**: less than {LOW}.", "",
             "| " + " | ".join(["program", "elements", "plain, ms"] + others + ["first call: plain, ms"] + [f"{m}, ms" for m in others] + ["difference", ""]) + " |",
             "|---|---|" + "---:|" * (3 + 2 * len(others)) + "---:|---|"]
    for label, case in result["cases"].items():
        name, size = label.split()
        low = [m for m in others if m != "compile" and min(ratio(case, m), ratio(case, m, statistics.median)) < LOW]
        cells = [name, size, f"{1e3 * min(case['plain']['times']):.3f}"]
        cells += [f"{ratio(case, m):.2f}, {ratio(case, m, statistics.median):.2f}" for m in others]
        cells += [f"{1e3 * statistics.median(case[m]['firsts']):.1f}" for m in modes]
        cells += [", ".join(f"{max(case[m]['differences']):.2g}" for m in others), "**low**: " + ", ".join(low) if low else ""]
        lines.append("| " + " | ".join(cells) + " |")
    large = [c for label, c in result["cases"].items()
             if SIZES[label.split()[1]] >= SIZES["1M"] and not label.split()[0].endswith(("operator", "operators"))]
    if large and others:
        lines += ["", "Geometric means from 1M elements on, without those of one and two operators: " + "; ".join(
            f"{m} {statistics.geometric_mean(ratio(c, m) for c in large):.2f} (medians {statistics.geometric_mean(ratio(c, m, statistics.median) for c in large):.2f})"
            for m in others) + f"; {len(large)} cases."]
    for label, text in result.get("reports", {}).items():
        lines += ["", f"## GEMS_REPORT of {label}", "", "```", text.strip(), "```"]
    return "\n".join(lines) + "\n"


def picture(result, path):
    """A group of bars a program, a bar a mode; of the size that has most cases, 4M before others."""
    sizes = [label.split()[1] for label in result["cases"]]
    others = [m for m in result["modes"] if m != "plain"]
    if not sizes or not others:
        return
    size = max(sizes, key=lambda s: (sizes.count(s), s == "4M", SIZES[s]))
    rows = {label.split()[0]: case for label, case in result["cases"].items() if label.split()[1] == size}
    bars.draw(path, f"{size} elements: plain PyTorch's time by the mode's (above 1: faster)",
              {name: {m: ratio(case, m) for m in others} for name, case in rows.items()})


def machine(threads):
    import gems

    models = [line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo", encoding="utf-8") if line.startswith("model name")]
    return {"cpu": models[0] if models else "unknown CPU", "cpus": len(os.sched_getaffinity(0)), "threads": threads,
            "torch": importlib.metadata.version("torch"), "library": gems.lib.gems_version().decode(), "date": datetime.date.today().isoformat()}


def thinned(times):
    """About twenty of them, the least and the largest among them."""
    times = sorted(times)
    some = times[::max(1, len(times) // 20)]
    return [float(f"{t:.4g}") for t in (some if some[-1] == times[-1] else some + times[-1:])]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--only", default="*", help=f"patterns of programs, separated by commas; programs: {', '.join(NAMES)}")
    parser.add_argument("--sizes", default="64K,256K,1M,4M,16M", help="elements (tiny has 32 always)")
    parser.add_argument("--modes", default="plain,pool,fused", help=f"of {', '.join(MODES)}")
    parser.add_argument("--threads", type=int, default=2, help="of PyTorch (default: 2)")
    parser.add_argument("--passes", type=int, default=3, help="new processes of every mode (default: 3)")
    parser.add_argument("--rounds", type=int, default=4, help="turns of each mode in a pass (default: 4)")
    parser.add_argument("--seconds", type=float, default=0.8, help="for each mode of a case in a pass")
    parser.add_argument("--quick", action="store_true", help="1M elements, one pass, a quarter of the time")
    parser.add_argument("--report", action="store_true", help="also what GEMS_REPORT=1 says of each case, fused")
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "results", help="folder of the results")
    args = parser.parse_args()
    if args.worker:
        return worker(args.worker, args.threads)
    if not overhead.LIBRARY:
        sys.exit("run this with LD_PRELOAD=build/libgems_preload.so (make bench-chains does)")
    if args.quick:
        args.sizes, args.passes, args.seconds = "1M", 1, args.seconds / 4
    args.modes = ["plain"] + [m for m in args.modes.split(",") if m != "plain"]
    if unknown := [x for x in args.modes if x not in MODES] + [s for s in args.sizes.split(",") if s not in SIZES]:
        sys.exit(f"unknown: {', '.join(unknown)}")
    cases = {}
    for name in NAMES:
        if any(fnmatch.fnmatch(name, pattern) for pattern in args.only.split(",")):
            for size in ["32"] if name == "tiny" else args.sizes.split(","):
                if SIZES[size] <= LARGEST.get(name, 1 << 30):
                    cases[f"{name} {size}"] = name, SIZES[size]
    result = {"machine": machine(args.threads), "modes": args.modes, "passes": 0, "cases": {}}

    def say(label, case):
        others = args.modes[1:]
        print(f"{label:20} plain {1e3 * min(case['plain']['times']):9.3f} ms ", *(
            f"{m} {ratio(case, m):5.2f} {ratio(case, m, statistics.median):5.2f}{'!' if ratio(case, m) < LOW else ' '}" for m in others),
            "first", *(f"{1e3 * case[m]['firsts'][-1]:.1f}" for m in args.modes), "difference", *(f"{max(case[m]['differences']):.2g}" for m in others), flush=True)

    args.out.mkdir(parents=True, exist_ok=True)
    stem = args.out / "chains"
    for i in range(args.passes):
        print(f"pass {i + 1} of {args.passes}", flush=True)
        one_pass(cases, result["cases"], args, say)
        result["passes"] = i + 1
        if args.report and i + 1 == args.passes and "fused" in args.modes:
            result["reports"] = {label: report(*case, args) for label, case in cases.items()}
            print("\n".join(f"{label}\n{text}" for label, text in result["reports"].items()))
        # After every pass: what was measured stays if the rest is cut short.
        stem.with_suffix(".md").write_text(markdown(result))
        thin = {**result, "cases": {label: {m: {**r, "times": thinned(r["times"])} for m, r in case.items()} for label, case in result["cases"].items()}}
        lines = ",\n".join(f"{json.dumps(label)}: {json.dumps(case)}" for label, case in thin.pop("cases").items())
        stem.with_suffix(".json").write_text(f'{json.dumps(thin)[:-1]},\n"cases": {{\n{lines}}}}}\n')
        picture(result, stem.with_suffix(".png"))
    print(*(line for line in markdown(result).splitlines() if line.startswith("Geometric")))
    print(f"written: {stem}.md, .json, .png")


if __name__ == "__main__":
    main()
