"""Runs search.py, an ordinary PyTorch program, plain and with the library preloaded, and shows what happened.

    python run.py build/libgems_preload.so

Ends with status 1 if the embeddings differ by more than 1e-5, if the search found other sentences, or if no operator was
routed to OpenCL."""
import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

import numpy

HERE = pathlib.Path(__file__).resolve().parent
TOLERANCE = 1e-5
QUERIES = ["how to make a loaf of bread", "looking at the stars through an instrument", "my computer is slow",
           "what happens in a court room", "animals that live in the water"]


def run_search(text, folder, name, library=None):
    """One process. Returns what it printed, its embeddings, its times and what it wrote to stderr."""
    environment = {key: value for key, value in os.environ.items()
                   if key not in ("LD_PRELOAD", "GEMS_REPORT", "GEMS_LOG")}
    environment.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_PROGRESS_BARS="1", TOKENIZERS_PARALLELISM="false")
    if library:
        environment.update(LD_PRELOAD=str(library), GEMS_REPORT="1")
    saved, times = folder / f"{name}.npy", folder / f"{name}.json"
    command = [sys.executable, str(HERE / "search.py"), str(text), "--save", str(saved), "--times", str(times)]
    for query in QUERIES:
        command += ["--query", query]
    before = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - before
    if done.returncode != 0:
        sys.exit(f"{name}: search.py ended with status {done.returncode}\n{done.stderr}")
    measured = json.loads(times.read_text(encoding="utf-8"))
    measured["process"] = seconds
    return done.stdout, numpy.load(saved), measured, done.stderr


def report_of(stderr):
    """The lines that the library wrote; transformers writes a progress bar of its own to stderr."""
    return "\n".join(line for line in stderr.splitlines() if "Loading weights" not in line).strip()


def side_by_side(plain, routed):
    """Both search results in two columns."""
    width = 58
    for left, right in zip(plain.splitlines(), routed.splitlines()):
        if left.startswith(" "):
            print(f"  {left.strip()[:width]:<{width}}  {right.strip()[:width]}")
        else:
            print(f'\n  "{left}"')


def sentences_found(text):
    return [line.split(None, 1)[1] for line in text.splitlines() if line.startswith(" ")]


def best(runs, value):
    return min(value(times) for _, _, times, _ in runs)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("library", type=pathlib.Path, help="libgems_preload.so")
    parser.add_argument("--text", type=pathlib.Path, default=HERE / "sentences.txt", help="what to search")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each kind, taking turns (default: 3)")
    options = parser.parse_args()
    library = options.library.absolute()
    if not library.is_file():
        sys.exit(f"{library} is not there")

    print("search.py: sentence embeddings (all-MiniLM-L6-v2) and semantic search over", options.text.name)
    plain, routed = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for i in range(options.rounds):
            plain.append(run_search(options.text, folder, f"plain-{i}"))
            routed.append(run_search(options.text, folder, f"preloaded-{i}", library))

    print(f"\n== Search results: {'plain':<56}  LD_PRELOAD={library.name}")
    side_by_side(plain[0][0], routed[0][0])

    report = report_of(routed[-1][3])
    print(f"\n== Intercepted operators (GEMS_REPORT=1)\n\n{report}")

    sentences = plain[0][2]["sentences"]
    difference = max(float(numpy.abs(plain[0][1] - run[1]).max()) for run in routed)
    print(f"\n== Embeddings: {sentences} sentences, {plain[0][1].shape[1]} numbers each, {plain[0][1].dtype}")
    print(f"  largest difference: {difference:.2e} (allowed: {TOLERANCE:.0e})")

    print(f"\n== Times, best of {options.rounds} processes each")
    rows = [("whole process, first, s", lambda times: times["process"], plain[:1], routed[:1]),
            ("whole process, s", lambda times: times["process"], plain, routed),
            ("load, s", lambda times: times["load"], plain, routed),
            ("first pass, ms a sentence", lambda times: times["passes"][0] / sentences * 1e3, plain, routed),
            ("best pass, ms a sentence", lambda times: min(times["passes"]) / sentences * 1e3, plain, routed)]
    print(f"  {'':<28}{'plain':>10}{'preloaded':>12}")
    for label, value, left, right in rows:
        print(f"  {label:<28}{best(left, value):>10.3f}{best(right, value):>12.3f}")

    failures = []
    if not difference <= TOLERANCE:
        failures.append("the embeddings differ by more than is allowed")
    if any(sentences_found(run[0]) != sentences_found(plain[0][0]) for run in routed):
        failures.append("the searches found different sentences")
    total = re.search(r"^\S*\s*total\s+(\d+)", report, re.MULTILINE)
    if not total or int(total.group(1)) == 0:
        failures.append("no operator was routed")
    print()
    for failure in failures:
        print("FAILED:", failure)
    if failures:
        sys.exit(1)
    print(f"Same results; {total.group(1)} operator calls ran on OpenCL.")


if __name__ == "__main__":
    main()
