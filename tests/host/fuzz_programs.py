"""Random programs: fuzz.py's generator. A program is a list of statements, plain Python text.

The writer runs each statement when it has written it, so that it knows the shapes, dtypes and sizes of what it chooses
from next, and repairs or drops what could not be compared: uninitialised memory, writes through views that overlap
themselves, values that have grown out of bounds."""
import collections
import pathlib
import random
import textwrap
import warnings

import numpy as np

import fuzz_calls as calls

# Text, and the names of the tensors that it gives or writes, whose last bits fuzz.py varies to see what is allowed.
Statement = collections.namedtuple("Statement", "text targets")
BASE = pathlib.Path(__file__).with_name("fuzz_base.py").read_text()
CODE = compile(BASE, "fuzz_base.py", "exec")
# From 64 KiB on memory comes from the pool: some are there in every dtype, some only in wide ones.
LARGE = [(20000,), (200, 250), (64, 33, 20), (2, 3, 96, 96), (251, 203), (4, 50, 101), (1, 66000)] * 3 + [(300000,), (517, 401)]
SMALL = [(1,), (), (7,), (3, 5), (17,), (300,), (2, 3, 4, 5), (1, 6), (16, 16)]
FLOATS, HALVES = ["float32", "float64"], ["float16", "bfloat16"]
INTS = ["int64", "int32", "int16", "int8", "uint8"]
MOST = 400_000  # elements of a tensor


def namespace():
    names = {"__name__": "program"}
    exec(CODE, names)
    return names


def kind_of(t):
    """The letter of fuzz_calls.py for a tensor's dtype."""
    if t.dtype.is_floating_point:
        return "h" if t.dtype.itemsize == 2 else "f"
    return "b" if str(t.dtype) == "torch.bool" else "i"


class Writer:
    def __init__(self, seed, statements=None):
        self.rng = rng = random.Random(seed)
        # Exact programs use either what depends on the sign of zero, or what may choose between the two zeros.
        self.theme = rng.choice(["order", "division", "close", "close"])
        self.exact = self.theme != "close"
        self.calls = calls.ALWAYS + (calls.CLOSE + calls.ORDER[:11] if not self.exact else calls.EXACT +
                                     (calls.ORDER if self.theme == "order" else calls.DIVISION))
        self.ns = namespace()
        self.torch = self.ns["torch"]
        self.statements = []
        self.count = 0
        self.owned = None  # inside a thread or a section: storages that it may write
        self.frozen = set()  # names of views whose elements overlap, and of tensors that autograd needs
        large, small = rng.choice(LARGE), rng.choice(SMALL)
        self.shapes = [large] * 6 + [small] * 3 + [large[-1:], tuple(1 for _ in large), rng.choice(SMALL)]
        if len(large) > 1:
            self.shapes.append(large[:-1] + (1,))
        # Few dtypes, so that chains form.
        self.dtypes = rng.choices(FLOATS + HALVES, [6, 3, 2, 2], k=2) + ["float32"] + rng.sample(INTS, 2) + ["bool"]
        for _ in range(rng.randint(3, 6)):
            self.fresh()
        steps = [(self.pointwise, 60), (self.operator, 14), (self.view, 10), (self.cast, 6), (self.outside, 5), (self.host_read, 5),
                 (self.host_write, 5), (self.alias, 3), (self.drop, 7), (self.fresh, 3), (self.foreach, 3), (self.threads, 1),
                 (self.autograd, 2), (self.section, 1), (self.wrong, 4), (self.swap, 2)]
        wanted = statements or rng.choice([5, 10, 20, 30, 60])
        while len(self.statements) < wanted + 6:
            rng.choices([s for s, _ in steps], [w for _, w in steps])[0]()
            if len(self.names()) > 24:
                self.drop()

    # ---- what there is ----

    def names(self, kinds="fhib", writable=False, at_least=0):
        found = []
        for name, t in self.ns.items():
            if name[0] == "t" and name[1:].isdigit() and kind_of(t) in kinds and t.numel() >= at_least:
                if not writable or self.may_write(name):
                    found.append(name)
        return found

    def may_write(self, name):
        t = self.ns[name]
        if name in self.frozen or t.requires_grad or t.is_inference():
            return False
        return self.owned is None or t.untyped_storage().data_ptr() in self.owned

    def pick(self, kinds="fhib", **how):
        """A tensor's name; the younger the likelier."""
        found = self.names(kinds, **how)
        if not found:
            return None
        if self.rng.random() < 0.5:
            return self.rng.choice(found[-5:])
        return self.rng.choice(found)

    def overlaps(self, t):
        """Do two elements share a place?"""
        span = 1
        for stride, size in sorted((s, n) for s, n in zip(t.stride(), t.shape) if n > 1):
            if stride < span:
                return True
            span = stride * (size - 1) + span
        return False

    def beside(self, name, kinds, write=None):
        """An operand that broadcasts with the named one; if that is written, one that shares none of its memory in part."""
        t = self.ns[name]
        found = []
        for other in self.names(kinds):
            o = self.ns[other]
            try:
                shape = np.broadcast_shapes(t.shape, o.shape)  # torch.broadcast_shapes imports sympy
            except ValueError:
                continue
            if (shape == t.shape if write else self.torch.Size(shape).numel() <= MOST):
                found += [other] * (4 if o.shape == t.shape else 1)
        if not found:
            return None
        other = self.rng.choice(found[-8:] if self.rng.random() < 0.5 else found)
        if write and self.shares(write, other):
            return f"{other}.clone()"
        return other

    def shares(self, one, other):
        a, b = self.ns[one], self.ns[other]
        if a.untyped_storage().data_ptr() != b.untyped_storage().data_ptr():
            return False
        return (a.data_ptr(), a.shape, a.stride(), a.dtype) != (b.data_ptr(), b.shape, b.stride(), b.dtype)

    def number(self, kind, zero=True):
        if kind in "ib":
            return self.rng.choice([2, 3, 5, -3] + ([0, 1, -1] if zero else []))
        return self.rng.choice([2, 0.5, -1.5, 3, 0.25] + ([0, 0.1, -7.3, 1] if zero else []))

    # ---- writing ----

    def write(self, text, targets=(), errors=False):
        """Runs a statement and keeps it, unless it raised and no error was wanted. True if it went well."""
        failed = None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                exec(compile(text, "<statement>", "exec"), self.ns)
        except Exception as e:  # noqa: BLE001 - whatever PyTorch raises
            failed = e
        if failed is None or errors or self.rng.random() < 0.15:
            self.statements.append(Statement(text, tuple(targets)))
        return failed is None

    def new(self, expression, freeze=False):
        """t<n> = expression. The name, or None where that raised."""
        name = f"t{self.count}"
        self.count += 1
        if not self.write(f"{name} = {expression}", [name]) or name not in self.ns:
            return None
        t = self.ns[name]
        if not isinstance(t, self.torch.Tensor) or t.numel() > MOST or t.layout != self.torch.strided or t.is_complex():
            self.statements.pop()
            del self.ns[name]
            return None
        if freeze or self.overlaps(t):
            self.frozen.add(name)
        if self.owned is not None and not freeze:
            self.owned.add(t.untyped_storage().data_ptr())
        self.tame(name)
        return name

    def tame(self, name):
        """Keeps the values of programs that are not exact where functions are not steep and nothing overflows."""
        t = self.ns[name]
        if self.exact or kind_of(t) not in "fh" or t.numel() == 0:
            return
        if not (t.detach().abs().max() <= 50):  # also NaN
            if self.may_write(name):
                self.write(f"{name}.nan_to_num_(0.5, 9.0, -9.0).clamp_(-1e4, 1e4).mul_(2.0 ** -12)", [name])
            else:
                self.write(f"{name} = {name}.detach().nan_to_num(0.5, 9.0, -9.0).clamp(-1e4, 1e4) * 2.0 ** -12", [name])
                self.frozen.discard(name)
                self.own(name)

    def own(self, name):
        if self.owned is not None:
            self.owned.add(self.ns[name].untyped_storage().data_ptr())

    # ---- statements ----

    def fresh(self):
        rng = self.rng
        shape, dtype = rng.choice(self.shapes), rng.choice(self.dtypes)
        kind = rng.choice(["any", "whole"]) if self.exact else "unit"
        text = f"values({rng.randrange(10**6)}, {shape}, {dtype!r}, {kind!r})"
        if len(shape) == 4 and rng.random() < 0.4:
            text += ".contiguous(memory_format=FORMS['last'])"
        elif rng.random() < 0.2:
            text = rng.choice([f"torch.full({shape}, {self.number('i')}, dtype=torch.{dtype})",
                               f"torch.zeros({shape}, dtype=torch.{dtype})", f"torch.ones({shape}, dtype=torch.{dtype})",
                               f"(torch.arange({max(1, self.torch.Size(shape).numel())}) % 7).view({shape}).to(torch.{dtype})"])
        self.new(text)

    def operand(self, letter, first, write, kind):
        rng = self.rng
        if letter in "tcpd":
            kinds = "fhib" if self.exact else "fh" if kind in "fh" else "ib"
            name = first if rng.random() < 0.1 and not write else self.beside(first, kinds, write)
            return {"t": "{}", "c": "{}.clamp(-3, 3)", "p": "({}.abs() + 0.5)", "d": "{}.clamp(-0.9, 0.9)"}[letter].format(name) if name else None
        if letter == "m":
            name = self.beside(first, "b", write)
            return name or self.condition(first)
        return {"s": repr(self.number(kind)), "n": repr(self.number(kind, False)), "0": "0", "1": "1.5", "2": "2"}[letter]

    def condition(self, first):
        """A mask made of a tensor; of approximate ones only their form is used."""
        if self.exact or kind_of(self.ns[first]) in "ib":
            return f"({first} > 1)"
        shape = tuple(self.ns[first].shape)
        return f"values({self.rng.randrange(10**6)}, {shape}, 'bool')"

    def pointwise(self):
        rng = self.rng
        call = rng.choice(self.calls)
        kinds, takes, form = call.dtypes, call.takes, rng.choice(call.forms)
        at = takes.index(next(c for c in takes if c in "tcpd"))  # the first tensor
        first = self.pick(kinds, writable=form == "i" or call.name in ("fill_", "copy_", "zero_"))
        if first is None:
            return
        in_place = form == "i" or call.name.endswith("_")
        kind = kind_of(self.ns[first])
        operands = []
        for i, letter in enumerate(takes):
            text = {"t": "{}", "c": "{}.clamp(-3, 3)", "p": "({}.abs() + 0.5)", "d": "{}.clamp(-0.9, 0.9)"}[letter].format(first) \
                if i == at else self.operand(letter, first, first if in_place else None, kind)
            if text is None:
                return
            if call.name == "copy_" and i and kind in "ib":  # numbers that do not fit an integer are undefined
                text = self.beside(first, "ib", first)
                if text is None:
                    return
            operands.append(text)
        if in_place and takes[at] in "cpd":  # the operand itself is written
            self.write(f"{first}.copy_({operands[at]})" if rng.random() < 0.5 else f"{first}.clamp_(-0.9, 0.9).abs_().add_(0.5)", [first])
            if call.name == "asin":
                return
            operands[at] = first
        if form == "f" and takes[0] == "m" or form in "fo":
            function = f"torch.{call.name}"
        elif form == "n":
            function = f"F.{call.name}"
        elif in_place:
            name = call.name if call.name.endswith("_") else call.name + "_"
            function, operands = f"{operands[0]}.{name}", operands[1:]
        else:
            function, operands = f"{operands[0]}.{call.name}", operands[1:]
        arguments = ", ".join(operands + ([call.keywords] if call.keywords else []))
        if in_place:
            if self.write(f"{function}({arguments})", [first]):
                self.tame(first)
            return
        if form == "o":
            out = self.out_for(f"{function}({arguments})", first)
            if out:
                if self.write(f"{function}({arguments}, out={out})", [out]):
                    self.tame(out)
                return
        self.new(f"{function}({arguments})", freeze=call.name == "contiguous")

    def out_for(self, expression, first):
        """A tensor for out=: one that suits and shares nothing with the operands, else an empty one."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                result = eval(expression, self.ns)
        except Exception:  # noqa: BLE001 - the statement itself will raise
            return None
        words = {w for w in self.names() if w in expression}
        storages = {self.ns[w].untyped_storage().data_ptr() for w in words}
        found = [n for n in self.names(writable=True) if self.ns[n].shape == result.shape and self.ns[n].dtype == result.dtype
                 and self.ns[n].untyped_storage().data_ptr() not in storages]
        if found:
            return self.rng.choice(found)
        name = f"t{self.count}"
        self.count += 1
        empty = f"torch.empty(0, dtype={result.dtype})" if self.rng.random() < 0.3 else f"torch.empty({tuple(result.shape)}, dtype={result.dtype})"
        # One statement: between the two nobody may see what an empty tensor holds.
        before = len(self.statements)
        out = expression[:-1] + f", out={name})"
        if not self.write(f"{name} = {empty}\n{out}", [name]) or len(self.statements) == before:
            self.ns.pop(name, None)
        else:
            self.own(name)
            self.tame(name)
        return None

    def operator(self):
        table = dict(calls.OPERATORS)
        if self.exact:
            table.update(calls.EXACT_OPERATORS)
        sign = self.rng.choice(list(table))
        in_place = sign in calls.OPERATORS and self.rng.random() < 0.3
        first = self.pick(table[sign], writable=in_place)
        if first is None:
            return
        kind = kind_of(self.ns[first])
        if self.rng.random() < 0.4 and kind in "fhi" and sign not in "&|^":
            other = repr(self.number(kind))
        else:
            other = self.beside(first, "fhib" if kind in "fh" and self.exact else "fh" if kind in "fh" else kind, first if in_place else None)
        if other is None:
            return
        if in_place:
            if self.write(f"{first} {sign}= {other}", [first]):
                self.tame(first)
        elif self.rng.random() < 0.3:
            self.new(f"{other} {sign} {first}")
        else:
            self.new(f"({first} {sign} {other}) {self.rng.choice('+-*')} {first}" if kind in "fhi" and self.rng.random() < 0.3 else f"{first} {sign} {other}")

    def view(self):
        rng = self.rng
        name = self.pick(at_least=2)
        if name is None:
            return
        t = self.ns[name]
        n = t.dim()
        some = []
        if n >= 1:
            some += [f"{name}[1:]", f"{name}[:-1]", f"{name}[::2]", f"{name}.unsqueeze({rng.randint(0, n)})", f"{name}[{rng.randint(0, t.shape[0] - 1)}]",
                     f"{name}[..., {rng.randint(0, t.shape[-1] - 1)}:]", f"{name}.narrow(-1, 0, {max(1, t.shape[-1] // 2)})",
                     f"{name}.reshape(-1)", f"{name}.view(-1)", f"{name}.detach()", f"{name}.squeeze()", f"{name}[..., 1:-1]"]
            if t.numel() % 2 == 0:
                some.append(f"{name}.reshape(2, -1)")
            if t.numel() * 3 <= MOST:
                some.append(f"{name}.expand(3, *{name}.shape)")
            if t.is_contiguous() and t.numel() >= 40:
                some.append(f"{name}.as_strided((5, {t.numel() // 8}), ({t.numel() // 8}, 1))")
                some.append(f"{name}.as_strided((3, {t.numel() // 4}), ({t.numel() // 8}, 1))")
        if n >= 2:
            some += [f"{name}.transpose(0, 1)", f"{name}.t()" if n == 2 else f"{name}.movedim(0, -1)", f"{name}.diagonal()", f"{name}[1:-1, 1:-1]",
                     f"{name}.select(1, 0)", f"{name}.flatten(0, 1)", f"{name}.unfold(0, 2, 1)", f"{name}.chunk(2)[0]", f"{name}[:, ::3]"]
        if str(t.dtype) in ("torch.int8", "torch.uint8"):
            some.append(f"{name}.view(torch.{'u' if str(t.dtype) == 'torch.int8' else ''}int8)")
        if some:
            self.new(rng.choice(some), freeze=name in self.frozen or (self.owned is not None and not self.may_write(name)))

    def cast(self):
        rng = self.rng
        name = self.pick()
        if name is None:
            return
        kind = kind_of(self.ns[name])
        dtype = rng.choice(self.dtypes if self.exact or kind in "ib" else [d for d in self.dtypes if "float" in d])
        source = name
        if kind in "fh" and "int" in dtype:  # numbers that do not fit are undefined
            source = f"{name}.nan_to_num(0, 9, -9).clamp({0 if dtype == 'uint8' else -100}, 100)"
        elif not self.exact and kind == "i" and "float" in dtype:
            source = f"({name} % 5)"
        if source == name and rng.random() < 0.2:
            target = self.pick("fhib" if kind != "b" and self.exact else kind, writable=True)
            if target and self.ns[target].shape == self.ns[name].shape and not (kind in "fh" and kind_of(self.ns[target]) in "ib") and not self.shares(target, name):
                self.write(f"{target}.copy_({name})", [target])
                self.tame(target)
                return
        form = rng.choice([f"{source}.to(torch.{dtype})", f"{source}.type(torch.{dtype})", f"{source}.to(torch.{dtype}, copy=True)",
                           f"{source}.{ {'float32': 'float', 'float64': 'double', 'float16': 'half', 'int64': 'long', 'int32': 'int', 'int16': 'short', 'int8': 'char', 'uint8': 'byte'}.get(dtype, dtype)}()"])
        if rng.random() < 0.15 and self.ns[name].dim() == 4:
            form = f"{source}.to(memory_format=FORMS[{rng.choice(['dense', 'last'])!r}])"
        # Where nothing was to be converted the result is the tensor itself.
        self.new(form, freeze=name in self.frozen or (self.owned is not None and not self.may_write(name)))

    def outside(self):
        name = self.pick()
        if name is None:
            return
        kind = kind_of(self.ns[name])
        some = calls.OUTSIDE[kind] if kind in "ib" else calls.OUTSIDE["exact" if self.exact else "close"]
        if kind in "fh" and self.exact and self.theme == "division":  # these choose between zeros
            some = [s for s in some if "max" not in s and "min" not in s and "sort" not in s]
        self.new(self.rng.choice(some).format(a=name))

    def host_read(self):
        name = self.pick(at_least=1)
        if name is None:
            return
        t = self.ns[name]
        kind = kind_of(t)
        some = ["{a}.flatten()[-1].item()", "{a}.flatten()[:7].tolist()", "{a}", "through_pointer({a})", "through_file({a})", "through_save({a})",
                "tuple({a}.shape), {a}.stride()", "[x.item() for x in {a}.flatten()[:3]]", "torch.utils.dlpack.from_dlpack({a}.detach())",
                "array({a})[..., :2]", "{a}.numel() and array({a}).ravel()[0]", "__import__('copy').deepcopy({a}.detach())"]
        if self.rng.random() < 0.1:
            some = ["through_fork({a})"]
        if self.exact or kind in "ib":
            some += ["bool(({a} == {a}).all())", "torch.equal({a}, {a}.clone())"]
            if self.theme == "division" or kind in "ib":
                some += ["str({a})", "repr({a}.flatten()[:5])"]
        if str(t.dtype) == "torch.bfloat16":
            some = [s for s in some if "dlpack" not in s]
        self.write(f"read({self.rng.choice(some).format(a=name)})")

    def host_write(self):
        rng = self.rng
        name = self.pick("fhi", writable=True, at_least=1)
        if name is None:
            return
        t, v = self.ns[name], self.number(kind_of(self.ns[name]))
        plain = "int64" if kind_of(t) == "i" else "float32"
        some = [f"{name}.view(-1)[{rng.randrange(t.numel())}] = {v}" if t.is_contiguous() else f"{name}[...] = {v}",
                f"{name}.fill_({v})", f"{name}.copy_(torch.from_numpy(np.full({tuple(t.shape)}, {v}, np.{plain})))",
                f"{name}[...] = {v}"]
        if t.dim():
            some += [f"{name}[0] = {v}", f"{name}[::2] = {v}", f"{name}[..., -1] = {v}", f"{name}[1:] *= 2"]
        if str(t.dtype) != "torch.bfloat16":
            some += [f"array({name})[...] = {v}" if v == int(v) and (v >= 0 or "u" not in str(t.dtype)) else f"array({name})[...] += 1"]
            if t.dim():
                some += [f"array({name})[0] *= 2"]
            if t.is_contiguous():
                some.append(f"from_file({name})")
        if self.write(rng.choice(some), [name]):
            self.tame(name)

    def alias(self):
        """NumPy arrays that share a tensor's memory, and outlive it."""
        rng = self.rng
        arrays = [n for n in self.ns if n[0] == "n" and n[1:].isdigit()]
        if not arrays or rng.random() < 0.4:
            name = self.pick("fhi", writable=True)
            if name and str(self.ns[name].dtype) != "torch.bfloat16" and self.owned is None:
                self.write(f"n{self.count} = array({name})")
                self.count += 1
            return
        name = rng.choice(arrays)
        form = rng.choice(["{a}[...] += 1", "{a}[..., :3] = 2", "read({a}[..., :5])", "new", "del {a}"])
        if form == "new" and self.owned is None:
            self.new(f"torch.from_numpy({name})")
        elif form != "new" and self.owned is None and self.ns[name].ndim:
            self.write(form.format(a=name))

    def drop(self):
        found = self.names()
        if self.owned is None and len(found) > 4:
            for name in self.rng.sample(found, self.rng.randint(1, max(1, len(found) - 18))):
                self.write(f"del {name}")
                self.frozen.discard(name)

    def swap(self):
        """One name for another's tensor: the old one dies while the new one is pending."""
        a, b = self.pick("fh"), self.pick("fh")
        if a and b and a != b and self.owned is None and not {a, b} & self.frozen:
            self.write(self.rng.choice([f"{a} = {b}.detach() * 2", f"{a}, {b} = {b}, {a}"]), [a])
            self.tame(a)

    def foreach(self):
        rng = self.rng
        names = {}
        kind = rng.choice("ffi")
        for name in self.names(kind, writable=True):
            t = self.ns[name]
            names.setdefault((t.dtype, t.untyped_storage().data_ptr()), name)
        dtype = rng.choice([d for d, _ in names]) if names else None
        names = [name for (d, _), name in names.items() if d == dtype][:rng.randint(1, 4)]
        if not names:
            return
        first, others = f"[{', '.join(names)}]", f"[{', '.join(f'{n}.clone()' if rng.random() < 0.7 else n for n in names)}]"
        some = [f"torch._foreach_add_({first}, {self.number(kind)})", f"torch._foreach_mul_({first}, {self.number(kind)})",
                f"torch._foreach_add_({first}, {others})", f"torch._foreach_mul_({first}, {others})", f"torch._foreach_neg_({first})",
                f"torch._foreach_zero_({first})", f"torch._foreach_sub_({first}, {others})", f"torch._foreach_copy_({first}, {others})"]
        if not self.exact and kind == "f":
            some += [f"torch._foreach_lerp_({first}, {others}, 0.3)", f"torch._foreach_addcmul_({first}, {others}, {others}, 0.5)",
                     f"torch._foreach_tanh_({first})"]
        if self.write(rng.choice(some), names):
            for name in names:
                self.tame(name)
        if rng.random() < 0.3:
            made = [f"t{self.count + i}" for i in range(len(names))]
            self.count += len(names)
            if self.write(f"{', '.join(made)}, = torch._foreach_add({first}, {others})", made):
                for name in made:
                    self.tame(name)

    # ---- statements of several lines ----

    def inside(self, count):
        """Statements that may read everything and write only what they have made themselves; taken out of the program."""
        begin, self.owned = len(self.statements), set()
        for _ in range(count):
            self.rng.choices([self.pointwise, self.operator, self.view, self.cast, self.outside], [8, 3, 2, 1, 1])[0]()
        self.owned = None
        taken, self.statements = self.statements[begin:], self.statements[:begin]
        return taken

    def threads(self):
        if self.owned is not None:
            return
        text, targets, functions = [], [], []
        hidden = {}
        for i in range(self.rng.randint(2, 3)):
            before = set(self.ns)
            taken = self.inside(self.rng.randint(3, 8))
            mine = [n for n in self.ns if n not in before and n != "__builtins__"]
            body = "\n".join(guarded(s) for s in taken) or "pass"
            functions.append(f"work{self.count}_{i}")
            written = sorted({t for s in taken for t in s.targets} | set(mine))
            text.append(f"def {functions[-1]}():\n" + textwrap.indent((f"global {', '.join(written)}\n" if written else "") + body, "    "))
            targets += mine
            for name in mine:  # the other threads do not know of it
                hidden[name] = self.ns.pop(name)
        self.ns.update(hidden)
        self.count += 1
        text.append(f"in_threads({', '.join(functions)})")
        self.statements.append(Statement("\n".join(text), tuple(t for t in targets if t[0] == "t")))

    def section(self):
        if self.owned is not None:
            return
        mode = self.rng.choice(["torch.no_grad()", "torch.no_grad()", "torch.inference_mode()"])
        before = set(self.ns)
        state = self.torch.inference_mode(mode == "torch.inference_mode()")
        with state:
            taken = self.inside(self.rng.randint(2, 6))
        if not taken:
            return
        mine = tuple(n for n in self.ns if n not in before and n[0] == "t")
        self.statements.append(Statement(f"with {mode}:\n" + textwrap.indent("\n".join(guarded(s) for s in taken), "    "), mine))

    def autograd(self):
        rng = self.rng
        shape = rng.choice(self.shapes[:9])
        forms = calls.UNIT_GRADIENTS if self.exact else calls.SMOOTH
        n = self.count
        self.count += 3
        kind = "whole" if self.exact else "unit"
        lines = [f"x = values({rng.randrange(10**6)}, {shape}, 'float32', {kind!r}).requires_grad_()",
                 f"w = values({rng.randrange(10**6)}, {shape}, 'float32', {kind!r}).requires_grad_()", "y = x"]
        for _ in range(rng.randint(1, 3 if self.exact else 6)):
            lines.append("y = " + rng.choice(forms).format(a=rng.choice(["y", "y", "x"]), b=rng.choice(["w", "x"])))
        lines += [f"t{n} = y.detach()", rng.choice(["y.sum().backward()", "y.backward(torch.ones_like(y))",
                                                    "(y * 2).sum().backward()"]),
                  f"t{n + 1}, t{n + 2} = x.grad if x.grad is not None else torch.zeros(1), w.grad if w.grad is not None else torch.zeros(1)", "del x, w, y"]
        if self.write("\n".join(lines), [f"t{n}", f"t{n + 1}", f"t{n + 2}"]):
            for i in range(3):
                self.tame(f"t{n + i}")

    def wrong(self):
        """Statements that raise."""
        rng = self.rng
        name = self.pick(at_least=2)
        if name is None or self.owned is not None or self.ns[name].shape[-1] < 2:
            return
        t = self.ns[name]
        some = [f"bad = {name} + torch.ones({t.shape[-1] + 2})", f"bad = torch.where({name} == {name}, {name}, torch.ones({t.shape[-1] + 1}))",
                f"bad = {name}.view(-1, {t.numel() + 1})", f"bad = {name}[{10**6}]", f"bad = {name} * 'x'", f"bad = {name}.no_such_method()",
                f"bad = torch.add({name}, torch.ones(3), out=torch.ones(2, dtype=torch.int8))", f"{name}.expand(2, *{name}.shape).add_(1)",
                f"bad = torch.where({name}, 1)", f"bool({name})"]
        integer = self.pick("i", at_least=1)
        if integer:
            some += [f"bad = {integer} // 0", f"bad = {integer} % torch.zeros_like({integer})", f"bad = {integer} // ({integer} * 0)", f"{integer}.add_(0.5)"]
        b = self.pick("b")
        if b:
            some += [f"bad = {b} - {b}", f"bad = -{b}"]
        text = rng.choice(some)
        if not text.startswith("bad"):
            self.write(text, [], errors=False)
        else:
            self.write(text + "\ndel bad", [], errors=True)


def guarded(statement):
    """A statement that may raise, inside a block; what it made is shown to fuzz.py, which may vary it."""
    text = statement.text + (f"\nmade({', '.join(statement.targets)})" if statement.targets else "")
    return "try:\n" + textwrap.indent(text, "    ") + "\nexcept Exception:\n    pass"


def program(seed, statements=None):
    """(kind, statements) of a seed: "exact" where all is equal to the bit; "order": but for the sign of zero; "close"."""
    writer = Writer(seed, statements)
    return {"division": "exact"}.get(writer.theme, writer.theme), writer.statements
