"""Calls every thunk of the preloaded library with fall-through only and compares with the host: the program that
test_thunks.py runs. Prints one JSON line for each: [struct, entry, what is wrong or null].

GEMS_ROUTE=off keeps all calls on the host; GEMS_LOG opens every gate and tells which thunk was entered. The host's
result comes through the dispatcher (torch.ops.aten), which does not pass by the interposed symbols."""
import json
import os
import re
import sys
import traceback
import warnings

import torch

import agree
import gems
import hostcall
import samples

KEYS = {"cpu": torch._C.DispatchKeySet(torch._C.DispatchKey.CPU), "meta": torch._C.DispatchKeySet(torch._C.DispatchKey.Meta)}
log = open(os.environ["GEMS_LOG"])


def entered():
    """{(operator, entry)} since the last time."""
    return {m.groups() for m in re.finditer(r"^(\S+) (call|redispatch|aoti)\b", log.read(), re.M)}


def reference(row, args):
    torch.manual_seed(1)
    pos, kw = samples.positional(row, args)
    result = row.host(*pos, **kw)
    return list(result) if isinstance(result, (tuple, list)) else [result]


def by_python(row, args):
    """A c10::List cannot be built from outside: PyTorch's own function does. Its autograd part then redispatches."""
    function = getattr(torch, row.base, None) or getattr(torch.Tensor, row.base)
    return [function(*(tuple(a) if isinstance(a, list) else a for a in args))]


def thunk(row, entry, symbol, args):
    torch.manual_seed(1)
    if entry == "aoti":
        return hostcall.call_aoti(symbol, row, args)
    if any(p.type == "Tensor?[]" for p in row.params):
        return by_python(row, args)
    device = next((a.device.type for a in args if isinstance(a, torch.Tensor)), "cpu")
    return hostcall.call_cpp(symbol, row, args, KEYS[device].raw_repr() if entry == "redispatch" else None)


def with_values(x):
    """Meta tensors (the one operator that has a kernel for CUDA alone) stand for their shape, strides and dtype."""
    if isinstance(x, list):
        return [with_values(y) for y in x]
    if isinstance(x, torch.Tensor) and x.is_meta:
        return torch.zeros(1, dtype=x.dtype).as_strided(x.shape, [0] * x.dim()), list(x.stride())
    return x


def check(row, entry, symbol, args):
    if entry == "aoti":  # the C shim has scalars as double only
        args = [float(a) if p.type in ("Scalar", "Scalar?") and a is not None else a for p, a in zip(row.params, args)]
    host_args, our_args = samples.copy(args), samples.copy(args)
    # A `call` above autograd is left for its redispatch to log. In inference mode there is none.
    with torch.inference_mode(entry == "call"):
        expected = reference(row, host_args)
        entered()
        actual = thunk(row, entry, symbol, our_args)
        seen = entered()
    assert (row.name, entry) in seen, f"not entered; the log has {seen}"
    agree.same(with_values(expected), with_values(actual))
    agree.same(with_values(host_args), with_values(our_args))
    for e, a in zip(expected, actual):
        aliases = [x is e for x in host_args]
        assert aliases == [x is a for x in our_args], "a result is an argument on one side only"


def main():
    warnings.simplefilter("ignore")
    every = samples.samples()
    symbols = samples.symbols()
    for row in samples.ROWS:
        for entry, symbol in symbols[row.struct].items():
            print(json.dumps([row.struct, entry, "ended the process"]), flush=True)  # the last line of a thunk counts
            wrong = None if every[row.name] else "no samples"
            for args in every[row.name]:
                try:
                    check(row, entry, getattr(gems.lib, symbol), args)
                except Exception:
                    wrong = f"{args}\n{traceback.format_exc()}"
                    break
            print(json.dumps([row.struct, entry, wrong]), flush=True)


if __name__ == "__main__":
    sys.exit(main())
