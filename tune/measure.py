#!/usr/bin/env python3
"""Writes the rules of a table from measurement: which calls the device wins, on which lane, from which size on.

    LD_PRELOAD=build/libgems_preload.so scripts/python tune/measure.py tune/pocl.json

Every case times the host and each lane in turn, in one process, transfers counted, and keeps the median of the ratios. A
range of sizes gets a rule only where both its ends were won by at least --gain; beyond the largest size measured a rule is
open only if the two largest were won. What is not measured has no rule, so the host serves. The rules of the file are
replaced, the rest of it (vendor, match, device) stays.
"""
import argparse
import datetime
import itertools
import json
import pathlib
import re
import statistics
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "host"))

import torch  # noqa: E402

import gems  # noqa: E402
import rows  # noqa: E402

LANES = {"small": 1, "main": 0}
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16, "f64": torch.float64,
          "i64": torch.int64, "i32": torch.int32, "bool": torch.bool}
aten = torch.ops.aten


def random(shape, dtype):
    if dtype is torch.bool:
        return torch.rand(shape) > 0.5
    if not dtype.is_floating_point:
        return torch.randint(1, 8, shape, dtype=dtype)
    return (torch.rand(shape) * 0.8 + 0.1).to(dtype)  # inside every operator's domain


# ---- measuring -------------------------------------------------------------------------------------------------------


def seconds(fn, repeat):
    start = time.perf_counter()
    for _ in range(repeat):
        fn()
    return time.perf_counter() - start


def use_lane(ops, lane):
    """Routes these operators to a lane (None: nothing is routed)."""
    if lane is None:
        gems.lib.gems_disable()
        return
    gems.lib.gems_enable()
    table = {"rules": [{"op": ops, "params": {"lane": LANES[lane]}}]}
    error = gems.ctypes.create_string_buffer(300)
    if gems.lib.gems_table_set(json.dumps(table).encode(), error, 300) != 0:
        raise SystemExit(error.value.decode())


def gains(ops, fn, lanes, budget):
    """host time / device time of each lane; {} if the call is not routed."""
    use_lane(ops, None)
    fn()
    once = max(min(seconds(fn, 1) for _ in range(3)), 1e-7)
    if once > 50 * budget:  # too large for this machine: not measured, so not routed
        return {}
    repeat = max(1, min(2000, int(budget / 10 / once)))
    ratios = {}
    for lane in lanes:
        use_lane(ops, lane)
        before = gems.counters(ops[0]).routed
        for _ in range(2):
            fn()
        if gems.counters(ops[0]).routed == before:
            continue
        if seconds(fn, 1) > 20 * once + 1e-3:  # hopeless: do not spend the time
            ratios[lane] = 0.05
            continue
        pairs = []
        for _ in range(5):
            use_lane(ops, None)
            host = seconds(fn, repeat)
            use_lane(ops, lane)
            pairs.append(host / seconds(fn, repeat))
        ratios[lane] = statistics.median(pairs)
    return ratios


# ---- from gains to rules ---------------------------------------------------------------------------------------------


def ranges(sizes, won):
    """Maximal [low, high] between neighbouring sizes that were both won; high None past the last."""
    out = []
    for is_won, run in itertools.groupby(range(len(sizes)), lambda i: won[i]):
        first, *rest = run
        if is_won and rest:
            out.append([sizes[first], None if rest[-1] == len(sizes) - 1 else sizes[rest[-1]]])
    return out


class Table:
    def __init__(self, options, lanes):
        self.options, self.lanes, self.rules = options, lanes, []

    def line(self, ops, dtype, size_name, sizes, make, fixed=None, equal=()):
        """Measures one operator along one named size, others fixed as given or (`equal`) the same, and adds its rules."""
        if self.options.only not in ops[0]:
            return
        best = []
        for n in sizes:
            try:
                g = gains(ops, make(n), self.lanes, self.options.budget)
            except (RuntimeError, NotImplementedError, IndexError):
                g = {}
            best.append(g)
            if g and not self.options.quiet:
                print(f"{ops[0]:32} {dtype:5} {fixed or ''} {size_name}={n:<10} "
                      + " ".join(f"{k} {v:.2f}x" for k, v in g.items()), flush=True)
        for lane in self.lanes:
            # Each lane's rules cover what it wins and wins best.
            won = [g.get(lane, 0) >= self.options.gain and g.get(lane, 0) >= max(g.values()) for g in best]
            for low, high in ranges(sizes, won):
                inside = [g[lane] for n, g in zip(sizes, best) if n >= low and (high is None or n <= high)]
                where = {**(fixed or {}), **{s: [low, high] for s in (size_name, *equal)}}
                self.rules.append({"op": ops, "dtype": [dtype], "where": where, "params": {"lane": LANES[lane]},
                                   "gain": round(min(inside), 2)})


def with_forms(names, rows_by_name):
    """An operator with its in-place and out forms, as far as they share its kernel."""
    return names + [n for n, r in rows_by_name.items() if r["row"] in names and n not in names]


def pointwise(table, dtypes):
    sizes = [1 << 8, 1 << 12, 1 << 16, 1 << 20, 1 << 23]
    table_rows = rows.operators()
    for name, row in table_rows.items():
        if row.get("kernel") != "pointwise" or name != row["row"]:
            continue
        try:
            op = rows.overload(name)
        except AttributeError:
            continue
        args = op._schema.arguments
        if any(a.is_out for a in args) or any(a.alias_info and a.alias_info.is_write for a in args):
            continue
        for label in dtypes:
            def make(n):
                given = []
                for i, a in enumerate(args):
                    kind = str(a.type)
                    if kind == "Tensor" and a.name in ("condition", "mask"):
                        given.append(random((n,), torch.bool))
                    elif kind in ("Tensor", "Optional[Tensor]"):
                        given.append(random((n,), DTYPES[label]))
                    elif a.has_default_value() and not a.kwarg_only:
                        given.append(a.default_value)
                    elif a.kwarg_only:
                        continue
                    else:
                        given.append(2)
                op(*given)
                return lambda: op(*given)
            table.line(with_forms([name], table_rows), label, "numel", sizes, make)


def norm(x):
    w, b = torch.ones(x.shape[1], dtype=x.dtype), torch.zeros(x.shape[1], dtype=x.dtype)
    return lambda: aten.native_layer_norm(x, [x.shape[1]], w, b, 1e-5)


def rms(x):
    w = torch.ones(x.shape[1], dtype=x.dtype)
    return lambda: torch.rms_norm(x, [x.shape[1]], w, 1e-6)


def by_rows(table, dtypes):
    """Reductions, softmax, norms, scans: a grid of rows and cols, dense rows."""
    grid_rows, grid_cols = [1, 16, 256, 4096], [64, 512, 4096, 32768]
    reductions = {
        "sum.dim_IntList": lambda x: (lambda: aten.sum.dim_IntList(x, [1])),
        "mean.dim": lambda x: (lambda: aten.mean.dim(x, [1])),
        "amax": lambda x: (lambda: aten.amax(x, [1])),
        "argmax": lambda x: (lambda: aten.argmax(x, 1)),
        "max.dim": lambda x: (lambda: aten.max.dim(x, 1)),
        "prod.dim_int": lambda x: (lambda: aten.prod.dim_int(x, 1)),
        "all.dim": lambda x: (lambda: aten.all.dim(x, 1)),
        "any.dim": lambda x: (lambda: aten.any.dim(x, 1)),
    }
    others = {
        "_softmax": lambda x: (lambda: aten._softmax(x, 1, False)),
        "_log_softmax": lambda x: (lambda: aten._log_softmax(x, 1, False)),
        "cumsum": lambda x: (lambda: aten.cumsum(x, 1)),
        "native_layer_norm": norm,
        "rms_norm": rms,
    }
    for name, maker in {**reductions, **others}.items():
        for label in dtypes:
            for c, following in zip(grid_cols, [*grid_cols[1:], None]):
                fixed = {"inner": [1, 1]} if name in reductions else {}
                fixed["cols"] = [c, following and following - 1]

                def make(r):
                    with torch.no_grad():
                        return maker(random((r, c), DTYPES[label]))
                table.line([name], label, "rows", [r for r in grid_rows if r * c <= 1 << 24], make, fixed=fixed)


def products(table, dtypes):
    for name in ("mm", "addmm", "bmm", "mv"):
        for label in dtypes:
            for k, step in ((64, 255), (256, 1023), (1024, 4095), (4096, None)):
                def make(m):
                    a, b = random((m, k), DTYPES[label]), random((k, m), DTYPES[label])
                    if name == "mm":
                        return lambda: torch.mm(a, b)
                    if name == "addmm":
                        bias = random((m,), DTYPES[label])
                        return lambda: torch.addmm(bias, a, b)
                    if name == "mv":
                        v = random((k,), DTYPES[label])
                        return lambda: torch.mv(a, v)
                    a3, b3 = a.expand(8, m, k).contiguous(), b.expand(8, k, m).contiguous()
                    return lambda: torch.bmm(a3, b3)
                table.line([name], label, "m", [64, 256, 1024, 4096, 8192][: 3 if name == "bmm" else 5], make,
                           fixed={"k": [k, step]}, equal=() if name == "mv" else ("n",))


def moves(table, dtypes):
    sizes = [1 << 10, 1 << 14, 1 << 18, 1 << 22]
    cases = {
        "triu": lambda n, d: (lambda x: (lambda: torch.triu(x)))(random((int(n ** 0.5), int(n ** 0.5)), d)),
        "cat": lambda n, d: (lambda x: (lambda: torch.cat((x, x, x), 1)))(random((max(1, n // 512), 512), d)),
        "embedding": lambda n, d: (lambda w, i: (lambda: torch.nn.functional.embedding(i, w)))(
            random((4096, 256), d), torch.randint(0, 4096, (n // 256,))),
        "index_select": lambda n, d: (lambda x, i: (lambda: torch.index_select(x, 0, i)))(
            random((4096, 256), d), torch.randint(0, 4096, (n // 256,))),
    }
    for name, case in cases.items():
        for label in dtypes:
            table.line([name], label, "numel", sizes, lambda n: case(n, DTYPES[label]))


def attention(table, dtypes):
    name = "_scaled_dot_product_flash_attention_for_cpu"

    def attend(q):  # causal: half the work, so the harder case to win
        return aten._scaled_dot_product_flash_attention_for_cpu(q, q, q, is_causal=True)

    for label in dtypes:
        for width, least in ((64, 33), (128, 65)):
            for heads, batch in ((8, [1, 16]), (32, [32, None])):
                def make(n):
                    q = random((2 if heads == 8 else 4, heads, n, width), DTYPES[label])
                    return lambda: attend(q)

                def make_backward(n):
                    q = random((2 if heads == 8 else 4, heads, n, width), DTYPES[label]).requires_grad_()
                    with torch.enable_grad():
                        out = attend(q)[0]
                    return lambda: torch.autograd.grad(out, q, q.detach(), retain_graph=True)

                for op, of in ((name, make), (name + "_backward", make_backward)):
                    table.line([op], label, "m", [64, 256, 1024, 2048, 4096], of, fixed={"k": [least, width], "batch": batch},
                               equal=("n",))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("table", type=pathlib.Path, help="table to write rules into, e.g. tune/pocl.json")
    p.add_argument("--gain", type=float, default=1.15, help="least host time / device time")
    p.add_argument("--budget", type=float, default=0.02, help="seconds of host time to spend on one case")
    p.add_argument("--dtypes", default="f32,bf16,f16,f64,i64")
    p.add_argument("--only", default="", help="operators whose name contains this")
    p.add_argument("--families", default="pointwise,rows,products,moves,attention")
    p.add_argument("--quiet", action="store_true")
    a = p.parse_args()
    if gems.lib is None:
        raise SystemExit("run this with LD_PRELOAD=<build>/libgems_preload.so")
    gems.lib.gems_route_set(b"table")
    devices = gems.describe("devices")
    two = devices["small"]["name"] != devices["main"]["name"]
    table = Table(a, ("small", "main") if two else ("main",))
    dtypes = a.dtypes.split(",")
    floats = [d for d in dtypes if DTYPES[d].is_floating_point]
    families = {"pointwise": (pointwise, dtypes), "rows": (by_rows, floats), "products": (products, floats),
                "moves": (moves, dtypes), "attention": (attention, floats)}
    with torch.no_grad():
        for family, (measure, its_dtypes) in families.items():
            if family in a.families.split(","):
                measure(table, its_dtypes)
    text = json.loads(a.table.read_text())
    gems.lib.gems_enable()
    text["origin"] = {"device": gems.lib.gems_device_name().decode(), "host": f"PyTorch {torch.__version__}",
                      "threads": torch.get_num_threads(), "date": datetime.date.today().isoformat(),
                      "how": "tune/measure.py", "least_gain": a.gain}
    text["rules"] = table.rules
    head = {k: v for k, v in text.items() if k != "rules"}
    body = json.dumps(head, indent=2)
    body = re.sub(r"\[\s+([^][]*?)\s+\]", lambda m: "[" + re.sub(r"\s+", " ", m[1]) + "]", body)  # short lists on a line
    body = body[:-2] + ',\n  "rules": [\n    '
    body += ",\n    ".join(json.dumps(r) for r in table.rules) + "\n  ]\n}\n"
    a.table.write_text(body)
    print(f"{len(table.rules)} rules written to {a.table}")


if __name__ == "__main__":
    main()
