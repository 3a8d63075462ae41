"""The pool of tensors' memory (shim/alloc.c, kernels/memory/arena.c) in real PyTorch programs: the same results and errors
as without it, and no more memory."""
import io
import re
import sys

import numpy
import pytest
import torch

from processes import complaints, python, run

LEAST = 64 << 10  # bytes; smaller ones are PyTorch's own
HUGE = 2 << 20


def report(done):
    """{name: number} of the pool's line; None if there is none."""
    line = re.search(r"^gems: memory pool: (\d+) blocks taken, (\d+) of them anew; MB in use ([\d.]+), free ([\d.]+); "
                     r"at most in use ([\d.]+), with pages ([\d.]+); given back ([\d.]+)$", done.stderr, re.MULTILINE)
    names = "taken", "anew", "used", "free", "peak", "pages", "given_back"
    return line and dict(zip(names, map(float, line.groups())))


def from_pool(tensor):
    """As far as an address tells: PyTorch's own are 64 bytes behind the start of a page, where the heap keeps its notes."""
    return tensor.data_ptr() % 4096 == 0


# ---- in this process ----

def test_addresses_are_aligned():
    for numel in range(1, 3 << 20, 77777):
        t = torch.empty(numel)
        bytes_of = 4 * numel
        assert t.data_ptr() % 64 == 0
        if bytes_of >= LEAST:
            assert from_pool(t)
        if bytes_of >= HUGE:
            assert t.data_ptr() % HUGE == 0


def test_memory_is_used_again():
    a = torch.empty(1 << 20)
    address = a.data_ptr()
    del a
    assert torch.empty((1 << 20) - 100).data_ptr() == address


def test_empty_storages():
    assert torch.empty(0).data_ptr() == 0
    t = torch.empty(1 << 20)
    t.untyped_storage().resize_(0)
    assert t.untyped_storage().nbytes() == 0 and t.data_ptr() == 0
    t.untyped_storage().resize_(4 << 20)
    assert t.fill_(3).sum().item() == 3 << 20


def test_resize_keeps_what_is_there():
    t = torch.arange(100000)
    for numel in (200000, 10, 3000000, 100000):
        t.resize_(numel)
    assert (t[:10] == torch.arange(10)).all()
    t = torch.arange(1 << 20)
    t.resize_(1 << 22)
    assert (t[:1 << 20] == torch.arange(1 << 20)).all()


def test_numpy_shares_memory():
    t = torch.arange(1 << 20)
    array = t.numpy()
    assert array.ctypes.data == t.data_ptr()
    array[5] = -1
    assert t[5].item() == -1
    del t
    other = torch.full((1 << 20,), 9)
    assert array[5] == -1 and array[-1] == (1 << 20) - 1 and other[0] == 9
    mine = numpy.ones(1 << 20)
    shared = torch.from_numpy(mine)  # memory that is not ours
    shared.add_(1)
    del shared
    assert mine.sum() == 2 << 20


def test_save_and_load():
    model = {"w": torch.randn(1000, 1000), "half": torch.randn(300, 300).half(), "view": torch.randn(500, 500)[::2]}
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    loaded = torch.load(file)
    assert all(torch.equal(model[k], loaded[k]) for k in model)


def test_shared_memory_and_dlpack():
    t = torch.arange(1 << 20)
    u = torch.from_dlpack(t)
    assert u.data_ptr() == t.data_ptr()
    t.share_memory_()
    assert torch.equal(t, torch.arange(1 << 20)) and torch.equal(u, t)


@pytest.mark.parametrize("numel", [1 << 60, 1 << 45])
def test_what_is_too_large_is_refused_in_the_same_words(numel):
    code = f"import torch\ntry:\n    torch.empty({numel})\nexcept RuntimeError as e:\n    print(e)\n"
    plain, ours = python(code, preload=False), python(code)
    assert plain.stdout == ours.stdout and "can't allocate memory" in ours.stdout


# ---- whole programs ----

RESULTS = """
import torch
torch.manual_seed(3)
model = torch.nn.Sequential(torch.nn.Linear(500, 700), torch.nn.GELU(), torch.nn.Linear(700, 300))
optimizer = torch.optim.AdamW(model.parameters())
for i in range(5):
    loss = (model(torch.randn(200, 500)).softmax(1) - torch.rand(200, 300)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(loss.item(), sum(p.double().sum().item() for p in model.parameters()))
"""


def test_results_do_not_depend_on_it():
    """Nothing is routed: the same bits."""
    ours, without = python(RESULTS, GEMS_ROUTE="off"), python(RESULTS, GEMS_ROUTE="off", GEMS_POOL="0")
    assert ours.stdout == without.stdout != ""
    assert report(ours)["taken"] > 50 and report(without) is None
    assert complaints(ours) == []


ADDRESS = "import torch\nprint(torch.empty(1 << 20).data_ptr() % 4096)\n"


@pytest.mark.parametrize("variables", [{"GEMS_POOL": "0"}, {"GEMS_DISABLE": "1"}])
def test_can_be_switched_off(variables):
    assert python(ADDRESS).stdout == "0\n"
    assert python(ADDRESS, **variables).stdout != "0\n"


def test_limits_on_address_space_switch_it_off():
    limited = "import resource\nresource.setrlimit(resource.RLIMIT_AS, (64 << 30, resource.RLIM_INFINITY))\n" + ADDRESS
    done = python(limited)
    assert done.returncode == 0 and done.stdout not in ("0\n", "")


def test_memory_goes_back_when_the_program_is_idle():
    done = python("""
import time, torch
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
before = resident()
x = [torch.ones(1 << 20) for _ in range(100)]
assert resident() - before > 390 << 20
del x
for i in range(600):
    if resident() - before < 50 << 20:
        break
    time.sleep(0.1)
print("given back" if resident() - before < 50 << 20 else "kept")
""", GEMS_ROUTE="off")
    assert done.stdout == "given back\n", done.stderr
    assert report(done)["given_back"] >= 400


FORKS = """
import os, torch
torch.set_num_threads(1)
a, unused = torch.ones(1 << 20), torch.ones(1 << 22)
del unused
read, write = os.pipe()
for i in range(3):
    if os.fork() == 0:
        a.mul_(i + 2)
        b = [a * 2 for _ in range(5)]
        os.write(write, f"{a.sum().item() + b[4][7].item()}\\n".encode())
        del a, b
        os._exit(0)
    os.wait()
    print(os.read(read, 99).decode().strip(), a.sum().item())
"""


def test_fork():
    done = python(FORKS, GEMS_ROUTE="off")
    n = float(1 << 20)
    assert done.stdout.split("\n")[:3] == [f"{n * k + 2 * k} {n}" for k in (2, 3, 4)], done.stderr


LOADER = """
import torch
from torch.utils.data import DataLoader, Dataset
class Pictures(Dataset):
    def __len__(self):
        return 40
    def __getitem__(self, i):
        return torch.full((3, 200 + i, 300), float(i)).mul(2)[:, :200]
for method in ("fork", "spawn"):
    if __name__ == "__main__":
        print(sum(b.double().sum().item() for b in DataLoader(Pictures(), batch_size=5, num_workers=4, multiprocessing_context=method)))
"""


def test_data_loader_workers(tmp_path):
    (tmp_path / "loader.py").write_text(LOADER)
    done = run([sys.executable, tmp_path / "loader.py"], GEMS_ROUTE="off")
    assert done.stdout.split() == [str(float(sum(range(40)) * 2 * 3 * 200 * 300))] * 2, done.stderr


PEAK = """
import torch
torch.set_num_threads(1)
def peak():
    return int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1]) / 1024
torch.ones(10).add(1)
before = peak()
state = 1
for round in range(60):  # as many bytes each time, in tensors of other sizes
    state = state * 1103515245 + 12345 & 0x7fffffff
    n = (100 << 10) + state % (6 << 20)
    x = [torch.ones(n // 4) for _ in range((96 << 20) // n)]
    y = [t * 2 for t in x[:4]]
    del x, y
print(peak() - before)
"""


def test_peak_memory_of_changing_sizes():
    ours, without = (float(python(PEAK, GEMS_ROUTE="off", GEMS_POOL=pool).stdout) for pool in "10")
    assert ours <= 1.15 * without + 8, f"{ours} MB with the pool, {without} MB without"


def test_its_thread_does_not_keep_a_process_alive():
    """A process ends with its last thread: that is not to be the one that gives memory back."""
    code = "import torch, ctypes\nx = torch.ones(1 << 22)\ndel x\nctypes.CDLL(None).pthread_exit(None)\n"
    plain = python(code, preload=False, timeout=60)
    assert python(code, timeout=60, GEMS_ROUTE="off").returncode == plain.returncode
