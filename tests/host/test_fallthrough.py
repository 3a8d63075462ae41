"""What is not a plain dense CPU tensor in a plain thread runs exactly as without us: a test each. Where PyTorch turns the
exotic call into plain calls of its own, those may be routed (`inner`); the exotic call itself never is."""
import re
import threading

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
from torch.utils._python_dispatch import TorchDispatchMode

import gems

pytestmark = pytest.mark.filterwarnings("ignore")


def routed_by(fn):
    """fn's result, and how many calls were routed meanwhile."""
    before = gems.counters().routed
    result = fn()
    return result, gems.counters().routed - before


@pytest.fixture(autouse=True)
def plain_calls_are_routed():
    """What these tests show means something only where the same calls on plain tensors are routed."""
    x = torch.rand(4, 4)
    for operation in OPERATIONS.values():
        assert routed_by(lambda: operation(x))[1] >= 1


OPERATIONS = {
    "add": lambda x: x + x,
    "scale": lambda x: x * 2,
    "exp": torch.exp,
    "sum": lambda x: x.sum(),
    "softmax": lambda x: torch.softmax(x, -1),
    "mm": lambda x: x @ x,
    "cat": lambda x: torch.cat([x, x]),
    "in-place": lambda x: x.add_(1),
    "out": lambda x: torch.neg(x, out=torch.empty_like(x)),
}


def dense(x):
    """A plain tensor with the values of x, or None where it has none."""
    if x.device.type == "meta":
        return None
    if x.is_nested:
        return torch.cat([part.flatten() for part in x.unbind()])
    if x.is_quantized:
        return x.int_repr().clone()
    if x.layout is torch._mkldnn or x.layout in (torch.sparse_coo, torch.sparse_csr):
        x = x.to_dense()
    if x.has_names():
        x = x.rename(None)
    return x.cpu().resolve_conj().resolve_neg() + torch.zeros((), dtype=x.dtype)


def described(x):
    """Everything about a result that a program can see."""
    if not isinstance(x, torch.Tensor):
        return x, None
    nested = x.is_nested
    names = x.names if x.layout is torch.strided and not nested and x.device.type == "cpu" else None
    return (type(x).__name__, x.dtype, None if nested else x.shape, x.layout, x.device, names, x.is_conj(), x.is_neg(),
            x._is_zerotensor(), x.requires_grad), dense(x) if type(x) is torch.Tensor or nested else None


def outcome(operation, make):
    """The description of operation(make()) or its exception."""
    try:
        return described(operation(make())), None
    except Exception as error:  # noqa: BLE001 - whatever the host raises is the expected answer
        return None, re.sub(r"\bj\d+\b", "j", f"{type(error).__name__}: {error}")  # jagged sizes are numbered


def fake():
    from torch._subclasses.fake_tensor import FakeTensorMode
    return FakeTensorMode().from_tensor(torch.rand(4, 4))


def lazy():
    """A tensor on another device: the lazy one that every build has."""
    import torch._lazy.ts_backend
    if not lazy.started:
        torch._lazy.ts_backend.init()
        lazy.started = True
    return torch.rand(4, 4).to("lazy")


lazy.started = False

complex_square = lambda: torch.rand(4, 4, dtype=torch.cfloat)  # noqa: E731
EXOTIC = {  # name: (maker, whether plain calls inside may be routed)
    "fake": (fake, False),
    "meta": (lambda: torch.rand(4, 4, device="meta"), False),
    "sparse-coo": (lambda: torch.eye(4).to_sparse(), True),
    "sparse-csr": (lambda: torch.eye(4).to_sparse_csr(), True),
    "quantized": (lambda: torch.quantize_per_tensor(torch.rand(4, 4), 0.1, 0, torch.quint8), True),
    "mkldnn": (lambda: torch.rand(4, 4).to_mkldnn(), False),
    "nested": (lambda: torch.nested.nested_tensor([torch.rand(2, 3), torch.rand(4, 3)]), True),
    "nested-jagged": (lambda: torch.nested.nested_tensor([torch.rand(2, 3), torch.rand(4, 3)], layout=torch.jagged), True),
    "conjugate": (lambda: complex_square().conj(), False),
    "negative": (lambda: complex_square().conj().imag, True),
    "complex": (complex_square, False),
    "zero": (lambda: torch._efficientzerotensor((4, 4)), True),
    "named": (lambda: torch.rand(4, 4, names=("a", "b")), True),
    "other-device": (lazy, False),
}


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("kind", EXOTIC)
def test_exotic_tensor(kind, operation):
    make, inner = EXOTIC[kind]
    with gems.off():
        torch.manual_seed(1)
        want, want_error = outcome(OPERATIONS[operation], make)
        torch.manual_seed(1)
        made = make()
    count = 0

    def counted(x):
        nonlocal count
        try:
            result, count = routed_by(lambda: OPERATIONS[operation](x))
        finally:
            gems.lib.gems_scope_push(gems.OFF, None)
        return result

    try:
        got, got_error = outcome(counted, lambda: made)
    finally:
        gems.lib.gems_scope_pop()
    assert got_error == want_error
    if want is not None:
        assert got[0] == want[0]
        if want[1] is not None:
            torch.testing.assert_close(got[1], want[1], equal_nan=True)
    assert inner or count == 0, f"{count} calls were routed"


def test_cuda_tensor():
    """Device tensors of PyTorch's own stay with PyTorch."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    x = torch.rand(4, 4, device="cuda")
    for operation in (OPERATIONS["add"], OPERATIONS["softmax"], OPERATIONS["mm"]):
        result, count = routed_by(lambda: operation(x))
        assert result.device.type == "cuda" and count == 0


# ---- Python's own ways in ----

def test_subclass():
    """A subclass keeps its type, and its __torch_function__ sees every call."""
    class Mine(torch.Tensor):
        seen = []

        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            cls.seen.append(func.__name__)
            return super().__torch_function__(func, types, args, kwargs or {})

    x = torch.rand(4, 4)
    mine = x.as_subclass(Mine)
    for name, operation in OPERATIONS.items():
        if name in ("in-place", "out"):
            continue
        with gems.off():
            want, seen = operation(mine), list(Mine.seen)
        Mine.seen.clear()
        got = operation(mine)
        assert type(got) is type(want) is Mine and Mine.seen == seen
        Mine.seen.clear()
        torch.testing.assert_close(got.as_subclass(torch.Tensor), want.as_subclass(torch.Tensor))
        Mine.seen.clear()


class Wrapped(torch.Tensor):
    """A wrapper without memory of its own: whoever touches its data crashes."""
    seen = []

    @staticmethod
    def __new__(cls, inner):
        self = torch.Tensor._make_wrapper_subclass(cls, inner.size(), dtype=inner.dtype, strides=inner.stride())
        self.inner = inner
        return self

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        cls.seen.append(str(func))
        strip = lambda x: x.inner if isinstance(x, Wrapped) else x  # noqa: E731
        args = torch.utils._pytree.tree_map(strip, args)
        result = func(*args, **torch.utils._pytree.tree_map(strip, kwargs or {}))
        return torch.utils._pytree.tree_map(lambda x: Wrapped(x) if isinstance(x, torch.Tensor) else x, result)


def test_torch_dispatch_subclass():
    for operation in OPERATIONS.values():
        with gems.off():
            x = torch.rand(4, 4)
            want, seen = operation(Wrapped(x.clone())), list(Wrapped.seen)
        Wrapped.seen.clear()
        got = operation(Wrapped(x.clone()))
        assert type(got) is Wrapped and Wrapped.seen == seen
        Wrapped.seen.clear()
        torch.testing.assert_close(got.inner, want.inner)


class Recorder(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


def test_torch_dispatch_mode():
    """A mode sees every operator, the same as without us."""
    x = torch.rand(4, 4)
    for operation in OPERATIONS.values():
        with gems.off(), Recorder() as host:
            want = operation(x.clone())
        with Recorder() as ours:
            got = operation(x.clone())
        assert ours.seen == host.seen
        torch.testing.assert_close(got, want)


def test_torch_function_mode():
    from torch.overrides import TorchFunctionMode

    class Doubler(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            return result * 2 if func is torch.exp else result

    x = torch.rand(4, 4)
    with gems.off():
        want = torch.exp(x) * 2
    with Doubler():
        torch.testing.assert_close(torch.exp(x), want)


# ---- functorch ----

TRANSFORMS = {
    "vmap": lambda f, x: torch.vmap(f)(x),
    "vmap-nested": lambda f, x: torch.vmap(torch.vmap(f))(x),
    "grad": lambda f, x: torch.func.grad(lambda v: f(v).sum())(x),
    "grad-of-grad": lambda f, x: torch.func.grad(lambda v: torch.func.grad(lambda w: f(w).sum())(v).sum())(x),
    "vmap-of-grad": lambda f, x: torch.vmap(torch.func.grad(lambda v: f(v).sum()))(x),
    "vjp": lambda f, x: torch.func.vjp(f, x)[1](torch.ones_like(f(x)))[0],
    "jvp": lambda f, x: torch.func.jvp(f, (x,), (torch.ones_like(x),))[1],
    "jacrev": lambda f, x: torch.func.jacrev(f)(x),
    "jacfwd": lambda f, x: torch.func.jacfwd(f)(x),
    "hessian": lambda f, x: torch.func.hessian(lambda v: f(v).sum())(x),
    "functionalize": lambda f, x: torch.func.functionalize(lambda v: f(v.clone().add_(1)))(x),
}
FUNCTIONS = {
    "pointwise": lambda x: (x * x + 1).exp() * torch.where(x > 0.5, x, 2.0),
    "softmax": lambda x: torch.softmax(x * 3, -1),
    "reduce": lambda x: x.sum(-1) * x.amax(-1),
}


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_functorch(transform, function):
    """Transforms wrap tensors and see every operator; the plain calls that they make in the end may be routed."""
    x = torch.rand(3, 4, 4)
    with gems.off():
        want = TRANSFORMS[transform](FUNCTIONS[function], x.clone())
    got = TRANSFORMS[transform](FUNCTIONS[function], x.clone())
    torch.testing.assert_close(got, want)


# ---- tracing and compiling ----

class Small(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)

    def forward(self, x):
        return torch.softmax(torch.relu(self.linear(x)) + x * 2, -1).sum(0)


def twice(fn):
    """fn by the host, then by us."""
    with gems.off():
        want = fn()
    return want, fn()


def test_jit_trace_and_script():
    model, x = Small().eval(), torch.rand(4, 4)
    want, got = twice(lambda: [node.kind() for node in torch.jit.trace(model, x).inlined_graph.nodes()])
    assert got == want and "aten::softmax" in got and "aten::linear" in got
    torch.testing.assert_close(*twice(lambda: torch.jit.trace(model, x)(x)))
    torch.testing.assert_close(*twice(lambda: torch.jit.script(model)(x)))


def test_make_fx():
    from torch.fx.experimental.proxy_tensor import make_fx

    x = torch.rand(4, 4)

    def function(v):
        return torch.softmax(torch.relu(v @ v) + v * 2, -1).sum(0)

    for mode in ("real", "fake", "symbolic"):
        want, got = twice(lambda: make_fx(function, tracing_mode=mode)(x).code)
        assert got == want and "softmax" in got


def test_fx_symbolic_trace():
    model = Small().eval()
    want, got = twice(lambda: torch.fx.symbolic_trace(model).code)
    assert got == want


def test_export():
    model, x = Small().eval(), torch.rand(4, 4)
    want, got = twice(lambda: torch.export.export(model, (x,)))
    assert got.graph_module.code == want.graph_module.code and "softmax" in got.graph_module.code
    torch.testing.assert_close(*twice(lambda: got.module()(x)))


def test_compile_tracing():
    """torch.compile traces with fake tensors: the graph is the same, and nothing is routed while it is made."""
    model, x = Small().eval(), torch.rand(4, 4)
    graphs, routed_while_tracing = [], []

    def backend(graph, example):
        graphs.append(graph.code)
        routed_while_tracing.append(gems.counters().routed - start)
        return graph.forward

    def compiled():
        torch._dynamo.reset()
        return torch.compile(model, backend=backend)(x)

    start = 0
    with gems.off():
        want = compiled()
    routed_while_tracing.clear()
    start = gems.counters().routed
    got = compiled()
    torch.testing.assert_close(got, want)
    assert graphs[0] == graphs[1]
    assert routed_while_tracing == [0]


# ---- states of the thread and of the process ----

def test_autocast_transitions():
    """Into autocast, out of it inside, and back: dtypes and values as the host has them; casts of weights are cached."""
    linear, x = torch.nn.Linear(8, 8), torch.rand(8, 8)

    def body():
        results = [x @ x]
        with torch.autocast("cpu", torch.bfloat16):
            results += [x @ x, linear(x), (x @ x).softmax(-1), x + (x @ x)]
            with torch.autocast("cpu", enabled=False):
                results += [x @ x, linear(x)]
            with torch.autocast("cpu", torch.float16):
                results.append(x @ x)
            results.append(linear(x))
        results.append(linear(x))
        results[2].float().sum().backward()
        grad, linear.weight.grad, linear.bias.grad = linear.weight.grad, None, None
        return [r.detach() for r in results] + [grad]

    with gems.off():
        want = body()
    got, count = routed_by(body)
    assert [r.dtype for r in got] == [r.dtype for r in want]
    assert [r.dtype for r in got[:3]] == [torch.float32, torch.bfloat16, torch.bfloat16]
    for g, w in zip(got, want):
        if g.dtype is torch.float32:
            torch.testing.assert_close(g, w, rtol=1e-2, atol=1e-2)  # bf16 on the way
        else:
            torch.testing.assert_close(g, w, rtol=1.6e-2, atol=1e-2)
    assert count > 0


def test_forward_ad():
    x, tangent = torch.rand(4, 4), torch.rand(4, 4)
    for name, operation in OPERATIONS.items():
        if name in ("in-place", "out"):
            continue

        def body():
            with forward_ad.dual_level():
                result = forward_ad.unpack_dual(operation(forward_ad.make_dual(x, tangent)))
                return result.primal.clone(), result.tangent.clone()

        want, got = twice(body)
        torch.testing.assert_close(got, want)


def in_thread(fn):
    box = []

    def body():
        try:
            box.append((fn(), None))
        except BaseException as error:  # noqa: BLE001 - handed to the caller
            box.append((None, error))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    result, error = box[0]
    if error:
        raise error
    return result


def test_thread_with_another_grad_state():
    """Grad mode and inference mode belong to a thread: results carry what their own thread says."""
    x = torch.rand(4, 4, requires_grad=True)

    def state(y):
        return y.requires_grad, y.is_inference(), y.grad_fn is not None

    with torch.inference_mode():
        assert state(x + x) == (False, True, False)
        assert in_thread(lambda: state(x + x)) == (True, False, True)
    with torch.no_grad():
        assert state(torch.exp(x)) == (False, False, False)
        assert in_thread(lambda: state(torch.exp(x))) == (True, False, True)

    def inference():
        with torch.inference_mode():
            return state(x @ x)

    assert in_thread(inference) == (False, True, False)
    assert state(x @ x) == (True, False, True)


def test_thread_with_another_scope():
    """A scope belongs to a thread."""
    x = torch.rand(4, 4)
    with gems.off():
        assert routed_by(lambda: x + x)[1] == 0
        assert routed_by(lambda: in_thread(lambda: x + x))[1] == 1


def test_default_dtype():
    """What PyTorch computes from the default dtype follows it."""
    n = torch.arange(1, 5)

    def body():
        return [n / 2, n / n, n * 1.5, n.exp(), torch.where(n > 2, 1.0, 2), n.to(torch.float16) * 2.5, n.sum()]

    for dtype in (torch.float64, torch.float16, torch.bfloat16, torch.float32):
        torch.set_default_dtype(dtype)
        try:
            want, got = twice(body)
        finally:
            torch.set_default_dtype(torch.float32)
        assert [r.dtype for r in got] == [r.dtype for r in want] and got[0].dtype is dtype
        for g, w in zip(got, want):
            torch.testing.assert_close(g, w)


def test_default_device():
    """torch.set_default_device is a mode of the thread: made tensors go where it says, and no call is ours there."""
    with torch.device("meta"):
        result, count = routed_by(lambda: torch.ones(4, 4) + torch.ones(4, 4))
    assert result.device.type == "meta" and count == 0


# ---- ourselves ----

def test_our_own_allocations_are_not_calls():
    """A routed call is one call: what we ask PyTorch for meanwhile is not seen again."""
    x = torch.rand(16, 16)
    for operation in (lambda: x + x, lambda: torch.softmax(x, -1), lambda: x.sum(0), lambda: torch.cat([x, x])):
        operation()
        before = gems.counters()
        operation()
        after = gems.counters()
        assert (after.routed - before.routed, after.passed - before.passed) == (1, 0)


def test_out_of_our_hands_between_calls():
    """Many threads at once, half of them with us off: nothing leaks from one to the other."""
    x = torch.rand(32, 32)
    with gems.off():
        want = torch.softmax(x @ x + x, 1)

    def body(i):
        for _ in range(50):
            if i % 2:
                with gems.off():
                    got = torch.softmax(x @ x + x, 1)
                assert torch.equal(got, want)
            else:
                torch.testing.assert_close(torch.softmax(x @ x + x, 1), want)
        return True

    boxes = [[] for _ in range(4)]
    threads = [threading.Thread(target=lambda i=i: boxes[i].append(body(i))) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert boxes == [[True]] * 4


def test_fork_while_another_thread_opens_the_device():
    """The child of a process whose first call was just under way in another thread runs on the host; it does not wait."""
    from processes import python

    done = python("""
import os, threading, time, torch
x = torch.ones(4, 4)
first = threading.Thread(target=lambda: torch.abs(x))
first.start()
time.sleep(0.01)
child = os.fork()
if child == 0:
    os._exit(int((torch.abs(x) + x).sum().item()))
first.join()
for _ in range(300):
    ended, status = os.waitpid(child, os.WNOHANG)
    if ended:
        break
    time.sleep(0.1)
else:
    os.kill(child, 9)
print(os.waitstatus_to_exitcode(status) if ended else "hangs", torch.abs(x).sum().item())
""")
    assert done.stdout == "32 16.0\n", done.stderr
