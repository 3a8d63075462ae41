"""Runs options.py, an ordinary PyTorch program, plain and with the library preloaded, and shows times and results side by side.

    python run_options.py build/libgems_preload.so

Draws prices.png beside the library (needs gnuplot). Ends with status 1 if the results differ by more than the rounding of f32
explains; that the preloaded one is not faster is said, and no failure."""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy

HERE = pathlib.Path(__file__).resolve().parent
# Of the largest value of the same kind: prices and sensitivities near zero are differences of large numbers.
TOLERANCE = 1e-5
MOST_PROCESSES = 6  # until all kernels are there


def plain_environment():
    return {key: value for key, value in os.environ.items() if not key.startswith("GEMS_") and key != "LD_PRELOAD"}


def run_options(folder, name, arguments, library=None):
    """One process: what it printed, its results, its times."""
    environment = plain_environment()
    if library:
        environment["LD_PRELOAD"] = str(library)
    saved, times = folder / "results.npz", folder / "times.json"
    before = time.perf_counter()
    done = subprocess.run([sys.executable, str(HERE / "options.py"), "--save", str(saved), "--times", str(times), *arguments],
                          env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - before
    if done.returncode != 0:
        sys.exit(f"{name}: options.py ended with status {done.returncode}\n{done.stderr}")
    measured = json.loads(times.read_text(encoding="utf-8"))
    with numpy.load(saved) as file:
        results = dict(file)
    return done.stdout, results, {"process": seconds, "first": measured["passes"][0], "passes": measured["passes"]}, done.stderr


def build_kernels(folder, arguments, library):
    """Kernels of chains are compiled while the program runs, once a machine, and a short program ends before all of them are
    there: runs it until nothing is added. The processes."""
    def kept():
        done = subprocess.run([str(library.parent / "gems"), "cache", "--json"], env=plain_environment(), capture_output=True, text=True, check=True)
        return json.loads(done.stdout)["entries"]

    runs, before = [], -1
    while kept() != before and len(runs) < MOST_PROCESSES:
        before = kept()
        runs.append(run_options(folder, "preloaded", arguments, library))
    return runs


def difference(plain, other):
    """The largest difference of any result, relative to the largest value of its kind."""
    worst, where = 0.0, ""
    for name, values in plain.items():
        theirs = other[name]
        if values.shape != theirs.shape or not (numpy.isfinite(values) == numpy.isfinite(theirs)).all():
            return float("inf"), name
        finite = numpy.isfinite(values)
        found = float(numpy.abs(values[finite] - theirs[finite]).max() / max(numpy.abs(values[finite]).max(), 1e-30))
        if found > worst:
            worst, where = found, name
    return worst, where


def picture(results, times, path):
    """The price over share and time, the sensitivities over the share, and the times. False if it could not be drawn."""
    spot, years, price = (x.reshape(31, 31) for x in results["surface"])
    surface = "\n\n".join("\n".join(f"{spot[i, j]} {years[i, j]} {price[i, j]}" for j in range(31)) for i in range(31))
    names = ["delta", "gamma", "vega", "theta", "rho"]
    # Each of them as a share of its largest value: they have different units.
    curves = [results[f"curve {name}"] / numpy.abs(results[f"curve {name}"]).max() for name in names]
    lines = "\n".join(" ".join(str(v) for v in (x, *(c[i] for c in curves))) for i, x in enumerate(results["spots"]))
    bars = "\n".join(f'"{name}" {1e3 * value}' for name, value in times.items())
    plots = ", ".join(f'$curves using 1:{i + 2} with lines lw 2 title "{name}"' for i, name in enumerate(names))
    script = f"""
set terminal pngcairo size 1500,480 font "sans,11" background rgb "white"
set output "{path}"
$surface << EOD
{surface}
EOD
$curves << EOD
{lines}
EOD
$bars << EOD
{bars}
EOD
set multiplot layout 1,3
set title "A call for 100: price over the share and the years left"
set hidden3d
set view 60,320
set xlabel "share"
set ylabel "years"
splot $surface using 1:2:3 with lines lc rgb "#2a7f3f" notitle
unset view
set title "Its sensitivities (half a year left), each of its largest"
set xlabel "share"
unset ylabel
set key top left
plot {plots}
set title "A million options in five scenarios, ms"
unset xlabel
set yrange [0:*]
set style fill solid 0.8 noborder
set boxwidth 0.6
plot $bars using 0:2:xtic(1) with boxes lc rgb "#4060a0" notitle
"""
    try:
        subprocess.run(["gnuplot"], input=script, text=True, check=True, capture_output=True)
        return True
    except (OSError, subprocess.CalledProcessError) as e:
        print(f"  no picture: {getattr(e, 'stderr', '') or e}".rstrip())
        return False


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("library", type=pathlib.Path, help="libgems_preload.so")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each kind, taking turns (default: 3)")
    options, rest = parser.parse_known_args()
    library = options.library.absolute()
    if not library.is_file():
        sys.exit(f"{library} is not there")

    print("options.py: a million European options and their sensitivities, five scenarios", flush=True)
    plain, ours = [], []
    with tempfile.TemporaryDirectory() as folder:
        built = build_kernels(pathlib.Path(folder), rest, library)
        for i in range(options.rounds):
            turns = [(plain, None), (ours, library)]
            for runs, preload in turns if i % 2 == 0 else turns[::-1]:
                runs.append(run_options(pathlib.Path(folder), "preloaded" if preload else "plain", rest, preload))

    print("\n== Means, plain\n")
    print(plain[0][0].rstrip())
    complaints = {line for run in built + ours for line in run[3].splitlines() if line.startswith("gems-preload")}
    for line in sorted(complaints):
        print(" ", line)

    worst, where = max(difference(plain[0][1], run[1]) for run in built + ours)
    print(f"\n== Results: {len(plain[0][1])} arrays; largest relative difference {worst:.1e}" + (f" ({where})" if where else "") + f", allowed {TOLERANCE:.0e}")

    print(f"\n== Times, seconds; {options.rounds} processes each, taking turns, after {len(built)} preloaded in which kernels were "
          f"built, once a machine: {sum(run[2]['process'] for run in built):.0f} s")
    print(f"  {'':<32}{'plain':>10}{'preloaded':>12}{'ratio':>9}")
    for label, value, choose in [("first pass, best process", lambda t: t["first"], min),
                                 ("best pass", lambda t: min(t["passes"]), min),
                                 ("median pass", lambda t: statistics.median(t["passes"][1:] or t["passes"]), statistics.median),
                                 ("whole process, best", lambda t: t["process"], min)]:
        left, right = (choose([value(run[2]) for run in runs]) for runs in (plain, ours))
        print(f"  {label:<32}{left:>10.3f}{right:>12.3f}{left / right:>9.2f}")
        if label == "best pass":
            best = {"plain": left, "preloaded": right}

    path = library.parent / "prices.png"
    if picture(plain[0][1], best, path):
        print(f"\n  a picture: {path}")
    print()
    if not worst <= TOLERANCE:
        sys.exit("FAILED: the results differ by more than is allowed")
    ratio = best["plain"] / best["preloaded"]
    if ratio > 1.03:
        print(f"Same results, {ratio:.1f} times as fast.")
    else:
        print(f"Same results; not faster here ({ratio:.2f} times plain's speed).")


if __name__ == "__main__":
    main()
