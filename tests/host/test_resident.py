"""What kernels read and write stays on the device (GEMS_RESIDENT=force; here PoCL's buffers, apart from the host's memory):
whole programs give what the same kernels give when everything travels with every call. `make check-resident` runs all of
tests/host so."""
import re
import sys

import pytest

from processes import run

PROGRAM = """
import hashlib, os, sys, tempfile, threading
import numpy as np, torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

torch.manual_seed(3)
seen = []
def look(*tensors):
    for t in tensors:
        seen.append(hashlib.sha256(np.ascontiguousarray(t.detach().numpy()).tobytes()).hexdigest()[:12])

def training(foreach):
    model = torch.nn.Sequential(torch.nn.Linear(300, 400), torch.nn.GELU(), torch.nn.LayerNorm(400), torch.nn.Linear(400, 200))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, foreach=foreach)
    x, y = torch.rand(128, 300), torch.rand(128, 200)
    for step in range(4):
        loss = ((checkpoint(model, x, use_reentrant=False) - y) ** 2).mean()
        optimizer.zero_grad(set_to_none=step % 2 == 0)
        loss.backward()
        optimizer.step()
        look(loss)
    look(*(p for p in model.parameters()))

def attention():
    with torch.inference_mode():
        q, k, v = torch.rand(3, 4, 6, 128, 32)
        cache = torch.zeros(4, 6, 256, 32)
        cache[:, :, :128] = k
        w = torch.softmax(q @ cache[:, :, :128].transpose(-1, -2) / 8, -1) @ v
        h = F.layer_norm(w.transpose(1, 2).reshape(4, 128, 192), (192,))
        cache[:, :, 128:] = F.relu(h).view(4, 128, 6, 32).transpose(1, 2)
        look(w, h, cache)

def shared():
    a = torch.rand(200, 200)
    b = a @ a
    b.share_memory_()
    b.mul_(2)
    c = b + a
    with tempfile.NamedTemporaryFile() as f:
        torch.save({"b": b, "c": c}, f.name)
        d = torch.load(f.name, mmap=True)["c"]
        look(d * 2 + c)
    pid = os.fork()
    if pid == 0:
        os._exit(int(torch.equal(c, b + a)))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
    results = [None] * 4
    def job(i):
        t = c + i
        for _ in range(20):
            t = (t @ a).tanh()
        results[i] = t
    threads = [threading.Thread(target=job, args=(i,)) for i in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    look(*results)

for part in (lambda: training(False), lambda: training(True), attention, shared):
    part()
print(*seen)
"""


@pytest.mark.parametrize("limit", [pytest.param("auto", marks=pytest.mark.long), "1"])
def test_the_same_as_when_everything_travels(limit):
    # What stays is on the main lane; sums of many rows are cut by how many compute units a lane has.
    both = {"GEMS_MEMORY": "staged", "GEMS_TUNE_JSON": '{"rules": [{"op": "*", "params": {"lane": 0}}]}', "timeout": 600}
    travels = run([sys.executable, "-c", PROGRAM], **both)
    stays = run([sys.executable, "-c", PROGRAM], GEMS_RESIDENT="force", GEMS_RESIDENT_LIMIT=limit, **both)
    assert travels.returncode == 0 and stays.returncode == 0, travels.stderr + stays.stderr
    assert travels.stdout.split() == stays.stdout.split()
    up, down = map(float, re.search(r"resident: ([\d.]+) MB copied to the device to stay, ([\d.]+) MB brought home", stays.stderr).groups())
    assert up > 1 and down > 1


PLACES = """
import torch
with torch.inference_mode():
    x, w = torch.rand(400, 500), torch.rand(500, 300)
    apart = x * 2
    y = x @ w
    z = (y + 1).relu()
    small = y[:2, :2] * 2
print(z.sum().item(), apart.sum().item(), small.sum().item())
"""


def test_rules_by_place():
    """A product goes to the device, and what works on its result, or on a little of it, stays there; all else is the host's."""
    rules = '{"rules": [{"op": "*", "place": "device"}, {"op": "mm", "dtype": "f32"}, {"op": "*", "host": true}]}'
    for resident, routed in (("force", True), ("off", False)):
        done = run([sys.executable, "-c", PLACES], GEMS_ROUTE="table", GEMS_MEMORY="staged", GEMS_RESIDENT=resident, GEMS_TUNE_JSON=rules,
                   GEMS_FUSE="off")
        assert done.returncode == 0, done.stderr
        calls = {name: (int(a), int(b)) for name, a, b in re.findall(r"gems: (\S+) +(\d+) +(\d+) ", done.stderr)}
        assert calls["mm"] == (1, 0)
        assert calls["relu"][0] == routed and calls["add.Tensor"][0] == routed, done.stderr
        assert calls["mul.Tensor"] == ((1, 1) if routed else (0, 2)), done.stderr


WEIGHTS = """
import os, sys, tempfile
import torch
torch.set_grad_enabled(False)
torch.manual_seed(0)
path = os.path.join(tempfile.mkdtemp(), "weights")
kept = {i: torch.randn(300, 300) for i in range(6)}
if "safetensors" in sys.argv: # whose tensors begin at any multiple of 8 bytes
    import safetensors.torch
    def save(weights):
        safetensors.torch.save_file({str(i): t for i, t in weights.items()}, path)
    def load():
        return {int(i): t for i, t in safetensors.torch.load_file(path).items()}
else:
    def save(weights):
        torch.save(weights, path)
    def load():
        return torch.load(path, mmap=True, weights_only=True)
save(kept)
x = torch.randn(40, 300)
def model(weights):
    y = x
    for i in range(6):
        y = torch.mm(y, weights[i]) / 20
    return y
def same(weights):
    assert torch.allclose(model(weights), model(kept), atol=1e-4)
weights = load()
for _ in range(5):
    same(weights)
if "change" in sys.argv:
    pid = os.fork()
    if pid == 0: # where there is no device, and the memory may be written all the same
        weights[0].numpy()[0, 0] = 3
        os._exit(int(weights[0][0, 0] != 3))
    assert os.waitpid(pid, 0)[1] == 0
    same(weights)
    for change in (lambda t: torch.mm(t[1], t[0] / 20, out=t[5]), lambda t: t[3].mul_(2), lambda t: t[4].numpy().fill(0.25), lambda t: torch.add(t[1], 1, out=t[5])):
        change(weights)
        change(kept)
        same(weights)
    kept[2].copy_(kept[1] * 2)
    kept[2].numpy().tofile(path + ".2")
    with open(path + ".2", "rb") as f: # by the system
        f.readinto(memoryview(weights[2].numpy()).cast("B"))
    same(weights)
    del weights
    kept = {i: t + 1 for i, t in kept.items()}
    save(kept)
    same(load())
"""


@pytest.mark.parametrize("made_by", ["torch", "safetensors"])
@pytest.mark.parametrize("argument", ["", "change"])
def test_weights_in_a_mapped_file_are_copied_once(argument, made_by):
    done = run([sys.executable, "-c", WEIGHTS, argument, made_by], GEMS_ROUTE="all", GEMS_MEMORY="staged", GEMS_RESIDENT="force")
    assert done.returncode == 0, done.stderr
    moved = float(re.search(r"gems: mm +\d+ +\d+ +\S+ +\S+ +([\d.]+)", done.stderr)[1])
    once = 12 * 300 * 300 * 4e-6 # of the mapping, and what was saved into it
    assert moved < (8 if argument else 1.3) * once, done.stderr


FOLLOWED = """
import torch
with torch.inference_mode():
    x, i = torch.rand(300, 400), torch.randint(0, 300, (500,)).add(0)
    j = i.view(-1, 1).expand(500, 400)
    print(torch.index_select(x, 0, i).sum().item(), torch.gather(x, 0, j).sum().item(), torch.embedding(x, i).sum().item())
"""


def test_indices_are_checked_where_they_are():
    done = run([sys.executable, "-c", FOLLOWED], GEMS_MEMORY="staged", GEMS_RESIDENT="force")
    assert done.returncode == 0 and len(set(done.stdout.split())) == 1, done.stderr
    assert float(re.search(r"resident: .* MB copied to the device to stay, ([\d.]+) MB brought home", done.stderr)[1]) < 0.1, done.stderr
