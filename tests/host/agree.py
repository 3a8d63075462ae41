"""Agreement of a routed call with the host: same type, dtype, shape, strides, aliasing, values, and same errors."""
import copy

import torch

import gems

# PyTorch's own tolerances (torch.testing), twice as wide for f16: two correct roundings may differ by one unit.
RTOL = {torch.float16: 2e-3, torch.bfloat16: 1.6e-2, torch.float32: 1.3e-6, torch.float64: 1e-7}
ATOL = {torch.float16: 1e-5, torch.bfloat16: 1e-5, torch.float32: 1e-5, torch.float64: 1e-7}


def same(expected, actual, rtol=None, atol=None, strides=True):
    """Asserts that two results (tensors, or nested lists and tuples of them) are alike."""
    assert type(expected) is type(actual), (type(expected), type(actual))
    if isinstance(expected, (list, tuple)):
        assert len(expected) == len(actual)
        for e, a in zip(expected, actual):
            same(e, a, rtol, atol, strides)
        return
    if not isinstance(expected, torch.Tensor):
        assert expected == actual or (expected != expected and actual != actual)
        return
    assert expected.dtype == actual.dtype, (expected.dtype, actual.dtype)
    assert expected.shape == actual.shape, (expected.shape, actual.shape)
    if strides and expected.numel() > 0:
        want = [s for s, n in zip(expected.stride(), expected.shape) if n > 1]
        have = [s for s, n in zip(actual.stride(), actual.shape) if n > 1]
        assert want == have, f"strides {actual.stride()}, the host's are {expected.stride()}, shape {tuple(expected.shape)}"
    assert expected.requires_grad == actual.requires_grad
    assert expected.is_inference() == actual.is_inference()
    if expected.is_complex():
        same(torch.view_as_real(expected.resolve_conj()), torch.view_as_real(actual.resolve_conj()), rtol, atol, strides=False)
    elif expected.dtype.is_floating_point:
        r = RTOL[expected.dtype] if rtol is None else rtol
        a = ATOL[expected.dtype] if atol is None else atol
        torch.testing.assert_close(actual, expected, rtol=r, atol=a, equal_nan=True)
    else:
        assert torch.equal(expected, actual), f"{actual} is not {expected}"


def clone_args(x):
    """A deep copy that keeps strides, offsets and what views share."""
    return copy.deepcopy(x)


def attempt(fn, args, kwargs):
    try:
        return fn(*args, **kwargs), None
    except Exception as e:  # noqa: BLE001 - whatever the host raises is to be matched
        return None, e


def agree(fn, *args, op=None, routed=True, rtol=None, atol=None, strides=True, **kwargs):
    """Runs fn once by the host alone and once routed, on equal copies of the arguments, and compares the results and the
    arguments afterwards. `op`: the operator ("abs", "add.Tensor") whose counters must show that it was routed (routed=True),
    was not (False), or either (None). Returns the routed result."""
    with gems.off():
        host_args, host_kwargs = clone_args((args, kwargs))
        gems_args, gems_kwargs = clone_args((args, kwargs))
        expected, host_error = attempt(fn, host_args, host_kwargs)
    before = gems.counters(op)
    actual, gems_error = attempt(fn, gems_args, gems_kwargs)
    after = gems.counters(op)
    reason = gems.last_reason()
    assert type(host_error) is type(gems_error), f"host: {host_error!r}, gems: {gems_error!r}"
    with gems.off():
        if host_error is not None:
            assert str(host_error) == str(gems_error)
        else:
            same(expected, actual, rtol, atol, strides)
            _same_identity(expected, host_args, actual, gems_args)
        same(list(_tensors(host_args)), list(_tensors(gems_args)), rtol, atol)
        same(list(_tensors(host_kwargs)), list(_tensors(gems_kwargs)), rtol, atol)
    if routed is True:
        assert after.routed > before.routed, f"{op} was not routed: {reason}"
    elif routed is False:
        assert after.routed == before.routed, f"{op} was routed"
    return actual


def _tensors(x):
    if isinstance(x, torch.Tensor):
        yield x
    elif isinstance(x, (list, tuple)):
        for y in x:
            yield from _tensors(y)
    elif isinstance(x, dict):
        yield from _tensors(list(x.values()))


def _same_identity(expected, host_args, actual, gems_args):
    """An in-place or out operator returns the very argument it wrote."""
    for i, (h, g) in enumerate(zip(host_args, gems_args)):
        if h is expected:
            assert g is actual, f"argument {i} should have been returned itself"
