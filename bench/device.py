#!/usr/bin/env python3
"""Times operators on data that is on a GPU already, beside PyTorch CUDA on the same card in the same run.

    GEMS_MEMORY=staged GEMS_RESIDENT=force LD_PRELOAD=build/libgems_preload.so \
        $(scripts/python) bench/device.py [--only 'mm_*,softmax*'] [--tries] [--results bench/results/device-h200]

Ours are CPU tensors that stay on the device, so calls go through the same launchers as a program's. "kernels" is their
time by the device's clock, whose events add about 3 us to each; "queued" what one of many calls in a row takes, the host's
part included; the ratio takes the shorter one, or where the host takes much longer what is queued. CUDA's is the time between two events around many calls. Each result is
compared with one in f64, computed by CUDA from the same inputs: the norm of the difference by the norm of the reference,
ours and CUDA's. A copy of 256 MiB in the same run says what the memory can do. --tries: also with the parameters in
bench/tries.json instead of those that the library finds.
"""
import argparse
import ctypes
import fnmatch
import json
import pathlib
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests" / "host")]

import torch  # noqa: E402

import cases  # noqa: E402
import gems  # noqa: E402

NO_REFERENCE = ("dropout", "uniform_", "randn")


def product(dtype, m, n, k, batch=None, left="n", right="n", op="mm"):
    """A case of our own: layouts ("t": transposed), ragged sizes, batches."""
    name = "bmm" if batch else op
    lead = [batch] if batch else []
    sizes = "x".join(map(str, lead + [m, n, k]))
    return {"id": f"{name}_{dtype}_{sizes}_{left}{right}", "op": name, "dtype": dtype, "own": (lead, m, n, k, left, right),
            "flops": 2 * (batch or 1) * m * n * k, "bound": "flop", "params": {}, "shapes": {},
            "bytes": (batch or 1) * (m * k + k * n + m * n) * (4 if dtype == "f32" else 2)}


OWN = [product("bf16", m, n, k, left=left, right=right, op="linear" if right == "t" and left == "n" else "mm")
       for m, n, k, left, right in [
           (4096, 4096, 4096, "n", "t"), (4096, 4096, 4096, "t", "n"), (4096, 4096, 4096, "t", "t"),
           (1024, 8192, 2048, "n", "t"), (1024, 2048, 8192, "n", "t"), (512, 2048, 2048, "n", "t"), (512, 5504, 2048, "n", "t"),
           (4096, 768, 768, "n", "t"), (4096, 3072, 768, "n", "t"), (4096, 768, 3072, "n", "t"),
           (1000, 1096, 264, "n", "n"), (333, 776, 520, "n", "t"), (512, 512, 512, "n", "n"), (2048, 2048, 2048, "n", "n")]]
OWN += [{**c, "id": c["id"].replace("bf16", "f32"), "dtype": "f32", "bytes": c["bytes"] * 2} for c in OWN]
OWN += [product("f32", 1001, 1097, 263), product("f32", 777, 1025, 4099, left="t", right="t"),
        product("bf16", 128, 128, 64, batch=384), product("bf16", 128, 64, 128, batch=384),
        product("bf16", 1001, 1097, 263)]
OWN += [product("bf16", m, n, k, right="t", op="linear") for m, n, k in
        [(1, 4096, 4096), (8, 4096, 14336), (16, 14336, 4096), (17, 5504, 2048), (64, 4096, 4096)]]
OWN += [product("bf16", 3, 4096, 4096), product("f16", 16, 4096, 4096, left="t"), product("f32", 1, 4096, 4096, right="t", op="linear")]


def build(case, device):
    if case["op"] == "sdpa" and "own" in case:
        return attention_call(case, device)
    if "own" not in case:
        return cases.build(case, device)
    lead, m, n, k, left, right = case["own"]
    g = torch.Generator().manual_seed(1)

    def one(rows, columns, turned):
        shape = lead + ([columns, rows] if turned else [rows, columns])
        x = torch.randn(shape, generator=g).to(cases.DTYPES[case["dtype"]]).to(device)
        return x.transpose(-1, -2) if turned else x

    a, b = one(m, k, left == "t"), one(k, n, right == "t")
    if case["op"] == "linear":
        weight = b.t()
        return lambda: torch.nn.functional.linear(a, weight)
    return lambda: a @ b


def attention(dtype, batch, heads, queries, keys, head, kv=None, causal=False, rows=False, mask=None):
    """kv: heads of keys and values; rows: [batch, length, heads, head] in memory; mask: "keys" (bool, of padding) or "all"."""
    element, kv = 4 if dtype == "f32" else 2, kv or heads
    words = [f"{batch}x{heads}" + (f"of{kv}" if kv != heads else ""), str(queries), str(keys), str(head)]
    kind = "_".join(["causal" if causal else "full"] + ["rows"] * rows + ([f"mask-{mask}"] if mask else []))
    return {"id": f"sdpa_{dtype}_{'x'.join(words)}_{kind}", "op": "sdpa", "dtype": dtype, "own": (kv, rows, mask),
            "shapes": {"q": [[batch, heads, queries, head]], "k": [[batch, kv, keys, head]], "v": [[batch, kv, keys, head]]},
            "params": {"causal": causal}, "flops": 4 * batch * heads * queries * keys * head // (1 + causal),
            "bytes": 2 * batch * (heads * queries + kv * keys) * head * element, "bound": "flop" if queries > 32 else "mem"}


HEADS = [attention("bf16", 4, 32, 2048, 2048, 64), attention("bf16", 4, 32, 2048, 2048, 64, causal=True),
         attention("bf16", 4, 32, 2048, 2048, 128, kv=8, causal=True, rows=True),
         attention("bf16", 8, 12, 512, 512, 64, rows=True), attention("bf16", 8, 12, 512, 512, 64, rows=True, mask="keys"),
         attention("bf16", 8, 12, 512, 512, 64, mask="all"), attention("bf16", 1, 32, 512, 512, 64, kv=8, causal=True, rows=True),
         attention("bf16", 32, 12, 197, 197, 64, rows=True), attention("bf16", 32, 12, 128, 128, 64, rows=True),
         attention("bf16", 32, 12, 128, 128, 64, rows=True, mask="keys"), attention("bf16", 1, 32, 512, 512, 64, causal=True),
         attention("bf16", 4, 12, 256, 256, 64, causal=True, rows=True), attention("bf16", 2, 12, 1024, 1024, 64, causal=True, rows=True),
         attention("bf16", 2, 16, 4096, 77, 40), attention("bf16", 2, 8, 1000, 777, 128, kv=2, rows=True),
         attention("bf16", 2, 6, 1000, 777, 64, kv=2, causal=True, rows=True), attention("bf16", 1, 2, 77, 77, 64, rows=True),
         attention("bf16", 2, 8, 1024, 1024, 256, causal=True), attention("bf16", 2, 8, 1024, 1024, 160),
         attention("f16", 4, 32, 2048, 2048, 128), attention("f16", 2, 12, 1000, 777, 80, causal=True),
         attention("bf16", 1, 32, 1, 4096, 128, kv=8), attention("bf16", 8, 32, 1, 4096, 128, kv=8),
         attention("bf16", 1, 32, 1, 32768, 128, kv=8), attention("bf16", 1, 32, 4, 8192, 64, rows=True)]
OWN += HEADS + [{**c, "id": c["id"].replace(c["dtype"], "f32"), "dtype": "f32", "bytes": c["bytes"] * 2} for c in HEADS
                if c["dtype"] == "bf16"]


def convolution(dtype, images, channels, size, outputs, filter_, stride=1, nhwc=False):
    """Square images and filters, padded so that the output is of size / stride."""
    element, out = 4 if dtype == "f32" else 2, size // stride
    padding = (filter_ - stride) // 2 if filter_ == stride else filter_ // 2
    name = f"conv2d_{dtype}_{images}x{channels}x{size}x{size}_{outputs}_k{filter_}_s{stride}" + "_nhwc" * nhwc
    return {"id": name, "op": "conv2d", "dtype": dtype, "bound": "flop",
            "shapes": {"in": [[images, channels, size, size]], "weight": [[outputs, channels, filter_, filter_]],
                       "out": [[images, outputs, out, out]]},
            "params": {"stride": stride, "padding": padding, "nhwc": nhwc, "cudnn_tf32": False},
            "flops": 2 * images * outputs * out * out * channels * filter_ * filter_,
            "bytes": element * (images * (channels * size * size + outputs * out * out) + outputs * channels * filter_ * filter_)}


# Of ResNet-50, a UNet, ConvNeXt's and ViT's first layers.
LAYERS = [(32, 3, 224, 64, 7, 2), (32, 64, 56, 64, 1), (32, 64, 56, 256, 1), (32, 256, 56, 128, 1), (32, 128, 56, 128, 3, 2),
          (32, 256, 56, 512, 1, 2), (32, 128, 28, 128, 3), (32, 256, 14, 256, 3), (32, 1024, 14, 256, 1), (32, 512, 7, 512, 3),
          (32, 512, 7, 2048, 1), (4, 320, 64, 320, 3), (4, 640, 32, 640, 3), (32, 3, 224, 96, 4, 4), (8, 3, 224, 768, 16, 16)]
OWN += [convolution(dtype, *layer, nhwc=nhwc) for dtype in ("bf16", "f32") for nhwc in (False, True) for layer in LAYERS]


def attention_inputs(case, device):
    """As cases.build makes them, for a case of its own; and the mask."""
    g = torch.Generator().manual_seed(0)
    dtype, (_, rows, mask) = cases.DTYPES[case["dtype"]], case.get("own", (0, False, None))
    q, k, v = [torch.randn(case["shapes"][x][0], generator=g).to(dtype) for x in "qkv"]
    if rows:
        q, k, v = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v)]
    if mask == "keys":  # sequences of all lengths
        length = torch.arange(1, q.size(0) + 1) * k.size(2) // q.size(0)
        mask = (torch.arange(k.size(2)) < length[:, None])[:, None, None].contiguous()
    elif mask:
        mask = torch.randn(q.size(2), k.size(2), generator=g).to(dtype)
    return [x if x is None else x.to(device) for x in (q, k, v, mask)]


def attention_call(case, device):
    q, k, v, mask = attention_inputs(case, device)
    gqa = q.size(1) != k.size(1)
    return lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v, mask, is_causal=case["params"]["causal"],
                                                                    enable_gqa=gqa)


def in_f64(case):
    """The result in f64 of the same inputs (rounded to the case's dtype first)."""
    fn = build(case, "cuda")
    if case["op"] == "sdpa":  # its kernels have no f64
        q, k, v, mask = attention_inputs(case, "cuda")
        k, v = [x.double().repeat_interleave(q.size(1) // x.size(1), 1) for x in (k, v)]
        scores = q.double() @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        if mask is not None:
            scores = scores.masked_fill_(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
        if case["params"]["causal"]:
            scores.masked_fill_(~torch.ones(scores.shape[-2:], dtype=torch.bool, device="cuda").tril(), -torch.inf)
        return torch.softmax(scores, -1) @ v

    class Wide(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            def widen(x):
                return x.double() if isinstance(x, torch.Tensor) and x.is_floating_point() else x
            args = torch.utils._pytree.tree_map(widen, args)
            return func(*args, **(kwargs or {}))
    with Wide():
        return fn()


def difference(result, exact):
    if isinstance(result, (tuple, list)):
        return max(difference(r, e) for r, e in zip(result, exact))
    if not result.is_floating_point():
        return float((result.cuda() != exact).sum())
    result = result.cuda().double()
    return float((result - exact).norm() / exact.norm().clamp_min(1e-300))


def one_of(result):
    return result[0] if isinstance(result, (tuple, list)) else result


def arrived(result):
    """Waits until it has been computed; little of it comes home."""
    return one_of(result).reshape(-1)[:1].sum().item()


def queued(fn, seconds):
    """Seconds a call takes where many are queued: the device's time, or the host's where that is longer."""
    arrived(fn())
    start = time.perf_counter()
    arrived(fn())
    many = max(5, min(300, int(seconds / (time.perf_counter() - start))))
    times = []
    for _ in range(3):
        start = time.perf_counter()
        for _ in range(many):
            result = fn()
        arrived(result)
        times.append((time.perf_counter() - start) / many)
    return min(times)


def ours(fn, seconds):
    """Seconds of device time of a call: medians of ten and more."""
    for _ in range(3):
        result = fn()
    gems.lib.gems_timing_set(1)
    times = []
    end = time.perf_counter() + seconds
    while len(times) < 10 or (time.perf_counter() < end and len(times) < 200):
        gems.lib.gems_counters_reset()
        fn()
        times.append(gems.counters().device_seconds)
    routed = gems.counters().routed
    gems.lib.gems_timing_set(0)
    return result, statistics.median(times), routed


def cuda(fn, seconds):
    for _ in range(3):
        result = fn()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    times, stop = [], time.perf_counter() + seconds
    while len(times) < 5 or (time.perf_counter() < stop and len(times) < 50):
        start.record()
        for _ in range(10):
            fn()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) * 1e-4)
    return result, statistics.median(times)


def measure(case, args):
    row = {"id": case["id"], "bytes": case["bytes"], "flops": case["flops"], "bound": case["bound"]}
    torch.backends.cudnn.allow_tf32 = case["params"].get("cudnn_tf32", True)
    try:
        with torch.no_grad():
            fn = build(case, "cpu")
            if fn is None:
                return {**row, "why": "not a case of this script"}
            result, row["ours_us"], routed = ours(fn, args.seconds)
            row["queued_us"] = queued(fn, args.seconds) * 1e6
            if not routed:
                return {**row, "ours_us": None, "why": gems.last_reason() or "no kernel"}
            theirs, row["cuda_us"] = cuda(build(case, "cuda"), args.seconds)
            exact = None
            if case["op"] not in NO_REFERENCE:
                exact = in_f64(case)
                row["error"], row["cuda_error"] = difference(result, exact), difference(theirs, exact)
            row["device_us"] = row["ours_us"] * 1e6
            # The clock of the device is the better one for short kernels; where the host takes much longer it is what counts.
            host_bound = row["queued_us"] > 3 * row["device_us"] + 20
            row["ours_us"] = row["queued_us"] if host_bound else min(row["device_us"], row["queued_us"])
            row["cuda_us"] *= 1e6
            row["ratio"] = row["cuda_us"] / row["ours_us"]
            if args.tries:
                row["tries"] = tried(case, fn, exact, args)
    except (RuntimeError, NotImplementedError) as e:
        row["why"] = f"{type(e).__name__}: {str(e).splitlines()[0][:100]}"
    return row


def set_rules(rules):
    error = ctypes.create_string_buffer(512)
    if gems.lib.gems_table_set(json.dumps({"rules": rules}).encode(), error, len(error)) != 0:
        sys.exit(f"tries.json: {error.value.decode()}")


def tried(case, fn, exact, args):
    """Microseconds in kernels and error for each of the case's parameters in tries.json."""
    rows = []
    for t in json.loads((HERE / "tries.json").read_text())["tries"]:
        for params in t["params"] if any(fnmatch.fnmatch(case["id"], p) for p in t["cases"]) else []:
            set_rules([{**{k: v for k, v in t.items() if k in ("op", "variant")}, "params": params}])
            try:
                result, seconds, routed = ours(fn, args.seconds)
                rows.append({"params": params, "us": seconds * 1e6 if routed else None, "why": "" if routed else gems.last_reason()})
                if routed and exact is not None:
                    rows[-1]["error"] = difference(result, exact)
            except RuntimeError as e:
                rows.append({"params": params, "us": None, "why": str(e).splitlines()[0]})
    set_rules([])
    return rows


def ceiling():
    x = torch.empty(64 << 20, dtype=torch.float32, device="cuda").uniform_()
    y = torch.empty_like(x)
    return 2 * x.numel() * 4 / cuda(lambda: y.copy_(x), 0.3)[1]


def markdown(rows, head):
    lines = [f"# {head['device']}", "", head["text"], "",
             "| case | kernels us | queued us | CUDA us | CUDA by ours | rate | of a copy | error | CUDA's error | remark |",
             "|---|---:|---:|---:|---:|---:|---:|---:|---:|---|"]
    for r in rows:
        us = r.get("ours_us")
        bound = r["bound"] == "mem"
        rate = "" if not us else f"{r['bytes'] / us * 1e-3:.0f} GB/s" if bound else f"{r['flops'] / us * 1e-6:.0f} TFLOP/s"
        part = f"{r['bytes'] / us * 1e6 / head['copy']:.2f}" if us and bound else ""

        def number(key, digits, r=r):
            return "" if r.get(key) is None else f"{r[key]:.{digits}}"
        cells = [f"{r[k]:.1f}" if r.get(k) else "" for k in ("device_us", "queued_us", "cuda_us")]
        lines.append(f"| {r['id']} | {cells[0]} | {cells[1]} | {cells[2]} | {number('ratio', '2f')} | {rate} | {part} | "
                     f"{number('error', '1e')} | {number('cuda_error', '1e')} | {r.get('why', '')} |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="*")
    parser.add_argument("--seconds", type=float, default=0.2)
    parser.add_argument("--tries", action="store_true", help="also by the parameters in tries.json")
    parser.add_argument("--results", help="path of the results without .json and .md")
    args = parser.parse_args()
    gems.lib.gems_route_set(b"all")
    every = [c for c in cases.load() + OWN if any(fnmatch.fnmatch(c["id"], p) for p in args.only.split(","))]
    driver = subprocess.run(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"], capture_output=True,
                            text=True, check=False).stdout.strip()
    head = {"device": torch.cuda.get_device_name(), "copy": ceiling()}
    rows = []

    def write():
        ratios = [r["ratio"] for r in rows if r.get("ratio")]
        head["text"] = (f"{time.strftime('%Y-%m-%d')}, driver {driver}, PyTorch {torch.__version__}, copy of 256 MiB "
                        f"{head['copy'] * 1e-9:.0f} GB/s. CUDA by ours: above 1 is faster than PyTorch CUDA; geometric mean "
                        f"{statistics.geometric_mean(ratios) if ratios else 0:.2f}. Errors: norm of the difference to f64.")
        if args.results:
            pathlib.Path(args.results + ".json").write_text(json.dumps({**head, "rows": rows}, indent=1) + "\n")
            pathlib.Path(args.results + ".md").write_text(markdown(rows, head))

    for case in every:
        rows.append(measure(case, args))
        print(markdown(rows[-1:], {**head, "text": ""}).splitlines()[-1], flush=True)
        for t in rows[-1].get("tries", []):
            got = f"{t['us']:8.1f} us  error {t.get('error', 0):.1e}" if t["us"] else f"not routed: {t['why']}"
            print(f"    {json.dumps(t['params'])[1:-1]:44} {got}", flush=True)
        write()
    print(head["text"])


if __name__ == "__main__":
    main()
