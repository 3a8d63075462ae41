"""Fault injection: with GEMS_FAULT=n the n-th OpenCL call of the process fails. A program is run for every n, until n is
beyond its last call; whatever failed, its results are right and it ends as usual."""
import concurrent.futures
import itertools
import os

import pytest

from inputs import FULL
from processes import alike, complaints, cpp_app, routed, run

AT_ONCE = os.cpu_count() or 2  # processes
MOST = 2000  # calls; a program that makes more is too large for this test


@pytest.fixture(scope="module")
def app():
    return [cpp_app(), "small"]


def injected(done):
    return any("GEMS_FAULT" in line for line in complaints(done))


def checked(command, expected, **variables):
    done = run(command, timeout=120, **variables)
    what = " ".join(f"{name}={value}" for name, value in variables.items())
    assert done.returncode == 0, f"{what}: status {done.returncode}\n{done.stderr}"
    try:
        alike(expected, done.stdout)
    except AssertionError as error:
        raise AssertionError(f"{what}\n{error}\n{done.stderr}") from None
    return done


def every_call(command, cache, sign=1, step=1, **variables):
    """Runs the program with call 1, 1 + step, ... failing, until none fails any more; in a sample every second of these.
    Number of runs that had a fault, or would have had."""
    coarser = 1 if FULL else 2
    step *= coarser
    expected = run(command, preload=False)
    assert expected.returncode == 0, expected.stderr

    def attempt(n):
        return checked(command, expected.stdout, GEMS_FAULT=sign * n, GEMS_CACHE_DIR=cache(n), **variables)

    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        for first in itertools.count(1, step * AT_ONCE):
            assert first < MOST
            runs = list(pool.map(attempt, range(first, first + step * AT_ONCE, step)))
            if not all(map(injected, runs)):
                return coarser * ((first - 1) // step + sum(map(injected, runs)))


def test_every_call_with_kernels_kept(app, tmp_path):
    """Kernels come from the disk: faults in opening, loading, memory and launches. Every third call: tests/unit/test_fault.c
    has a work for each."""
    without = checked(app, run(app, preload=False).stdout, GEMS_CACHE_DIR=tmp_path)  # fills the cache
    assert routed(without) > 0 and not injected(without)
    assert every_call(app, lambda n: tmp_path, step=3) > 7


def test_every_call_with_kernels_built(app, tmp_path):
    """Nothing on the disk: faults in building too. Every 17th call: each run builds its kernels anew."""
    assert every_call(app, lambda n: tmp_path / str(n), step=17) > 5


def test_every_call_with_copies(app, tmp_path):
    """Memory that is copied to the device and back, as on a discrete GPU. Every fifth call: the rest is as above."""
    staged = {"GEMS_MEMORY": "staged"}
    checked(app, run(app, preload=False).stdout, GEMS_CACHE_DIR=tmp_path, **staged)
    assert every_call(app, lambda n: tmp_path, step=5, **staged) > 5


def test_every_call_of_chains(app, tmp_path):
    """Pointwise results are owed and computed together. Every 29th call: tests/unit/test_chain_fault.c has more."""
    chained = {"GEMS_FUSE": "all"}
    for _ in range(2):  # kernels of chains are built in the background
        checked(app, run(app, preload=False).stdout, GEMS_CACHE_DIR=tmp_path, **chained)
    assert every_call(app, lambda n: tmp_path, step=29, **chained) > 1


def test_all_calls_from_some_on(app, tmp_path):
    """The device is lost for good at some point."""
    checked(app, run(app, preload=False).stdout, GEMS_CACHE_DIR=tmp_path)
    assert every_call(app, lambda n: tmp_path, sign=-1, step=7) > 3


def test_some_calls_of_a_larger_program(tmp_path):
    """Training and inference with twenty operators: every 97th call."""
    assert every_call([cpp_app()], lambda n: tmp_path, step=97) > 3
