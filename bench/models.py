#!/usr/bin/env python3
"""Times whole models that know only CPU tensors: plain, with their tensors staying on the device, and moved to CUDA by hand.

    LD_PRELOAD=build/libgems_preload.so scripts/python bench/models.py                   # on a machine with a GPU
    LD_PRELOAD=... bench/models.py --small --only mlp,bert --modes plain,resident        # anywhere

plain: without the library. resident: with it, GEMS_RESIDENT=force. cuda: the same model and inputs moved there once, without
the library. Each mode is a process of its own, which lives while the others do; they take turns. The weights are random. A time lasts
until a number of the result can be read; the best of the rounds counts. A ratio is plain's time by the mode's."""
import argparse
import datetime
import json
import math
import os
import pathlib
import subprocess
import sys
import time

import bars

HERE = pathlib.Path(__file__).resolve().parent
MODES = {"plain": None, "resident": {"GEMS_RESIDENT": "force", "GEMS_MEMORY": "staged"}, "cuda": None}


# ---- the models ----

def models(small):
    """{name: function(dtype, device) that gives a function without arguments}"""
    import torch
    import torch.nn.functional as F
    from torch import nn

    def scaled(n):
        return max(64, n // 16) if small else n

    class MLP(nn.Module):
        def __init__(self, width, inner):
            super().__init__()
            self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)

        def forward(self, x):
            return x + self.down(F.gelu(self.up(x)))

    class Attention(nn.Module):
        def __init__(self, width, heads, kv_heads=None, bias=True):
            super().__init__()
            self.heads, self.kv, self.size = heads, kv_heads or heads, width // heads
            self.q = nn.Linear(width, width, bias=bias)
            self.k, self.v = (nn.Linear(width, self.kv * self.size, bias=bias) for _ in range(2))
            self.o = nn.Linear(width, width, bias=bias)

        def forward(self, x, causal=False, turn=None, cache=None):
            b, n, w = x.shape
            q, k, v = (f(x).view(b, n, -1, self.size).transpose(1, 2) for f in (self.q, self.k, self.v))
            if turn is not None:
                q, k = turn(q), turn(k)
            if cache is not None:
                for name, new in (("k", k), ("v", v)):
                    cache[name] = torch.cat([cache[name], new], 2) if name in cache else new
                k, v = cache["k"], cache["v"]
            if self.kv != self.heads:
                k, v = (t.repeat_interleave(self.heads // self.kv, 1) for t in (k, v))
            return self.o(F.scaled_dot_product_attention(q, k, v, is_causal=causal and n > 1).transpose(1, 2).reshape(b, n, w))

    class Block(nn.Module):
        """Norms before what they feed, as in GPT-2 and ViT."""

        def __init__(self, width, heads):
            super().__init__()
            self.n1, self.n2, self.attention, self.mlp = nn.LayerNorm(width), nn.LayerNorm(width), Attention(width, heads), MLP(width, 4 * width)

        def forward(self, x, causal=False):
            x = x + self.attention(self.n1(x), causal)
            return x + self.mlp.down(F.gelu(self.mlp.up(self.n2(x))))

    class Llama(nn.Module):
        def __init__(self, width, inner, layers, heads, kv, words):
            super().__init__()
            self.words = nn.Embedding(words, width)
            self.layers = nn.ModuleList(nn.ModuleDict({
                "n1": nn.RMSNorm(width), "n2": nn.RMSNorm(width), "attention": Attention(width, heads, kv, bias=False),
                "gate": nn.Linear(width, inner, bias=False), "up": nn.Linear(width, inner, bias=False),
                "down": nn.Linear(inner, width, bias=False)}) for _ in range(layers))
            self.norm, self.size = nn.RMSNorm(width), width // heads

        def forward(self, tokens, caches, begin):
            x = self.words(tokens)
            steps = torch.arange(self.size // 2, device=x.device, dtype=torch.float32)
            places = torch.arange(begin, begin + tokens.shape[1], device=x.device, dtype=torch.float32)
            angle = places[:, None] * 10000.0 ** (-2 * steps / self.size)
            cos, sin = (torch.cat([t, t], -1).to(x.dtype) for t in (angle.cos(), angle.sin()))

            def turn(t):
                a, b = t.chunk(2, -1)
                return t * cos + torch.cat([-b, a], -1) * sin

            for layer, cache in zip(self.layers, caches):
                x = x + layer["attention"](layer["n1"](x), True, turn, cache)
                h = layer["n2"](x)
                x = x + layer["down"](F.silu(layer["gate"](h)) * layer["up"](h))
            return F.linear(self.norm(x[:, -1:]), self.words.weight)

    class Bottleneck(nn.Module):
        def __init__(self, inside, width, stride):
            super().__init__()
            self.convs = nn.Sequential(nn.Conv2d(inside, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
                                       nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
                                       nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width))
            self.short = nn.Sequential(nn.Conv2d(inside, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width)) \
                if stride > 1 or inside != 4 * width else nn.Identity()

        def forward(self, x):
            return F.relu(self.convs(x) + self.short(x))

    def made(build, dtype, device):
        torch.manual_seed(1)
        return build().to(dtype).to(device).eval()

    def mlp(dtype, device):
        width, inner = scaled(2048), scaled(8192)
        model = made(lambda: nn.Sequential(*(MLP(width, inner) for _ in range(16))), dtype, device)
        x = torch.randn(scaled(1024), width).to(dtype).to(device)
        return lambda: model(x)

    def llama(dtype, device, prompt, generated):
        width, inner, layers, heads, kv, words = (128, 512, 2, 4, 2, 500) if small else (2048, 8192, 16, 32, 8, 128256)
        model = made(lambda: Llama(width, inner, layers, heads, kv, words), dtype, device)
        tokens = torch.randint(0, words, (1, prompt), generator=torch.Generator().manual_seed(2)).to(device)

        def run():
            caches = [{} for _ in range(layers)]
            x = model(tokens, caches, 0)
            for i in range(generated):
                x = model(x[:, -1].argmax(-1, keepdim=True), caches, prompt + i)
            return x
        return run

    def bert(dtype, device):
        width, layers, heads = (128, 2, 4) if small else (768, 12, 12)
        layer = lambda: nn.ModuleList([Attention(width, heads), nn.LayerNorm(width), MLP(width, 4 * width), nn.LayerNorm(width)])  # noqa: E731
        model = made(lambda: nn.ModuleList([nn.Embedding(3000, width), nn.ModuleList(layer() for _ in range(layers))]), dtype, device)
        tokens = torch.randint(0, 3000, (4 if small else 32, 128), generator=torch.Generator().manual_seed(2)).to(device)

        def run():
            x = model[0](tokens)
            for attention, n1, inner, n2 in model[1]:
                x = n1(x + attention(x))
                x = n2(inner(x))
            return x
        return run

    def vit(dtype, device):
        width, layers, heads, side = (128, 2, 4, 64) if small else (768, 12, 12, 224)
        model = made(lambda: nn.ModuleList([nn.Conv2d(3, width, 16, 16), nn.Sequential(*(Block(width, heads) for _ in range(layers))),
                                            nn.LayerNorm(width)]), dtype, device)
        x = torch.randn(4 if small else 32, 3, side, side).to(dtype).to(device)
        return lambda: model[2](model[1](model[0](x).flatten(2).transpose(1, 2))).mean(1)

    def resnet(dtype, device):
        def build():
            inside, parts = 64, [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
            for width, n in ((64, 1 if small else 3), (128, 1 if small else 4), (256, 1 if small else 6), (512, 1 if small else 3)):
                for i in range(n):
                    parts.append(Bottleneck(inside, width, 2 if i == 0 and width > 64 else 1))
                    inside = 4 * width
            return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000))
        model = made(build, dtype, device)
        x = torch.randn(2 if small else 32, 3, 64 if small else 224, 64 if small else 224).to(dtype).to(device)
        return lambda: model(x)

    def gpt2(dtype, device):
        width, layers, heads, words = (128, 2, 4, 500) if small else (768, 12, 12, 50257)
        model = made(lambda: nn.ModuleList([nn.Embedding(words, width), nn.Embedding(256, width),
                                            nn.ModuleList(Block(width, heads) for _ in range(layers)), nn.LayerNorm(width)]), dtype, device)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, foreach=False)
        tokens = torch.randint(0, words, (4, 257), generator=torch.Generator().manual_seed(2)).to(device)
        places = torch.arange(256).to(device)

        def step():
            with torch.enable_grad():
                x = model[0](tokens[:, :-1]) + model[1](places)
                for block in model[2]:
                    x = block(x, causal=True)
                logits = F.linear(model[3](x), model[0].weight)
                loss = F.cross_entropy(logits.view(-1, words), tokens[:, 1:].flatten())
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            return loss
        return step

    prompt = 32 if small else 512
    return {"mlp": mlp, "llama_prefill": lambda *a: llama(*a, prompt, 0), "llama_decode": lambda *a: llama(*a, 16, 4 if small else 32),
            "bert": bert, "vit": vit, "resnet50": resnet, "gpt2_train": gpt2}


# ---- the measured processes ----

def worker(mode, small):
    """Reads commands from stdin, a JSON object a line, and answers with one each."""
    import torch
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    torch.set_grad_enabled(False)
    known, run = models(small), None
    for line in sys.stdin:
        command, answer = json.loads(line), {}
        try:
            if "model" in command:
                run = None
                run = known[command["model"]](getattr(torch, command["dtype"]), "cuda" if mode == "cuda" else "cpu")
            start = time.perf_counter()
            result = run()
            first = result.flatten()[0].item()
            answer = {"seconds": time.perf_counter() - start, "first": first, "sum": result.double().abs().sum().item()}
        except Exception as e:  # noqa: BLE001 - it is reported
            answer = {"error": f"{type(e).__name__}: {e}"}
        print(json.dumps(answer), file=answers, flush=True)


class Worker:
    def __init__(self, mode, args):
        env = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
        if mode == "resident":
            env.update(MODES[mode], LD_PRELOAD=os.environ["LD_PRELOAD"])
            if args.route:
                env["GEMS_ROUTE"] = args.route
        self.process = subprocess.Popen([sys.executable, __file__, "--worker", mode, *(["--small"] if args.small else [])],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)

    def ask(self, **command):
        try:
            self.process.stdin.write(json.dumps(command) + "\n")
            self.process.stdin.flush()
            return json.loads(self.process.stdout.readline() or '{"error": "the process has ended"}')
        except BrokenPipeError:
            return {"error": "the process has ended"}


def measure(name, dtype, workers, rounds):
    """{mode: {"seconds": the best, "first_call": seconds, "sum"...} or {"error"}}"""
    found = {mode: w.ask(model=name, dtype=dtype) for mode, w in workers.items()}
    for answer in found.values():
        answer["first_call"] = answer.get("seconds")
    for _ in range(rounds):
        for mode, w in workers.items():
            if "error" in found[mode]:
                continue
            answer = w.ask()
            if "error" in answer:
                found[mode] = answer
            else:
                found[mode]["seconds"] = min(found[mode]["seconds"], answer["seconds"])
    plain = found.get("plain", {})
    for answer in found.values():
        if "sum" in answer and plain.get("sum") and name != "gpt2_train":  # whose weights move on
            answer["difference"] = abs(answer["sum"] - plain["sum"]) / plain["sum"]
    return found


def markdown(result):
    modes = result["modes"]
    lines = ["# Whole models", "", f"{result['date']}, {result['device']}, {result['cores']} cores, PyTorch {result['torch']}; best of "
             f"{result['rounds']} rounds. A ratio is plain's time by the mode's: above 1 is faster. Difference: of the sums of the absolute results, relative.", "",
             "| model | dtype | " + " | ".join(f"{m}, ms" for m in modes) + " | " + " | ".join(m for m in modes if m != "plain") + " | difference |",
             "|---|---|" + "---:|" * (2 * len(modes))]
    for case in result["cases"]:
        found = case["found"]
        found = {**dict.fromkeys(modes, {}), **found}
        ms = [f"{1e3 * found[m]['seconds']:.2f}" if "seconds" in found[m] else "-" for m in modes]
        ratios = [f"{found['plain']['seconds'] / found[m]['seconds']:.2f}" if "seconds" in found[m] and "seconds" in found.get("plain", {}) else "-"
                  for m in modes if m != "plain"]
        difference = found.get("resident", {}).get("difference")
        lines.append(f"| {case['model']} | {case['dtype']} | " + " | ".join(ms + ratios) + f" | {'-' if difference is None else f'{difference:.1e}'} |")
    for case in result["cases"]:
        for mode, answer in case["found"].items():
            if "error" in answer:
                lines.append(f"\n{case['model']} {case['dtype']}, {mode}: {answer['error']}")
    return "\n".join(lines) + "\n"


def picture(result, path):
    cases = {}
    for case in result["cases"]:
        found = case["found"]
        cases[f"{case['model']} {case['dtype']}"] = {
            m: found["plain"]["seconds"] / found[m]["seconds"] if "seconds" in found[m] and "seconds" in found["plain"] else math.nan
            for m in result["modes"] if m != "plain"}
    bars.draw(path, f"{result['device']}: time of {result['cores']} cores by the mode's (above 1: faster)", cases)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", default="", help="models, separated by commas")
    parser.add_argument("--modes", default="plain,resident,cuda")
    parser.add_argument("--dtypes", default="float32,bfloat16")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--route", help="GEMS_ROUTE of the resident mode")
    parser.add_argument("--small", action="store_true", help="models of a few layers")
    parser.add_argument("--output", type=pathlib.Path, help="without its suffix: .json, .md and .png are written")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return worker(args.worker, args.small)
    if "libgems_preload" not in os.environ.get("LD_PRELOAD", "") and "resident" in args.modes:
        sys.exit("bench/models.py must run under the preload, which its other modes then do without")
    import torch
    wanted = [m for m in args.modes.split(",") if m != "cuda" or torch.cuda.is_available()]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA device"
    result = {"date": str(datetime.date.today()), "device": device, "cores": os.cpu_count(), "torch": torch.__version__, "rounds": args.rounds,
              "modes": wanted, "small": args.small, "cases": []}
    names = args.only.split(",") if args.only else list(models(True))
    for dtype in args.dtypes.split(","):
        for name in names:
            if name == "gpt2_train" and dtype != "float32":
                continue
            workers = {mode: Worker(mode, args) for mode in wanted}
            found = measure(name, dtype, workers, args.rounds)
            for w in workers.values():
                w.process.stdin.close()
                w.process.wait()
            result["cases"].append({"model": name, "dtype": dtype, "found": found})
            print(name, dtype, {m: a.get("error") or f"{1e3 * a['seconds']:.2f} ms" for m, a in found.items()}, flush=True)
            if args.output:
                args.output.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
                args.output.with_suffix(".md").write_text(markdown(result))
    if args.output and "plain" in wanted and len(wanted) > 1:
        picture(result, args.output.with_suffix(".png"))
    print(markdown(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
