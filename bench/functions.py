#!/usr/bin/env python3
"""Times every function of pointwise kernels beside PyTorch's: alone, and as one step of a fused chain.

    make bench-functions                                  # everything; results in bench/results/functions-pocl.{json,md}
    make bench-functions FUNCTIONS="--only 'sin,div*'"    # some

A chain is as slow as its slowest function. 1M elements, in cache, all threads of both, warm. Both sides take turns; times
are the least of all turns. A ratio is PyTorch's time by ours, so above 1 is faster than PyTorch. `alone` is one call of
each. In a chain the function stands between four cheap steps (products and sums); its time there is that of the chain
with it less that of the chain without it, beside PyTorch's one call, which always goes to memory. Where that difference is
too small to be told from noise, the table says "free".
"""
import argparse
import ctypes
import datetime
import fnmatch
import json
import os
import pathlib
import statistics
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
# Results of PyTorch come from memory that it has had before, as in a program that has run for a while.
MEMORY = {"MALLOC_MMAP_THRESHOLD_": "1073741824", "MALLOC_TRIM_THRESHOLD_": "4294967296"}
if __name__ == "__main__" and not MEMORY.items() <= os.environ.items():
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **MEMORY})

import torch  # noqa: E402

NUMEL = 1 << 20
CODES = {torch.float16: 0, torch.bfloat16: 1, torch.float32: 2, torch.float64: 3, torch.int32: 7, torch.int64: 8, torch.bool: 9}
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
NONE, TENSOR, FLOAT, INT, BOOL, STR, DTYPE = 0, 1, 3, 4, 5, 7, 8
LEAST_STEP = 0.02  # of a chain's time: a smaller difference is noise


class Arg(ctypes.Structure):
    _fields_ = [("kind", ctypes.c_int), ("dtype", ctypes.c_int), ("address", ctypes.c_void_p), ("f", ctypes.c_double),
                ("i", ctypes.c_int64)]


# Inputs by name: n normal numbers, w wider ones, p positive ones, u between -1 and 1, z between 0 and 1, o others, m a mask.
def inputs(dtype, numel=NUMEL):
    g = torch.Generator().manual_seed(0)

    def normal():
        return torch.randn(numel, generator=g)

    def uniform():
        return torch.rand(numel, generator=g)
    return {"n": normal().to(dtype), "w": (normal() * 10).to(dtype), "p": (normal().abs() + 0.01).to(dtype),
            "u": (uniform() * 2 - 1).to(dtype), "z": (uniform() * 0.98 + 0.01).to(dtype), "o": normal().to(dtype),
            "d": (uniform() * 9 + 0.5).to(dtype), "c": normal().to(dtype), "m": normal() > 0}


# (row, first arguments, what is beside the name); a word names an input, what begins with = is a text.
CASES = [
    ("abs", "n"), ("neg", "n"), ("relu", "n"), ("clamp", "n", -1.0, 1.0), ("clamp_min", "n", 0.5), ("clamp_max", "n", 0.5),
    ("threshold", "n", 0.5, 1.0), ("square", "n"), ("reciprocal", "p"), ("sqrt", "p"), ("rsqrt", "p"), ("exp", "n"), ("exp2", "n"),
    ("log", "p"), ("sin", "w"), ("cos", "w"), ("atan", "n"), ("tanh", "n"), ("erf", "n"), ("sigmoid", "n"), ("silu", "n"),
    ("gelu", "n"), ("gelu", "n", "=tanh"), ("log_sigmoid_forward", "n"), ("softplus", "n"), ("elu", "n"), ("celu", "n"),
    ("nan_to_num", "n"), ("isnan", "n"), ("isinf", "n"), ("isfinite", "n"), ("angle", "n"), ("logical_not", "n"),
    ("pow.Tensor_Scalar", "p", 2), ("pow.Tensor_Scalar", "p", 3), ("pow.Tensor_Scalar", "p", 0.5), ("pow.Tensor_Scalar", "p", -1),
    ("pow.Tensor_Scalar", "p", -0.5), ("pow.Tensor_Scalar", "p", -2), ("pow.Tensor_Scalar", "p", 2.5), ("pow.Scalar", 2.5, "n"),
    ("pow.Tensor_Tensor", "p", "o"), ("add.Tensor", "n", "o"), ("add.Tensor", "n", "o", 0.5), ("sub.Tensor", "n", "o"),
    ("rsub.Tensor", "n", "o"), ("mul.Tensor", "n", "o"), ("div.Tensor", "n", "d"), ("div.Tensor_mode", "n", "d", "=trunc"),
    ("div.Tensor_mode", "w", "d", "=floor"), ("floor_divide", "w", "d"), ("remainder.Tensor", "w", "d"),
    ("maximum", "n", "o"), ("minimum", "n", "o"), ("clamp.Tensor", "n", "u", "d"), ("eq.Tensor", "n", "o"), ("ne.Tensor", "n", "o"),
    ("lt.Tensor", "n", "o"), ("le.Tensor", "n", "o"), ("gt.Tensor", "n", "o"), ("ge.Tensor", "n", "o"), ("isclose", "n", "o"),
    ("logical_and", "n", "o"), ("logical_or", "n", "o"), ("logical_xor", "n", "o"), ("lerp.Scalar", "n", "o", 0.3),
    ("lerp.Tensor", "n", "o", "z"), ("addcmul", "n", "o", "c"), ("addcdiv", "n", "o", "d"), ("where.self", "m", "n", "o"),
    ("masked_fill.Scalar", "n", "m", 0.5), ("sigmoid_backward", "n", "z"), ("tanh_backward", "n", "u"), ("silu_backward", "n", "o"),
    ("gelu_backward", "n", "o"), ("gelu_backward", "n", "o", "=tanh"), ("elu_backward", "n", 1.0, 1.0, 1.0, False, "o"),
    ("threshold_backward", "n", "o", 0.0), ("clone", "n"), ("_to_copy", "n", "bf16"), ("_to_copy", "n", "f32"),
]


def label(case):
    op, *args = case
    more = [str(a).lstrip("=") for a in args if not isinstance(a, str) or a.startswith("=") or a in DTYPES]
    return op + (f" ({', '.join(more)})" if more else "")


class Function:
    """One case: PyTorch's call, and the arguments of ours."""

    def __init__(self, case, tensors):
        op, *args = case
        base, _, overload = op.partition(".")
        self.fn = getattr(getattr(torch.ops.aten, base), overload or "default")
        declared = self.fn._schema.arguments
        self.args, self.kwargs, self.native = [], {}, []
        values = [DTYPES[a] if a in DTYPES else tensors[a] if isinstance(a, str) and a in tensors else a.lstrip("=") if isinstance(a, str)
                  else a for a in args]
        for i, parameter in enumerate(declared):
            value, given = parameter.default_value, False
            word = "text" if isinstance(value, str) else ""
            if i < len(values) and not (op == "_to_copy" and i):
                value, given = values[i], True
            elif op == "_to_copy" and parameter.name == "dtype":
                value, given = values[1], True
            elif isinstance(values[-1], str) and (word or parameter.name in ("rounding_mode", "approximate")):
                value, given = values[-1], True
            if given and parameter.kwarg_only:
                self.kwargs[parameter.name] = value
            elif given and not (isinstance(value, str) and parameter.kwarg_only):
                self.args.append(value)
            self.native.append(self.value(value))
        self.numel = next(v for v in self.args if isinstance(v, torch.Tensor)).numel()

    def value(self, v):
        if isinstance(v, torch.Tensor):
            return Arg(TENSOR, CODES[v.dtype], v.data_ptr(), 0, 0)
        if isinstance(v, torch.dtype):
            return Arg(DTYPE, CODES[v], None, 0, 0)
        if isinstance(v, str):
            self.text = ctypes.create_string_buffer(v.encode())
            return Arg(STR, 0, ctypes.addressof(self.text), 0, 0)
        if v is None:
            return Arg(NONE, 0, None, 0, 0)
        kind = BOOL if isinstance(v, bool) else INT if isinstance(v, int) else FLOAT
        return Arg(kind, 0, None, float(v), int(v))

    def torch(self):
        return self.fn(*self.args, **self.kwargs)

    def torch_times(self, times):
        best = 1e9
        for _ in range(times):
            start = time.perf_counter()
            self.fn(*self.args, **self.kwargs)
            best = min(best, time.perf_counter() - start)
        return best


class Chains:
    """bench/chain.c."""

    def __init__(self, path):
        self.lib = ctypes.CDLL(str(path))
        self.lib.chain_new.restype = self.lib.chain_result.restype = ctypes.c_void_p
        self.lib.chain_run.restype = ctypes.c_double
        self.lib.chain_instructions.restype = ctypes.c_int64
        for name in ("chain_run", "chain_result", "chain_result_dtype", "chain_free"):
            getattr(self.lib, name).argtypes = [ctypes.c_void_p] + ([ctypes.c_int] if name == "chain_run" else [])
        self.lib.chain_new.argtypes = [ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int64, ctypes.c_int, ctypes.c_int,
                                       ctypes.c_char_p, ctypes.c_size_t]
        self.counts = self.lib.chain_count() == 0

    def new(self, op, function, cheap=0, own=1):
        why = ctypes.create_string_buffer(200)
        args = (Arg * len(function.native))(*function.native)
        c = self.lib.chain_new(op.encode(), args, len(args), function.numel, cheap, own, why, len(why))
        if not c:
            raise RuntimeError(why.value.decode())
        return c

    def result(self, c, numel):
        """A copy of its first result."""
        dtype = next(k for k, v in CODES.items() if v == self.lib.chain_result_dtype(c))
        raw = ctypes.string_at(self.lib.chain_result(c), numel * dtype.itemsize)
        return torch.frombuffer(bytearray(raw), dtype=dtype)

    def instructions(self, c):
        """An element; None where they cannot be counted."""
        if not self.counts:
            return None
        before = self.lib.chain_instructions()
        self.lib.chain_run(c, 20)
        return (self.lib.chain_instructions() - before) / 20


def measure(case, name, chains, args):
    row = {"function": label(case), "dtype": name}
    tensors = inputs(DTYPES[name])
    if case[0] == "_to_copy" and case[2] == name:
        return None
    function = Function(case, tensors)
    made = []
    try:
        made.append(chains.new(case[0], function))
        for own in (1, 0):
            made.append(chains.new(case[0], function, 1, own))
    except RuntimeError as e:
        row["why"] = str(e)
        if not made:
            return row
    runs = [function.torch_times] + [lambda n, c=c: chains.lib.chain_run(c, n) for c in made]
    best = [1e9] * len(runs)
    for run in runs:
        run(3)
    for _ in range(args.turns):
        for i, run in enumerate(runs):
            run(2)  # threads of the other side come to rest
            best[i] = min(best[i], run(args.times))
    row["torch_us"], row["alone_us"] = best[0] * 1e6, best[1] * 1e6
    row["alone"] = best[0] / best[1]
    count = chains.instructions(made[1]) if len(made) > 1 else None
    if len(made) == 3:
        row["with_us"], row["without_us"] = best[2] * 1e6, best[3] * 1e6
        step = best[2] - best[3]
        row["chain"] = best[0] / step if step > LEAST_STEP * best[3] else None
        if count is not None:
            row["instructions"] = (count - chains.instructions(made[2])) / function.numel
    for c in made:
        chains.lib.chain_free(c)
    return row


def processor():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return "unknown"


def markdown(result):
    head, rows = result["machine"], result["functions"]
    counted = any("instructions" in r for r in rows)
    lines = ["# Functions of pointwise kernels, PoCL", "",
             f"{head['date']}, {head['processor']}, PyTorch {head['torch']} ({head['capability']}), {head['threads']} threads, "
             f"{NUMEL} elements, load average {head['load']} at the start. Ratios are PyTorch's time by ours: above 1 is faster than PyTorch. Alone: one call. Chain: what the "
             "function adds to four cheap steps of one kernel, beside PyTorch's call; free: less than can be measured."
             + (" Instructions: an element, of that step." if counted else ""), ""]
    names = ["function", "dtype", "PyTorch us", "alone us", "alone", "in a chain us", "chain"] + (["instructions"] if counted else [])
    lines += ["| " + " | ".join(names) + " |", "|---|---|" + "---:|" * (len(names) - 2)]
    for r in rows:
        if "alone" not in r:
            lines.append(f"| {r['function']} | {r['dtype']} | {r.get('why', '')} |" + " |" * (len(names) - 3))
            continue
        step = f"{r['with_us'] - r['without_us']:.1f}" if "with_us" in r else ""
        chain = "" if "with_us" not in r else "free" if r["chain"] is None else f"{r['chain']:.2f}"
        cells = [r["function"], r["dtype"], f"{r['torch_us']:.1f}", f"{r['alone_us']:.1f}", f"{r['alone']:.2f}", step, chain]
        cells += [f"{r['instructions']:.2f}" if "instructions" in r else ""] if counted else []
        lines.append("| " + " | ".join(cells) + " |")
    for name in DTYPES:
        alone = [r["alone"] for r in rows if r["dtype"] == name and "alone" in r]
        if alone:
            slow = [r["function"] for r in rows if r["dtype"] == name and "alone" in r and r["alone"] < 1]
            lines += ["", f"{name}: geometric mean of {len(alone)} alone {statistics.geometric_mean(alone):.2f}; below 1: "
                      + (", ".join(slow) or "none") + "."]
    return "\n".join(lines) + "\n"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--only", default="*", help="patterns of functions, separated by commas")
    p.add_argument("--dtypes", default="f32,bf16")
    p.add_argument("--turns", type=int, default=8)
    p.add_argument("--times", type=int, default=15, help="calls in a turn")
    p.add_argument("--library", default=HERE.parent / "build/bench/chain.so")
    p.add_argument("--out", type=pathlib.Path, default=HERE / "results/functions-pocl")
    args = p.parse_args()
    chains = Chains(args.library)
    result = {"machine": {"date": datetime.date.today().isoformat(), "processor": processor(), "torch": torch.__version__,
                          "capability": torch.backends.cpu.get_cpu_capability(), "threads": torch.get_num_threads(), "load": round(os.getloadavg()[0], 1)}, "functions": []}
    args.out.parent.mkdir(parents=True, exist_ok=True)

    def write():  # after every case: what was measured stays if the rest is cut short
        args.out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
        args.out.with_suffix(".md").write_text(markdown(result))

    for case in CASES:
        if not any(fnmatch.fnmatch(case[0], o) or fnmatch.fnmatch(label(case), o) for o in args.only.split(",")):
            continue
        for name in args.dtypes.split(","):
            row = measure(case, name, chains, args)
            if row:
                result["functions"].append(row)
                write()
                step = row.get("with_us", 0) - row.get("without_us", 0)
                print(f"{row['function']:34} {name:5} torch {row.get('torch_us', 0):8.1f}  alone {row.get('alone_us', 0):8.1f}  "
                      f"ratio {row.get('alone', 0):6.2f}  step {step:7.1f} ratio {row.get('chain') or 0:6.2f} "
                      f"{row.get('instructions', '')} {row.get('why', '')}", flush=True)
    print(f"written: {args.out}.json, .md")


if __name__ == "__main__":
    main()
