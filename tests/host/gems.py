"""ctypes face of preload/gems.h, for the tests. Works in a process that is preloaded."""
import contextlib
import ctypes
import json
import os
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Child processes have the same ones: with another bound they would throw away what the other tests have built.
CACHE = "GEMS_CACHE_DIR", "GEMS_CACHE_MB"


class Counters(ctypes.Structure):
    _fields_ = [("routed", ctypes.c_uint64), ("passed", ctypes.c_uint64), ("failed", ctypes.c_uint64),
                ("bytes_moved", ctypes.c_uint64), ("seconds", ctypes.c_double), ("device_seconds", ctypes.c_double)]


def library_path():
    """The library that this process is preloaded with, or None."""
    for entry in os.environ.get("LD_PRELOAD", "").replace(" ", ":").split(":"):
        if pathlib.Path(entry).name.startswith("libgems_preload"):
            return entry
    return None


def _open():
    path = library_path()
    if path is None:
        return None
    lib = ctypes.CDLL(path)
    for name in ("gems_version", "gems_vendor", "gems_device_name", "gems_operator", "gems_last_reason"):
        getattr(lib, name).restype = ctypes.c_char_p
    lib.gems_operator.argtypes = [ctypes.c_size_t]
    lib.gems_scope_push.argtypes = [ctypes.c_int, ctypes.c_char_p]
    lib.gems_counters.argtypes = [ctypes.c_char_p, ctypes.POINTER(Counters)]
    lib.gems_table_set.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t]
    lib.gems_route_set.argtypes = [ctypes.c_char_p]
    lib.gems_operator_has_kernel.argtypes = [ctypes.c_char_p]
    lib.gems_describe.argtypes = [ctypes.c_char_p]
    lib.gems_describe.restype = ctypes.c_void_p
    return lib


lib = _open()
_libc = ctypes.CDLL(None)
_libc.free.argtypes = [ctypes.c_void_p]
USE, OFF, ONLY = 1, 2, 3


def describe(what):
    """gems_describe, parsed."""
    text = lib.gems_describe(what.encode())
    try:
        return json.loads(ctypes.string_at(text))
    finally:
        _libc.free(text)


def counters(op=None):
    c = Counters()
    if lib.gems_counters(op.encode() if op else None, ctypes.byref(c)) != 0:
        raise KeyError(op)
    return c


@contextlib.contextmanager
def scope(kind, ops=None):
    if lib.gems_scope_push(kind, ops.encode() if ops else None) != 0:
        raise ValueError(ops)
    try:
        yield
    finally:
        lib.gems_scope_pop()


def off():
    """The host alone, for this thread."""
    return scope(OFF)


def last_reason():
    return (lib.gems_last_reason() or b"").decode()


def operators():
    i = 0
    while (name := lib.gems_operator(i)) is not None:
        yield name.decode()
        i += 1
