"""What the programs of fuzz.py call. Its text stands at the head of every program that is written out, so that such a
script needs nothing of ours."""
import ctypes
import io
import os
import tempfile
import threading  # noqa: F401 - programs use it

import numpy as np
import torch
import torch.nn.functional as F  # noqa: F401 - programs use it

torch.set_num_threads(1)
reads = []  # what the program has read on the host, in order
FORMS = {"dense": torch.contiguous_format, "last": torch.channels_last}


def values(seed, shape, dtype, kind="any"):
    """A new tensor. "whole": small integers; "any": also fractions and what is special; "unit": between -2 and 2."""
    rng, dtype = np.random.RandomState(seed), getattr(torch, dtype)
    n = int(np.prod(shape))
    if dtype == torch.bool:
        x = rng.randint(0, 2, n)
    elif not dtype.is_floating_point or kind == "whole":
        x = rng.randint(0 if dtype == torch.uint8 else -9, 10, n)
    elif kind == "unit":
        x = rng.rand(n) * 4 - 2
    else:
        x = rng.randn(n) * 3
        x[::7] = np.round(x[::7] * 4) / 4
        at = rng.randint(0, max(n, 1), min(n, 12))
        x[at] = rng.choice([0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 65504.0, 1e-40], len(at))
    return torch.from_numpy(np.asarray(x, np.float64 if dtype.is_floating_point else np.int64)).to(dtype).reshape(shape)


def array(t):
    """The tensor's own memory as a NumPy array, where NumPy has its dtype; else a copy, widened."""
    if isinstance(t, np.ndarray):
        return t
    t = t.detach()
    if t.dtype == torch.bfloat16:
        return (t.view(torch.int16).numpy().astype(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return t.numpy()


def read(x):
    reads.append(array(x).copy() if isinstance(x, (torch.Tensor, np.ndarray)) else x)


def through_file(t):
    """The values by way of a system call that reads the tensor's memory."""
    with tempfile.TemporaryFile() as file:
        os.write(file.fileno(), memoryview(np.ascontiguousarray(array(t))).cast("B")) if t.numel() else None
        file.seek(0)
        return np.frombuffer(file.read(), array(t).dtype)


def from_file(t):
    """Has the system write ones over the tensor's memory."""
    ones = np.ones(t.shape, t.numpy().dtype)
    with tempfile.TemporaryFile() as file:
        file.write(ones.tobytes())
        file.seek(0)
        file.readinto(memoryview(t.numpy()).cast("B"))


def through_pointer(t):
    """The values by way of the bare address, as an extension module reads them."""
    t = t.detach().contiguous()
    return np.frombuffer(ctypes.string_at(t.data_ptr(), t.numel() * t.element_size()), np.uint8).view(array(t).dtype) \
        if t.numel() and t.dtype != torch.bfloat16 else array(t).ravel()


def through_save(t):
    file = io.BytesIO()
    torch.save(t.detach(), file)
    return torch.load(io.BytesIO(file.getvalue()))


def through_fork(t):
    """The values as a child of fork finds them."""
    near, far = os.pipe()
    child = os.fork()
    if child == 0:
        with os.fdopen(far, "wb") as pipe:
            pipe.write(array(t).tobytes())
        os._exit(0)
    os.close(far)
    with os.fdopen(near, "rb") as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return np.frombuffer(text, array(t).dtype)


def made(*tensors):
    """What a statement inside a block has made: fuzz.py has another one."""


def in_threads(*works):
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
