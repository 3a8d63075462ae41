#!/usr/bin/env python3
"""Times the benchmark cases by the host and routed, in turn, in one process, and what interposing itself costs.

    make bench                          # everything; results in bench/results/<device>.{json,md,svg}
    make bench BENCH="--only 'cat*'"    # some cases
    make bench BENCH=--cuda             # also PyTorch CUDA, where there is one

It must run under the preload (make bench sees to it). Routed means GEMS_ROUTE=all: the kernel runs whether or not the
table would choose it; the column "table" says what the table chooses. Times are medians over alternating runs; a ratio is
the host's time by ours, so above 1 is faster than the host. Transfers are counted. Cases that would take minutes on few
cores are made smaller by halving all large dimensions; the table of results says so.
"""
import argparse
import datetime
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests" / "host")]

import torch  # noqa: E402

import cases  # noqa: E402
import gems  # noqa: E402
import overhead  # noqa: E402


def timed(fn, inner):
    start = time.perf_counter()
    for _ in range(inner):
        fn()
    return (time.perf_counter() - start) / inner


def in_turn(fns, seconds, least=3):
    """Median seconds of each function; they take turns, so that a noisy moment hurts all alike."""
    inner = [1] * len(fns)
    for i, fn in enumerate(fns):  # also the warm-up: programs are built, pools filled
        fn()
        once = timed(fn, 1)
        inner[i] = max(1, min(2000, int(2e-3 / max(once, 1e-7))))
    runs = [[] for _ in fns]
    end = time.perf_counter() + seconds * len(fns)
    while len(runs[0]) < least or time.perf_counter() < end:
        for i, fn in enumerate(fns):
            runs[i].append(timed(fn, inner[i]))
        if len(runs[0]) >= 60:
            break
    return [statistics.median(r) for r in runs]


def scoped(fn, mode):
    """fn by the host alone (mode None), or with GEMS_ROUTE as given."""
    def host():
        with gems.off():
            fn()

    def routed():
        gems.lib.gems_route_set(mode)
        fn()
    return routed if mode else host


def counted(fn, mode):
    """The counters of one call, after one that builds what it needs."""
    gems.lib.gems_route_set(mode)
    fn()
    gems.lib.gems_counters_reset()
    gems.lib.gems_timing_set(1)
    fn()
    gems.lib.gems_timing_set(0)
    return gems.counters()


def on_cuda(case):
    """Microseconds of device time of PyTorch CUDA for the case, by events around many calls."""
    fn = cases.build(case, "cuda")
    for _ in range(3):
        fn()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    for _ in range(20):
        fn()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) * 1e3 / 20


def measure(case, args):
    case, halved = cases.fit(case, args.flops, args.bytes)
    fn = cases.build(case)
    row = {"id": case["id"], "halved": halved, "bound": case["bound"], "bytes": case["bytes"], "flops": case["flops"]}
    if fn is None:
        return {**row, "why": "not a case of this script"}
    try:
        with torch.no_grad():
            once = counted(fn, b"all")
            row["bytes_moved"] = once.bytes_moved
            row["routed"] = once.routed > 0
            row["why"] = "" if once.routed else gems.last_reason() or "no kernel"
            if once.routed:
                row["device_us"] = once.device_seconds * 1e6
                row["table"] = counted(fn, b"table").routed > 0
                host, ours = in_turn([scoped(fn, None), scoped(fn, b"all")], args.seconds)
                row.update(host_us=host * 1e6, gems_us=ours * 1e6, ratio=host / ours)
            else:
                row["host_us"] = in_turn([scoped(fn, None)], args.seconds)[0] * 1e6
            if args.cuda:
                row["cuda_us"] = on_cuda(case)
    except (RuntimeError, NotImplementedError) as e:
        row["why"] = f"{type(e).__name__}: {str(e).splitlines()[0][:80]}"
    return row


# ---- what is written ----


def rate(row, key):
    """GB/s or TFLOP/s at the time row[key]."""
    if key not in row:
        return ""
    if row["bound"] == "flop":
        return f"{row['flops'] / row[key] * 1e-6:.2f} TFLOP/s"
    return f"{row['bytes'] / row[key] * 1e-3:.1f} GB/s"


def number(row, key, digits=1):
    return f"{row[key]:.{digits}f}" if key in row else ""


def markdown(result, peers):
    head = result["machine"]
    lines = [f"# {head['device']}", "",
             f"{head['date']}, {head['cpus']} CPU cores ({head['threads']} host threads), driver {head['driver']}, vendor "
             f"`{head['vendor']}`, {head['memory']} memory, PyTorch {head['torch']}. Ratio: the host's time by ours, in one run; above 1 is faster "
             "than the host. Transfers are counted. Table: what the table chooses for this call. Device: in the kernels of one "
             "call, by the device's clock.", ""]
    cuda = any("cuda_us" in r for r in result["cases"])
    extra = ["device us"] + (["moved MB", "PyTorch CUDA us"] if cuda else [])
    known = peers["cases"] if "H200" in head["device"] else {}  # measured on that card: bench/peers-h200.json
    extra += ["best known us"] if known else []
    names = ["case", "host us", "routed us", "ratio", "routed rate", "table"] + extra + ["remark"]
    lines += ["| " + " | ".join(names) + " |", "|" + "|".join(["---"] + ["---:"] * (len(names) - 2) + ["---"]) + "|"]
    for r in result["cases"]:
        remark = r.get("why", "") if not r.get("routed") else ""
        if r["halved"]:
            remark = f"dimensions halved {r['halved']}x. {remark}".strip()
        table = "" if "table" not in r else "device" if r["table"] else "host"
        more = [number(r, "device_us")]
        more += [f"{r.get('bytes_moved', 0) / 1e6:.1f}", number(r, "cuda_us")] if cuda else []
        if known:
            times = [v for k, v in known.get(r["id"], {}).items() if k != "cpu_ms" and v]
            more.append(f"{min(times):.1f}" if times and not r["halved"] else "")
        cells = [r["id"], number(r, "host_us"), number(r, "gems_us"), number(r, "ratio", 2), rate(r, "gems_us"), table]
        lines.append("| " + " | ".join(cells + more + [remark]) + " |")
    ratios = [r["ratio"] for r in result["cases"] if "ratio" in r]
    if ratios:
        lines += ["", f"Geometric mean of the {len(ratios)} routed cases: {statistics.geometric_mean(ratios):.2f}; "
                  f"faster than the host: {sum(r > 1 for r in ratios)}."]
    if "overhead" in result:
        lines += ["", "## What interposing costs", ""] + overhead.markdown(result["overhead"])
    return "\n".join(lines) + "\n"


def picture(result, path):
    rows = sorted((r for r in result["cases"] if "ratio" in r), key=lambda r: -r["ratio"])
    if not rows:
        return
    data = "\n".join(f'"{r["id"]}" {r["ratio"]:.4f}' for r in rows)
    script = f"""
set terminal svg size {200 + 22 * len(rows)},620 font "sans,11" background rgb "white"
set output "{path}"
set title "{result['machine']['device']}: the host's time by ours (above 1: faster than the host)" noenhanced
set logscale y 2
set grid y
set style fill solid 0.8 noborder
set boxwidth 0.7
set xtics rotate by -60 noenhanced font ",9"
set bmargin 16
set rmargin 16
unset key
$data << EOD
{data}
EOD
plot $data using 0:(1):xtic(1) with lines lc rgb "black", \\
     $data using 0:2:($2 >= 1 ? 0x2a7f3f : 0xb04030) with boxes lc rgb variable
"""
    try:
        subprocess.run(["gnuplot"], input=script, text=True, check=True, env=overhead.plain_env())
    except (OSError, subprocess.CalledProcessError) as e:
        print(f"no picture: {e}", file=sys.stderr)


def machine():
    device = gems.describe("devices").get("main") or {}
    return {
        "vendor": device.get("vendor", "none"), "device": device.get("name", "none").strip(),
        "driver": device.get("driver", ""), "memory": device.get("memory", ""),
        "cpus": os.cpu_count(), "threads": torch.get_num_threads(), "torch": torch.__version__,
        "date": datetime.date.today().isoformat(),
    }


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--only", default="*", help="patterns of case ids, separated by commas")
    p.add_argument("--seconds", type=float, default=0.4, help="time for each side of a case")
    p.add_argument("--flops", type=float, help="halve a case until it does no more than this")
    p.add_argument("--bytes", type=float, default=1e12, help="halve a case until it moves no more than this")
    p.add_argument("--cuda", action="store_true", help="also time PyTorch CUDA")
    p.add_argument("--no-overhead", action="store_true")
    p.add_argument("--only-overhead", action="store_true")
    p.add_argument("--name", help="name of the result files (default: the device's)")
    p.add_argument("--out", type=pathlib.Path, default=HERE / "results")
    args = p.parse_args()
    if gems.lib is None:
        sys.exit("bench.py must run with LD_PRELOAD=<build>/libgems_preload.so (make bench does)")
    if args.flops is None:  # a second or two where half-precision products reach 5 GFLOP/s a core
        args.flops = 10e9 * os.cpu_count() if os.cpu_count() < 16 else 1e15
    result = {"machine": machine(), "cases": []}
    name = args.name or re.sub(r"[^a-z0-9]+", "-", f"{result['machine']['vendor']}-{result['machine']['device']}".lower())
    args.out.mkdir(parents=True, exist_ok=True)
    stem = args.out / name.strip("-")

    def write():  # after every case: what was measured stays if the rest is cut short
        stem.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
        stem.with_suffix(".md").write_text(markdown(result, cases.peers()))

    if not args.no_overhead:
        result["overhead"] = overhead.measure()
        print("\n".join(overhead.markdown(result["overhead"])), flush=True)
        write()
    for case in [] if args.only_overhead else cases.load(args.only):
        row = measure(case, args)
        result["cases"].append(row)
        print(f"{row['id']:44} host {number(row, 'host_us'):>11} us  routed {number(row, 'gems_us'):>11} us  "
              f"ratio {number(row, 'ratio', 2):>6}  {number(row, 'cuda_us')} {row.get('why', '')}", flush=True)
        write()
    picture(result, stem.with_suffix(".svg"))
    print(f"written: {stem}.json, .md, .svg")


if __name__ == "__main__":
    main()
