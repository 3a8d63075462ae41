"""Arguments for every operator of shim/ops.json, in the order of its schema.

They come from PyTorch's own sample inputs (op_db): each is run, forward and backward, and the operators that reach the
dispatcher are recorded with their arguments. In-place and out= forms get the arguments of their functional sibling. What
is left, mostly composites, which are gone before the dispatcher, is written down at the end of this file.
"""
import collections
import importlib.util
import re
import warnings

import torch
from torch.testing._internal import common_utils
from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.opinfo import core
from torch.utils._python_dispatch import TorchDispatchMode

import gems
import rows

PER_OPERATOR = 3

# With every sample PyTorch looks through the stack for a unittest of its own, which takes longer than the sample.
common_utils.extract_test_fn = core.extract_test_fn = lambda: None

Param = collections.namedtuple("Param", "name type written default")


class Row:
    """One operator: `name` "add.Tensor", `struct`, `params` with types as in the schema, sizes and alias sets left out."""

    def __init__(self, name, fields):
        self.fields = fields
        self.name = name
        self.struct = self.name.replace(".", "_")
        self.base, _, self.overload = self.name.partition(".")
        self.aoti = fields["aoti"]
        self.composite = fields["composite"]
        self.host = rows.overload(name)
        text = self.host._schema.arguments
        params, results = fields["schema"][len(self.name) + 1 :].rsplit(") -> ", 1)
        spelled = [p for p in re.split(r", (?![^\[]*\])", params) if p not in ("*", "")]
        self.params = [
            Param(a.name, re.sub(r"\(.*?\)|\d", "", s.rsplit(" ", 1)[0]), "!" in s.split(" ")[0], default(a))
            for a, s in zip(text, spelled)
        ]
        self.outs = [p for p in self.params if p.written]
        self.in_place = len(self.outs) == 1 and self.params[0].written
        self.out = bool(self.outs) and not self.in_place
        self.results = len(self.host._schema.returns)
        self.returns_bool = results == "bool"

    def readable(self):
        return tuple((p.name, p.type) for p in self.params if not (self.out and p.written))


def symbols():
    """{struct: {entry: symbol}} of the preloaded library."""
    spec = importlib.util.spec_from_file_location("coverage_script", gems.ROOT / "scripts/coverage.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script.our_symbols(gems.library_path())


def default(argument):
    return argument.default_value if argument.has_default_value() else None


BY_NAME = {name: Row(name, fields) for name, fields in rows.operators().items()}
ROWS = list(BY_NAME.values())


def copy(x):
    """Arguments of one's own: tensors keep their strides."""
    if isinstance(x, torch.Tensor):
        return x.detach().clone()
    if isinstance(x, (list, tuple)):
        return [copy(y) for y in x]
    return x


class Recorder(TorchDispatchMode):
    def __init__(self, pool):
        super().__init__()
        self.pool = pool

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = str(func).removeprefix("aten.").removesuffix(".default")
        strided = all(t.layout == torch.strided for t in (*args, *(kwargs or {}).values()) if isinstance(t, torch.Tensor))
        if name in BY_NAME and strided and len(self.pool[name]) < PER_OPERATOR:
            self.pool[name].append(in_order(BY_NAME[name], copy(args), {k: copy(v) for k, v in (kwargs or {}).items()}))
        return func(*args, **(kwargs or {}))


def in_order(row, args, kwargs):
    rest = row.params[len(args) :]
    return list(args) + [kwargs.get(p.name, p.default) for p in rest]


def record(pool):
    bases = {r.base.strip("_") for r in ROWS}
    bases |= {re.sub("^native_|_(forward|backward|backward_data|interface)$", "", b) for b in bases}
    for op in op_db:
        if not {op.name, op.name.split(".")[-1], op.aten_name} & bases:
            continue
        dtype = torch.float32 if torch.float32 in op.supported_dtypes("cpu") else torch.int64
        gradient = op.supports_autograd and dtype == torch.float32
        try:
            for _, sample in zip(range(PER_OPERATOR + 1), op.sample_inputs("cpu", dtype, requires_grad=gradient)):
                with Recorder(pool):
                    result = op.op(sample.input, *sample.args, **sample.kwargs)
                    results = [r for r in (result if isinstance(result, (tuple, list)) else [result])]
                    results = [r for r in results if isinstance(r, torch.Tensor) and r.requires_grad]
                    if results:
                        torch.autograd.backward(results, [torch.ones_like(r) for r in results])
        except NotImplementedError:
            pass  # no CPU kernel for this dtype: what is missing then is found out below


def derive(pool):
    """In-place and out= forms from the operator of the same name and parameters."""
    donors = {}
    for row in ROWS:
        if pool[row.name]:
            donors.setdefault((row.base.strip("_"), row.readable()), row)
    for row in ROWS:
        donor = donors.get((row.base.strip("_"), row.readable()))
        if pool[row.name] or not donor:
            continue
        for args in pool[donor.name]:
            args = copy(args)
            if row.out:
                args = args[: len(donor.readable())]
                results = donor.host(*positional(donor, args)[0], **positional(donor, args)[1])
                results = results if isinstance(results, tuple) else (results,)
                args += [torch.empty_like(r) for r in results]
            elif row.in_place:
                if not fits_in_place(donor, args):
                    continue
            pool[row.name].append(args)


def fits_in_place(donor, args):
    pos, kw = positional(donor, copy(args))
    result = donor.host(*pos, **kw)
    return result.shape == args[0].shape and torch.can_cast(result.dtype, args[0].dtype)


def positional(row, args):
    """(args, kwargs) as Python wants them."""
    n = sum(not a.kwarg_only for a in row.host._schema.arguments)
    return args[:n], {p.name: a for p, a in zip(row.params[n:], args[n:])}


def max_pool2d_backward(gradient, x, kernel, stride=(), padding=(0, 0), dilation=(1, 1), ceil=False):
    where = kernel, stride, padding, dilation, ceil
    indices = torch.ops.aten.max_pool2d_with_indices(x, *where)[1]
    return torch.ops.aten.max_pool2d_with_indices_backward(gradient, x, *where, indices)


# PyTorch has a kernel for other devices only.
_library = torch.library.Library("aten", "IMPL")
_library.impl("max_pool2d_backward", max_pool2d_backward, "CPU")


def samples():
    """{operator name: [arguments in schema order]}"""
    pool = collections.defaultdict(list)
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        record(pool)
        for name, written in by_hand().items():
            if len(pool[name]) < PER_OPERATOR:
                pool[name] += [in_order(BY_NAME[name], args, {}) for args in written]
        derive(pool)
    return pool


def attended(q):
    """What the gradient of attention takes first."""
    out, logsumexp = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, q, q, 0.0, True, scale=0.25)
    return torch.ones_like(out), q, q, q, out, logsumexp


def by_hand():
    f = torch.arange(12.0).reshape(3, 4) / 7 - 0.6
    g = torch.linspace(0.5, 2, 12).reshape(3, 4)
    i = torch.arange(12).reshape(3, 4)
    j = i.flip(0) % 5
    b = i % 3 == 0
    row = torch.tensor([2, 0])
    q = torch.randn(2, 3, 5, 8)
    factory = (torch.float64, torch.strided, torch.device("cpu"), False)
    return {
        "_fused_rms_norm": [(f, [4], g[0], 1e-5), (f, [3, 4], None, None)],
        "_flash_attention_forward": [(*(torch.empty(2, 5, 3, 8, device="meta", dtype=torch.float16) for _ in range(3)),
                                      None, None, 5, 5, 0.0, True, False, 0.5, 3, None)],
        "_scaled_dot_product_attention_math": [(q, q, q, None, 0.0, True, None, 0.25), (q, q, q, torch.zeros(5, 5))],
        "_scaled_dot_product_flash_attention_for_cpu": [(q, q, q, 0.0, True, None, 0.25), (q, q, q, 0.0, False, torch.zeros(5, 5))],
        "_scaled_dot_product_flash_attention_for_cpu_backward": [(*attended(q), 0.0, True, None, 0.25), (*attended(q), 0.0, False, torch.zeros(5, 5))],
        "scaled_dot_product_attention": [(q, q, q, None, 0.0, True, 0.25), (q, q, q, torch.zeros(5, 5))],
        "_unique2": [(j, True, True, True), (f,)],
        "_upsample_bicubic2d_aa": [(q, [7, 4], False, None, 0.5)],
        "upsample_nearest2d": [(q, [7, 4], None, 0.5), (q, [10, 16])],
        "_weight_norm_interface": [(f, g[:, :1]), (f, g[:1], 1)],
        "_weight_norm_interface_backward": [(g, f, g[:, :1], g[:, :1], 0)],
        "_prelu_kernel": [(f, g), (f, g[0])],
        "_prelu_kernel_backward": [(g, f, g), (g, f, g[0])],
        "arange": [(5,), (5.5, *factory)],
        "arange.start": [(1, 5), (0.5, 5, *factory)],
        "arange.start_step": [(1, 9, 2), (0.5, 5, 0.25, *factory)],
        "rand": [([3, 4],), ([5], *factory)],
        "randn": [([3, 4],), ([5], *factory)],
        "rand_like": [(f,), (i, *factory, torch.contiguous_format)],
        "randperm": [(9,), (9, torch.int32, *factory[1:])],
        "normal.float_Tensor": [(0.5, g)],
        "native_dropout": [(f, 0.3, True), (f, 0.3, None)],
        "bitwise_and.Scalar": [(i, 6), (b, True)],
        "bitwise_and.Scalar_Tensor": [(6, i), (True, b)],
        "bitwise_and_.Scalar": [(i, 6), (b, True)],
        "__lshift__.Scalar": [(i, 2)],
        "__lshift__.Tensor": [(i, j)],
        "__rshift__.Scalar": [(i, 2)],
        "__rshift__.Tensor": [(i, j)],
        "__ilshift__.Scalar": [(i, 2)],
        "__ilshift__.Tensor": [(i, j)],
        "__irshift__.Scalar": [(i, 2)],
        "__irshift__.Tensor": [(i, j)],
        "bitwise_or.Scalar": [(i, 6), (b, True)],
        "bitwise_or.Scalar_Tensor": [(6, i), (True, b)],
        "bitwise_or_.Scalar": [(i, 6), (b, True)],
        "clamp": [(f, -0.2, 0.5), (i, None, 7), (f, 0)],
        "clamp.Tensor": [(f, -g, None), (f, None, g)],
        "clamp_min": [(f, 0.1), (i, 3)],
        "clamp_max": [(f, 0.1), (i, 3)],
        "convolution": [(q, torch.rand(4, 3, 3, 2) - 0.5, g[0], [1, 2], [1, 0], [1, 1], False, [0, 0], 1),
                        (q, torch.rand(3, 1, 3, 3) - 0.5, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 3)],
        "_adaptive_avg_pool2d": [(q, [2, 3]), (q[0], [7, 5])],
        "contiguous": [(f.t(), torch.contiguous_format), (q, torch.channels_last)],
        "diag": [(f, 1), (f[0], -1)],
        "div.Scalar_mode": [(f, 0.3, "floor"), (f, 0.3, "trunc"), (i, 3, None)],
        "divide.Scalar": [(f, 0.3), (i, 3)],
        "divide.Scalar_mode": [(f, 0.3, "floor"), (i, 3, None)],
        "divide.Tensor": [(f, g)],
        "divide.Tensor_mode": [(f, g, "floor"), (f, g, None)],
        "true_divide.Scalar": [(f, 0.3), (i, 3)],
        "true_divide.Tensor": [(f, g)],
        "embedding_backward": [(g, torch.tensor([1, 4, 1]), 6, -1, False, False)],
        "fill.Tensor": [(f, torch.tensor(2.5))],
        "floor_divide.Scalar": [(f, 0.3), (i, 3)],
        "floor_divide_.Scalar": [(f, 0.3), (i, 3)],
        "gather_backward": [(g[:2], f, 0, i[:2] % 3, False)],
        "gt.Scalar": [(f, 0.1), (i, 3)],
        "lt.Scalar": [(f, 0.1), (i, 3)],
        "hstack": [([f, g],)],
        "vstack": [([f, g],)],
        "index_put": [(f, [row], g[0], True), (f, [row, row], g[0, :2])],
        "index_put_": [(f, [row], g[0], True), (f, [row, row], g[0, :2])],
        "isclose": [(f, f + 1e-9), (f, g, 0.5, 0.1, True)],
        "isfinite": [(f / torch.tensor([0.0, 1, 2, 3]),), (i,)],
        "isin.Scalar_Tensor": [(3, i), (3, i, False, True)],
        "isin.Tensor_Scalar": [(i, 3), (i, 3, False, True)],
        "kron": [(f, g)],
        "layer_norm": [(f, [4], g[0], g[1], 1e-5, True), (f, [3, 4])],
        "lerp.Tensor": [(f, g, g)],
        "linear": [(f, g, g[:, 0]), (f, g)],
        "log_sigmoid": [(f,)],
        "log_softmax.int": [(f, 1), (f, 0, torch.float64)],
        "softmax.int": [(f, 1), (f, 0, torch.float64)],
        "matmul": [(f, g.t()), (q, q.transpose(2, 3)), (f, g[0])],
        "max.other": [(f, g), (i, j)],
        "min.other": [(f, g), (i, j)],
        "masked_fill_.Tensor": [(f, b, torch.tensor(2.5))],
        "max_pool2d_backward": [(q[:, :, :3, :4], q[:, :, :4], [2, 2], [2, 2], [1, 0], [1, 1], False)],
        "mul_.Scalar": [(f, 0.5)],
        "mul_.Tensor": [(f, g)],
        "nll_loss2d_forward": [(q[:, :, :, :4], torch.arange(40).reshape(2, 5, 4) % 3, g[:, 0], 1, -100)],
        "nll_loss2d_backward": [(torch.tensor(1.5), q[:, :, :, :4], torch.arange(40).reshape(2, 5, 4) % 3, None, 1, -100,
                                 torch.tensor(40.0))],
        "pad": [(f, [1, 2], "constant", 0.5), (q, [1, 2, 0, 3], "reflect")],
        "pow.Scalar": [(2, f), (1.5, i)],
        "quantile": [(f, torch.tensor([0.25, 0.5]), 1, True, "lower"), (f, torch.tensor(0.3))],
        "remainder.Scalar": [(f, 0.3), (i, 5)],
        "remainder.Scalar_Tensor": [(2.5, g), (7, i + 1)],
        "remainder_.Scalar": [(f, 0.3), (i, 5)],
        "repeat_interleave.self_Tensor": [(f, torch.tensor([2, 0, 1]), 0), (f, torch.tensor([2, 0, 1]), 0, 3)],
        "repeat_interleave.self_int": [(f, 2), (f, 2, 1, 8)],
        "resolve_conj": [(f,), (torch.complex(f, g).conj(),)],
        "resolve_neg": [(f,), (torch.complex(f, g).conj().imag,)],
        "rms_norm": [(f, [4], g[0], 1e-5), (f, [3, 4])],
        "rsub.Scalar": [(f, 0.5, 2), (i, 5)],
        "scatter.reduce": [(f, 0, i % 3, g, "add"), (f, 1, i % 4, g, "multiply")],
        "scatter_.reduce": [(f, 0, i % 3, g, "add"), (f, 1, i % 4, g, "multiply")],
        "square": [(f,), (i,)],
        "sub_.Scalar": [(f, 0.5, 2)],
        "tile": [(f, [2, 1, 3])],
        "where.ScalarOther": [(b, f, 2.5)],
        "where.ScalarSelf": [(b, 2.5, f)],
    }
