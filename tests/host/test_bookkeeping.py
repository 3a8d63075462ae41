"""What PyTorch notes beside values: versions of tensors, what a profiler sees, lazy copies, kinds of memory."""
import mmap
import sys
import tempfile

import pytest
import torch
import torch.nn.functional as F

import gems
from processes import same_as_plain

x44 = lambda: torch.rand(4, 4)  # noqa: E731

WRITING = {
    "in-place": lambda x: x.add_(1),
    "in-place on a view": lambda x: x[0].mul_(2),
    "in-place on a transposed view": lambda x: x.t().exp_(),
    "copy": lambda x: x.copy_(torch.ones(4, 4)),
    "fill": lambda x: x.fill_(2),
    "out": lambda x: torch.add(torch.ones(4, 4), 1, out=x),
    "out of mm": lambda x: torch.mm(torch.ones(4, 4), torch.ones(4, 4), out=x),
    "out of a reduction": lambda x: torch.sum(torch.ones(4, 4), 0, out=x[1]),
    "out of several": lambda x: torch.max(torch.ones(4, 4), 0, out=(x[0], torch.empty(4, dtype=torch.long))),
    "out of a list": lambda x: torch.cat([torch.ones(2, 4), torch.ones(2, 4)], out=x),
    "through data": lambda x: x.data.add_(1),
}


def versions(write):
    """Version counters after a write in each state of a thread, what the graph says of a tensor it has saved, and the
    tensor's values."""
    said = []
    x = x44()
    write(x)
    said.append(x._version)
    with torch.no_grad():
        write(x)
    said.append(x._version)
    with torch.inference_mode():
        write(x)
        made_there = x44()
        write(made_there)
    said.append(x._version)
    a = x44().requires_grad_()
    b = a.exp()
    loss = (b * b).sum()
    write(b.detach())
    try:
        loss.backward()
    except RuntimeError as error:
        said.append(str(error))
    return said, x


@pytest.mark.parametrize("write", WRITING.values(), ids=WRITING)
def test_versions(write):
    """A routed write counts as one, so that the gradient of what was overwritten is refused, in PyTorch's words."""
    with gems.off():
        torch.manual_seed(0)
        want, want_x = versions(write)
    torch.manual_seed(0)
    before = gems.counters().routed
    got, x = versions(write)
    assert got == want and gems.counters().routed > before
    torch.testing.assert_close(x, want_x)


def test_parameters_are_routed():
    p = torch.nn.Parameter(x44())
    before = gems.counters("exp").routed
    y = torch.exp(p)
    assert gems.counters("exp").routed == before + 1 and y.grad_fn is not None


def seen_by_profiler(body):
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        body()
    return {event.key for event in profile.key_averages()}


def test_tensors_from_outside_in_inference_mode():
    outside = x44()
    other, before = outside.clone(), gems.counters().routed
    with torch.inference_mode():
        made_there = x44()
        kept = made_there.tolist()
        made_there.add_(outside)
        outside.mul_(made_there)
        converted = outside.to(torch.float64)
    assert gems.counters().routed >= before + 3
    assert outside._version == 1 and made_there.is_inference() and converted.is_inference()
    torch.testing.assert_close(made_there.clone(), torch.tensor(kept) + other, rtol=0, atol=0)


@pytest.mark.parametrize("state", ["grad", "no_grad", "inference"])
def test_a_profiler_sees_every_operator(state):
    x = x44().requires_grad_(state == "grad")
    operations = {"aten::add": lambda: x + x, "aten::softmax": lambda: torch.softmax(x, -1), "aten::where": lambda: torch.where(x > 1, x, 0.0),
                  "aten::linear": lambda: F.linear(x, x), "aten::rms_norm": lambda: torch.rms_norm(x, (4,)), "aten::sum": lambda: x.sum()}

    def body():
        with torch.inference_mode(state == "inference"), torch.set_grad_enabled(state == "grad"):
            for operation in operations.values():
                operation()

    body()
    assert set(operations) <= seen_by_profiler(body)
    before = gems.counters().routed
    body()
    assert gems.counters().routed > before, "routed again without the profiler"


def test_lazy_copies_stay_lazy():
    """Reading a copy-on-write tensor makes no copy; writing does."""
    x = x44()
    y = torch._lazy_clone(x)
    before = gems.counters().routed
    torch.testing.assert_close(torch.exp(y), torch.exp(x), rtol=0, atol=0)
    assert gems.counters().routed >= before + 2
    assert torch._C._is_cow_tensor(x) and torch._C._is_cow_tensor(y)
    kept = x.tolist()
    y.add_(1)
    assert not torch._C._is_cow_tensor(y) and x.tolist() == kept


def test_exotic_tensors_leave_no_noise(capfd):
    """They are recognised before anything is asked of them, which PyTorch would answer with an error on stderr."""
    sparse = torch.eye(4).to_sparse_csr()
    capfd.readouterr()
    torch.testing.assert_close((sparse + sparse).to_dense(), torch.eye(4) * 2)
    assert capfd.readouterr().err == ""


def test_kinds_of_memory():
    """Read-only pages, a storage shared between processes, memory that is not ours to align."""
    with tempfile.TemporaryFile() as file:
        file.write(torch.arange(16.0).numpy().tobytes())
        file.flush()
        mapped = torch.frombuffer(mmap.mmap(file.fileno(), 64, prot=mmap.PROT_READ), dtype=torch.float32).view(4, 4)
        shared = torch.arange(16.0).view(4, 4).share_memory_()
        odd = torch.frombuffer(bytearray(b"\0" + torch.arange(16.0).numpy().tobytes()), dtype=torch.float32, offset=1).view(4, 4)
        for x in (mapped, shared, odd):
            for operation in (lambda x: x + x, lambda x: x @ x, lambda x: torch.softmax(x, 1), lambda x: x.sum(0), lambda x: torch.cat([x, x])):
                with gems.off():
                    want = operation(x)
                torch.testing.assert_close(operation(x), want)
        assert shared.add_(1).is_shared() and shared[0, 0] == 1


def test_a_tensor_without_its_memory():
    """numel > 0 and no bytes behind it: what needs no bytes works as with the host, what needs them is not ours."""
    x = x44()
    x.untyped_storage().resize_(0)
    assert x.numel() == 16 and x.data_ptr() == 0
    before = gems.counters("zeros_like").routed + gems.counters("mm").routed
    y = torch.zeros_like(x)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        x @ torch.ones(3, 3)
    assert gems.counters("zeros_like").routed + gems.counters("mm").routed == before
    assert torch.equal(y, torch.zeros(4, 4))


def test_names_without_a_device_reach_the_same_operators():
    """The C shim's older functions (aoti_torch_mm_out, aoti_torch_aten_amax) are not interposed and need not be: PyTorch
    sends them through at::_ops."""
    import hostcall

    x, out = x44(), torch.empty(4, 4)
    c = hostcall.Arguments()
    handle = lambda t: c.aoti("Tensor", t)  # noqa: E731
    made = hostcall.address()
    before = gems.counters("mm.out").routed, gems.counters("amax").routed
    assert hostcall.HOST.aoti_torch_mm_out(*handle(out), *handle(x), *handle(x)) == 0
    assert hostcall.HOST.aoti_torch_aten_amax(*handle(x), *c.aoti("int[]", [1]), *c.aoti("bool", False), c.at(made)) == 0
    torch.testing.assert_close(out, x @ x)
    torch.testing.assert_close(hostcall.steal(made.value), x.max(1).values)
    assert (gems.counters("mm.out").routed, gems.counters("amax").routed) == (before[0] + 1, before[1] + 1)


OWN_KERNEL = """
import torch
import torch.nn.functional as F
x = torch.ones(2, 4)
print(torch.neg(x).tolist(), F.linear(x, x).tolist())
library = torch.library.Library("aten", "IMPL")
library.impl("%s", lambda self, *rest: self * 0 - 100, "%s", allow_override=True)
print(torch.neg(x).tolist(), torch.exp(x * 0).tolist())
with torch.inference_mode():
    print(torch.neg(x).tolist(), F.linear(x, x).tolist(), x.neg_().tolist())
library._destroy()
print(torch.neg(x).tolist())
"""


@pytest.mark.parametrize("name,key", [("neg", "CPU"), ("aten::neg", "CPU"), ("addmm", "CPU"), ("mm", "CPU"), ("neg", "Meta"),
                                      ("linear", "CompositeImplicitAutograd")])
def test_a_kernel_of_the_program_is_called(name, key):
    """What a program registers for an operator is what runs, for as long as it is registered; others are still ours."""
    program = OWN_KERNEL % (name, key)
    done = same_as_plain([sys.executable, "-W", "ignore", "-c", program])
    report = {line.split()[1]: int(line.split()[2]) for line in done.stderr.splitlines()
              if line.startswith("gems: ") and line.split()[1] in ("neg", "exp", "linear")}
    want = {"exp": 1, "neg": 1 if name.endswith("neg") and key == "CPU" else 4, "linear": 2 if key == "Meta" else 1}
    assert report == want, done.stderr
