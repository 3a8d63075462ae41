"""gems-preload for Python: where its files are, and what gems.h offers to a program that is preloaded.

Importing it starts nothing. The library works where it is preloaded: by `gems run -- python app.py`, by
`python -m gems_preload run -- app.py`, or by the variables of env(). In any other process use(), off(), only() and
report() are there and do nothing.
"""
import contextlib
import ctypes
import os
import pathlib
import subprocess

__all__ = ["active", "command", "env", "include", "library", "off", "only", "report", "use"]

_folder = pathlib.Path(__file__).resolve().parent
command = str(_folder / "bin" / "gems")
library = str(_folder / "lib" / "libgems_preload.so")
include = str(_folder / "include")  # of gems.h


def env(**options):
    """The variables that start a process with the library, for launchers and a notebook kernel's "env":
    subprocess.run(words, env={**os.environ, **gems_preload.env(report=True, exclude="mul*")}).

    Options are those of `gems run` with _ for -, checked as there; what makes no sense is a ValueError. Other entries
    that this process has in LD_PRELOAD are kept."""
    words = [f"--{name.replace('_', '-')}={int(value) if isinstance(value, bool) else value}"
             for name, value in options.items()]
    before = {name: value for name, value in os.environ.items() if not name.startswith("GEMS_")}
    done = subprocess.run([command, "run", *words, "--", "env", "-0"], env=before, text=True, check=False,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode != 0:
        raise ValueError(done.stderr.strip())
    after = dict(entry.split("=", 1) for entry in done.stdout.split("\0") if entry)
    return {name: value for name, value in after.items() if name == "LD_PRELOAD" or before.get(name) != value}


class _Counters(ctypes.Structure):
    _fields_ = [("routed", ctypes.c_uint64), ("passed", ctypes.c_uint64), ("failed", ctypes.c_uint64),
                ("bytes_moved", ctypes.c_uint64), ("seconds", ctypes.c_double), ("device_seconds", ctypes.c_double)]


def _preloaded():
    """The library, if this process was started with it, else None."""
    process = ctypes.CDLL(None)
    if not hasattr(process, "gems_version"):
        return None
    process.gems_operator.argtypes = [ctypes.c_size_t]
    process.gems_operator.restype = ctypes.c_char_p
    process.gems_scope_push.argtypes = [ctypes.c_int, ctypes.c_char_p]
    process.gems_counters.argtypes = [ctypes.c_char_p, ctypes.POINTER(_Counters)]
    return process


_gems = _preloaded()


def active():
    """Whether this process is preloaded."""
    return _gems is not None


@contextlib.contextmanager
def _scope(kind, ops=None):
    if _gems and _gems.gems_scope_push(kind, ops.encode() if ops is not None else None) != 0:
        raise ValueError(f"{ops} names an unknown operator, or scopes are nested too deep")
    try:
        yield
    finally:
        if _gems:
            _gems.gems_scope_pop()


def use():
    """While it is entered, in this thread: calls may be routed, also if the process is disabled (GEMS_DISABLE=1)."""
    return _scope(1)


def off():
    """While it is entered, in this thread: all calls are left to PyTorch."""
    return _scope(2)


def only(ops):
    """While it is entered, in this thread: only these operators are routed, e.g. only("add.Tensor,mul*,softmax")."""
    return _scope(3, ops)


def _count():
    found, i = {}, 0
    while _gems and (name := _gems.gems_operator(i)) is not None:
        counters = _Counters()
        _gems.gems_counters(name, ctypes.byref(counters))
        found[name.decode()] = {field: getattr(counters, field) for field, _ in _Counters._fields_}
        i += 1
    return found


@contextlib.contextmanager
def report():
    """A dict that is filled when it is left: for each operator that was called meanwhile, in any thread, the calls
    routed to the device, passed to PyTorch and failed, the bytes moved and the seconds, as far as they are measured
    (GEMS_REPORT=1). Calls that are left to PyTorch without a look, as most small ones are, are not counted."""
    result, before = {}, _count()
    try:
        yield result
    finally:
        for name, after in _count().items():
            change = {field: after[field] - before[name][field] for field in after}
            if any(change.values()):
                result[name] = change
