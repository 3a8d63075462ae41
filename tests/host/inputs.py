"""Tensors for the tests of families that work along dimensions: values of every dtype, one shape in several layouts."""
import ctypes
import os

import torch

import gems

FLOATS = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
INTS = [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8]
DTYPES = FLOATS + INTS + [torch.bool]

# Nearly all of the time goes into building kernels for the first time; so a sample of what differs by dtype or layout alone
# is tested, the same in each run, unless all is asked for (make check-all).
FULL = os.environ.get("GEMS_TEST_FULL") == "1"


def some(cases, every=3):
    """The first of each so many cases; all if all is asked for."""
    cases = list(cases)
    return cases if FULL else cases[::every]


def values(shape, dtype=torch.float32):
    with gems.off():
        if dtype.is_floating_point:
            return torch.randn(shape).to(dtype)
        if dtype == torch.bool:
            return torch.rand(shape) > 0.5
        return torch.randint(0 if dtype == torch.uint8 else -9, 10, shape).to(dtype)


def layouts(shape, dtype=torch.float32):
    """The same shape: dense, transposed, rotated, every other element, a window, broadcast."""
    with gems.off():
        n = len(shape)
        made = [values(shape, dtype)]
        if n:
            made.append(values(shape[::-1], dtype).permute(*range(n - 1, -1, -1)))
            made.append(values(shape[1:] + shape[:1], dtype).permute(n - 1, *range(n - 1)))
            made.append(values([2 * s for s in shape], dtype)[tuple(slice(None, None, 2) for _ in shape)])
            made.append(values([s + 3 for s in shape], dtype)[tuple(slice(1, 1 + s) for s in shape)])
            made.append(values([1] + list(shape[1:]), dtype).expand(shape))
    return made if dtype == torch.float32 else some(made)


def special(dtype=torch.float32):
    """Rows with NaN, infinities, ties and nothing but -inf."""
    nan, inf = float("nan"), float("inf")
    rows = [[1, nan, 3, nan, 2, 0, -1], [inf, 1, 2, 3, 4, 5, inf], [-inf] * 7, [-inf, inf, 0, 0, 0, 0, 0], [nan] * 7,
            [3, 1, 3, 1, 3, 1, 3], [0.0, -0.0, 0.0, -0.0, 0.0, -0.0, 0.0], [-inf, 1, 2, 3, 4, 5, 6]]
    with gems.off():
        return torch.tensor(rows).repeat(1, 5)[:, :33].to(dtype)


def on_groups(fn, splits=3):
    """Runs fn with all calls sent to the variants for GPUs (a work-group shares a row), with work cut in parts."""
    error = ctypes.create_string_buffer(256)
    table = b'{"rules": [{"op": "*", "variant": "group", "params": {"splits": %d, "lane": 0}}]}' % splits
    assert gems.lib.gems_table_set(table, error, len(error)) == 0, error.value
    try:
        fn()
    finally:
        gems.lib.gems_table_set(None, None, 0)
