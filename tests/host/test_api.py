"""The C API of preload/gems.h through ctypes, on real calls."""
import os
import subprocess
import sys
import threading

import pytest
import torch

import gems

# Results are computed later than they are asked for, and others first.
counts_calls = pytest.mark.skipif(os.environ.get("GEMS_FUSE") == "all", reason="counts or times calls one by one")


def add_counts(fn):
    """(routed, passed) of add.Tensor that fn causes."""
    before = gems.counters("add.Tensor")
    fn()
    after = gems.counters("add.Tensor")
    return after.routed - before.routed, after.passed - before.passed


def add():
    a = torch.arange(12.0).reshape(3, 4)
    assert torch.equal(a + a, torch.arange(12.0).reshape(3, 4) * 2)


def test_routed_by_default():
    assert add_counts(add) == (1, 0)
    assert gems.last_reason() == ""


def test_version_vendor_device():
    assert gems.lib.gems_version().decode().count(".") == 2
    assert gems.lib.gems_vendor()
    assert gems.lib.gems_device_name()


def test_scope_off_is_for_this_thread_only():
    with gems.off():
        assert add_counts(add) == (0, 1)
        assert "thread" in gems.last_reason()
        other = []
        t = threading.Thread(target=lambda: other.append(add_counts(add)))
        t.start()
        t.join()
        assert other == [(1, 0)]
    assert add_counts(add) == (1, 0)


def test_scope_only():
    with gems.scope(gems.ONLY, "mul.Tensor"):
        assert add_counts(add)[0] == 0
        with gems.scope(gems.ONLY, "add,mul*"):
            assert add_counts(add) == (1, 0)
    with pytest.raises(ValueError):
        with gems.scope(gems.ONLY, "no_such_operator"):
            pass


def test_scopes_nest_sixteen_deep():
    depth = 0
    while gems.lib.gems_scope_push(gems.OFF, None) == 0:
        depth += 1
    assert depth == 16
    for _ in range(depth):
        assert gems.lib.gems_scope_pop() == 0
    assert gems.lib.gems_scope_pop() == -1
    assert gems.lib.gems_scope_push(99, None) == -1


def test_disable_and_use():
    try:
        gems.lib.gems_disable()
        assert add_counts(add)[0] == 0
        with gems.scope(gems.USE):
            assert add_counts(add) == (1, 0)
        assert add_counts(add)[0] == 0
    finally:
        gems.lib.gems_enable()
    assert add_counts(add) == (1, 0)


def test_route_set():
    try:
        assert gems.lib.gems_route_set(b"off") == 0
        assert add_counts(add)[0] == 0
        assert gems.lib.gems_route_set(b"sideways") == -1
    finally:
        assert gems.lib.gems_route_set(b"all") == 0
    assert add_counts(add) == (1, 0)


@counts_calls
def test_table_set_routes_what_it_names():
    import ctypes

    error = ctypes.create_string_buffer(300)
    try:
        assert gems.lib.gems_route_set(b"table") == 0
        table = b'{"rules": [{"op": "add.Tensor", "host": true}]}'
        assert gems.lib.gems_table_set(table, error, 300) == 0, error.value
        assert add_counts(add)[0] == 0
        table = b'{"rules": [{"op": "add.Tensor", "dtype": ["f32"], "where": {"numel": [10, 20]}}]}'
        assert gems.lib.gems_table_set(table, error, 300) == 0, error.value
        assert add_counts(add)[0] == 1
        assert add_counts(lambda: torch.ones(30) + 1)[0] == 0
        assert gems.lib.gems_table_set(b'{"rules": [{"op": "no_such"}]}', error, 300) == -1
        assert b"no_such" in error.value
        assert add_counts(add)[0] == 1, "a bad table changes nothing"
    finally:
        gems.lib.gems_table_set(None, None, 0)
        gems.lib.gems_route_set(b"all")


def test_operators():
    names = list(gems.operators())
    assert len(names) > 290 and len(set(names)) == len(names)
    assert gems.lib.gems_operator_has_kernel(b"add.Tensor") == 1
    assert gems.lib.gems_operator_has_kernel(b"_unique2") == 0
    assert gems.lib.gems_operator_has_kernel(b"nothing") == -1
    with pytest.raises(KeyError):
        gems.counters("nothing")


def test_many_threads():
    """Calls from many threads at once: every result right, every call routed."""
    xs = [torch.full((64, 64), float(i)) for i in range(8)]
    wrong = []

    def work(i):
        for _ in range(200):
            if not bool(((xs[i] + xs[i])[0, 0] == 2 * i).item()):
                wrong.append(i)

    before = gems.counters("add.Tensor")
    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong
    assert gems.counters("add.Tensor").routed - before.routed == 8 * 200


def test_what_is_set_before_the_first_operator_stands(env):
    """The library starts with the first operator; what the C API was told before that is kept."""
    code = ("import sys, torch, gems\n"
            "gems.lib.gems_route_set(b'all')\n"
            "x = torch.eye(3)\n"
            "torch.abs(x); print(gems.counters('abs').routed)\n"
            "gems.lib.gems_disable(); torch.abs(x); print(gems.counters('abs').routed)\n")
    out = subprocess.run([sys.executable, "-c", code], env={**env, "GEMS_ROUTE": "off"}, capture_output=True, text=True)
    assert out.stdout.split() == ["1", "1"], out.stdout + out.stderr


@counts_calls
def test_times_are_measured_when_asked():
    """Seconds of routed calls, and within them those that the device spent in kernels."""
    x = torch.rand(1 << 18)
    try:
        for on in (1, 0):
            gems.lib.gems_timing_set(on)
            before = gems.counters("add.Tensor")
            x + x
            after = gems.counters("add.Tensor")
            whole, device = after.seconds - before.seconds, after.device_seconds - before.device_seconds
            assert after.routed == before.routed + 1
            assert 0 < device < whole if on else device == 0
    finally:
        gems.lib.gems_timing_set(0)


@counts_calls
@pytest.mark.skipif(os.environ.get("GEMS_RESIDENT", "off") != "off", reason="the smallest operand may be on the device")
def test_the_gate_looks_at_the_largest_operand():
    """Two operands of 182 elements are not a call of 32768: it passes without being looked at, or counted."""
    torch.ones(2) * 2  # the device is open from here on
    gems.lib.gems_route_set(b"table")
    try:
        assert gems.lib.gems_table_set(b'{"rules": [{"op": "mul.Tensor", "where": {"numel": [32768, null]}}]}', None, 0) == 0
        small, large = torch.ones(182), torch.ones(32768)
        before = gems.counters("mul.Tensor")
        small * small
        after = gems.counters("mul.Tensor")
        assert (after.routed, after.passed) == (before.routed, before.passed)
        large * large
        assert gems.counters("mul.Tensor").routed == after.routed + 1
        small[:, None] * small  # whose result is large enough
        small.view(1, 2, 91) * small.view(2, 91, 1, 1)
        assert gems.counters("mul.Tensor").routed == after.routed + 3
        small[:150, None] * small[:150]  # is not
        assert gems.counters("mul.Tensor").routed == after.routed + 3
    finally:
        gems.lib.gems_table_set(None, None, 0)
        gems.lib.gems_route_set(b"all")
