"""gems.h through ctypes, in a process that runs under the preload."""

import contextlib
import ctypes

USE, OFF, ONLY = 1, 2, 3


class Counters(ctypes.Structure):
    _fields_ = [
        ("routed", ctypes.c_uint64),
        ("passed", ctypes.c_uint64),
        ("failed", ctypes.c_uint64),
        ("bytes_moved", ctypes.c_uint64),
        ("seconds", ctypes.c_double),
    ]


_lib = ctypes.CDLL(None)
present = hasattr(_lib, "gems_version")
if present:
    for _name in ("gems_version", "gems_vendor", "gems_device_name", "gems_last_reason"):
        getattr(_lib, _name).restype = ctypes.c_char_p


def text(name):
    """gems_vendor, gems_device_name, gems_version or gems_last_reason."""
    value = getattr(_lib, name)()
    return value.decode() if value else ""


def route(mode):
    if _lib.gems_route_set(mode.encode()) != 0:
        raise ValueError(mode)


def counters():
    c = Counters()
    _lib.gems_counters(None, ctypes.byref(c))
    return c


def reset():
    _lib.gems_counters_reset()


@contextlib.contextmanager
def scope(kind):
    if _lib.gems_scope_push(kind, None) != 0:
        raise RuntimeError("gems_scope_push")
    try:
        yield
    finally:
        _lib.gems_scope_pop()
