"""Calls the host's operator functions as compiled code does: at::_ops::<struct>::call, ::redispatch and aoti_torch_cpu_*,
by address, with C++ arguments built here. So every thunk can be reached, also those that no Python function leads to.

A tensor goes as the address of an at::Tensor that borrows the Python tensor's reference; a new one comes back as an
AtenTensorHandle, from which PyTorch makes a Python tensor. Both ways use only what PyTorch offers for that.
A C++ exception would end the process: call only with arguments that the operator takes."""
import ctypes
import pathlib

import torch

HOST = ctypes.CDLL(str(pathlib.Path(torch.__file__).parent / "lib/libtorch_cpu.so"))
i8, i32, i64, size, address = (
    ctypes.c_int8, ctypes.c_int32, ctypes.c_int64, ctypes.c_size_t, ctypes.c_void_p)


def struct(name, **fields):
    return type(name, (ctypes.Structure,), {"_fields_": list(fields.items())})


List = struct("List", data=address, n=size)
OptList = struct("OptList", data=address, n=size, has=ctypes.c_bool)
Str = struct("Str", n=size, s=ctypes.c_char_p)
OptStr = struct("OptStr", n=size, s=ctypes.c_char_p, has=ctypes.c_bool)
OptInt = struct("OptInt", v=i64, has=ctypes.c_bool)
OptFloat = struct("OptFloat", v=ctypes.c_double, has=ctypes.c_bool)
OptByte = struct("OptByte", v=i8, has=ctypes.c_bool)
OptDevice = struct("OptDevice", type=i8, index=i8, has=ctypes.c_bool)
OptTensor = struct("OptTensor", impl=address, has=ctypes.c_bool)
IList = struct("IList", data=address, n=size, tag=i32)
ScalarInt = struct("ScalarInt", tag=i32, pad=i32 * 3, v=i64, pad2=i64, has=ctypes.c_bool, pad3=i64)
ScalarFloat = struct("ScalarFloat", tag=i32, pad=i32 * 3, v=ctypes.c_double, pad2=i64, has=ctypes.c_bool, pad3=i64)
ScalarComplex = struct("ScalarComplex", tag=i32, pad=i32 * 3, re=ctypes.c_double, im=ctypes.c_double, has=ctypes.c_bool, pad3=i64)

FORMATS = {torch.contiguous_format: 0, torch.preserve_format: 1, torch.channels_last: 2, torch.channels_last_3d: 3}
DTYPES = {
    getattr(torch, n): getattr(HOST, f"aoti_torch_dtype_{n}")()
    for n in "float16 bfloat16 float32 float64 uint8 int8 int16 int32 int64 bool complex64 complex128".split()
}


class Arguments:
    """C values of one call, and what they point to."""

    def __init__(self):
        self.values, self.kept = [], []

    def keep(self, x):
        self.kept.append(x)
        return x

    def at(self, x):
        """Address of a C value (NULL for None)."""
        return address(ctypes.addressof(self.keep(x))) if x is not None else address(None)

    def array(self, kind, items):
        return self.keep((kind * max(len(items), 1))(*items))

    def scalar(self, x):
        if isinstance(x, bool):
            return ScalarInt(tag=4, v=x, has=True)
        if isinstance(x, int):
            return ScalarInt(tag=1, v=x, has=True)
        if isinstance(x, complex):
            return ScalarComplex(tag=3, re=x.real, im=x.imag, has=True)
        return ScalarFloat(tag=0, v=float("nan") if x is None else x, has=x is not None)

    def list(self, kind, items):
        a = self.array(kind, items)
        return ctypes.addressof(a), len(items)

    def cpp(self, kind, x):
        """One argument of the C++ function, by type in the schema."""
        has = x is not None
        if kind == "Tensor":
            return self.at(address(x._cdata))
        if kind == "Tensor?":
            return self.at(OptTensor(x._cdata if has else None, has))
        if kind == "Tensor[]":
            return List(*self.list(address, [t._cdata for t in x]))
        if kind == "ITensors":
            return self.at(IList(*self.list(address, [t._cdata for t in x]), 0))
        if kind in ("Scalar", "Scalar?"):
            return self.at(self.scalar(x))
        if kind == "int":
            return i64(x)
        if kind == "SymInt":
            return self.at(i64(x))
        if kind == "int?":
            return OptInt(x or 0, has)
        if kind == "SymInt?":
            return self.at(OptInt(x or 0, has))
        if kind in ("int[]", "SymInt[]"):
            return List(*self.list(i64, x if isinstance(x, (list, tuple)) else [x]))
        if kind == "int[]?":
            x = [x] if isinstance(x, int) else x
            return OptList(*(self.list(i64, x) if has else (None, 0)), has)
        if kind == "float":
            return ctypes.c_double(x)
        if kind == "float?":
            return OptFloat(x or 0, has)
        if kind == "bool":
            return ctypes.c_bool(x)
        if kind in ("bool?", "ScalarType?", "Layout?", "MemoryFormat?"):
            return OptByte(self.code(x) if has else 0, has)
        if kind in ("ScalarType", "MemoryFormat"):
            return i8(self.code(x))
        if kind == "bool[]":
            return struct(f"Bools{len(x)}", v=ctypes.c_bool * len(x))((ctypes.c_bool * len(x))(*x))
        if kind == "Device?":
            return OptDevice(0, -1, has)
        if kind == "str":
            return Str(len(x.encode()), x.encode())
        if kind == "str?":
            return OptStr(len(x.encode()) if has else 0, x.encode() if has else None, has)
        if kind == "Generator?":
            return self.at(OptTensor(None, False))
        raise NotImplementedError(kind)

    def code(self, x):
        """Number of a dtype, layout, memory format, or bool."""
        if isinstance(x, torch.dtype):
            return DTYPES[x]
        return 0 if x is torch.strided else FORMATS.get(x, x)

    def aoti(self, kind, x):
        """The one or two arguments of the C shim."""
        has = x is not None
        if kind.endswith("[]") and not kind.startswith("Tensor?"):
            number = kind.removesuffix("[]")
            items = [t._cdata for t in x] if number == "Tensor" else x if isinstance(x, (list, tuple)) else [x]
            if number == "Tensor":  # handles: addresses of at::Tensor
                items = [self.at(address(t)).value for t in items]
            data, n = self.list({"Tensor": address, "bool": i32}.get(number, i64), items)
            return [address(data), i64(n)]
        if kind == "Tensor?[]":  # addresses of handles, NULL for none
            items = [t if t is None else self.at(self.at(address(t._cdata))).value for t in x]
            data, n = self.list(address, items)
            return [address(data), i64(n)]
        if kind == "Device?":
            return [self.at(i32(0) if has else None), i32(-1)]
        plain = kind.removesuffix("?")
        value = None
        if has:
            value = (
                self.at(address(x._cdata)) if plain == "Tensor"
                else ctypes.c_double(x) if plain in ("Scalar", "float")
                else i64(x) if plain in ("int", "SymInt")
                else ctypes.c_char_p(x.encode()) if plain == "str"
                else i32(self.code(x))
            )
        return [self.at(value)] if kind.endswith("?") else [value]


def tensor_from(impl):
    """A Python tensor that takes over one reference to a TensorImpl."""
    handle = address()
    assert HOST.aoti_torch_new_uninitialized_tensor(ctypes.byref(handle)) == 0
    address.from_address(handle.value).value = impl
    return steal(handle.value)


def steal(handle):
    new = ctypes.pythonapi.PyCapsule_New
    new.restype, new.argtypes = ctypes.py_object, [address, ctypes.c_char_p, address]
    return torch._C._aoti.alloc_tensor_by_stealing_from_void_ptr(new(handle, None, None))


def call_cpp(symbol, row, args, keys=None):
    """Results of at::_ops::<struct>::call, or of ::redispatch if a key set is given. A list; one that is a reference to an
    argument is the argument itself."""
    c = Arguments()
    for p, x in zip(row.params, args):
        c.values.append(c.cpp("ITensors" if row.fields.get("itensors") and p.type == "Tensor[]" else p.type, x))
    single = bool(row.outs) and row.results == 1
    hidden = not row.returns_bool and not single
    slots = (address * row.results)()
    symbol.restype = ctypes.c_bool if row.returns_bool else address
    before = ([address(ctypes.addressof(slots))] if hidden else []) + ([] if keys is None else [ctypes.c_uint64(keys)])
    returned = symbol(*before, *c.values)
    if row.returns_bool:
        return [returned]
    if single:
        i = row.params.index(row.outs[0])
        assert returned == c.values[i].value, "not the address of the written argument"
        return [args[i]]
    assert returned == ctypes.addressof(slots), "not the address of the results"
    if row.out:
        places = {c.values[row.params.index(p)].value: args[row.params.index(p)] for p in row.outs}
        return [places[word] for word in reversed(slots)]
    return [tensor_from(word) for word in reversed(slots)]


def call_aoti(symbol, row, args):
    """Results of aoti_torch_cpu_<struct>, as a list."""
    c = Arguments()
    order = [i for i, p in enumerate(row.params) if row.out and p.written]
    order += [i for i in range(len(row.params)) if i not in order]
    for i in order:
        c.values += c.aoti(row.params[i].type, args[i])
    functional = not row.outs
    slots = (address * row.results)()
    results = [address(ctypes.addressof(slots) + 8 * i) for i in range(row.results)] if functional else []
    symbol.restype = i32
    assert symbol(*c.values, *results) == 0
    return [steal(word) for word in slots] if functional else [args[row.params.index(p)] for p in row.outs]
