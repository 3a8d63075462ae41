"""Agreement of a routed call with the host: same type, dtype, shape, strides, aliasing, values, and same errors."""
import copy

import torch
from torch.overrides import TorchFunctionMode

import gems

# PyTorch's own tolerances (torch.testing), twice as wide for f16: two correct roundings may differ by one unit.
RTOL = {torch.float16: 2e-3, torch.bfloat16: 1.6e-2, torch.float32: 1.3e-6, torch.float64: 1e-7}
# Two units of the smallest subnormal: what is small is compared as closely as what is large, unless a test says otherwise.
ATOL = {torch.float16: 2.0 ** -23, torch.bfloat16: 2.0 ** -132, torch.float32: 2.0 ** -148, torch.float64: 2.0 ** -1073}


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
    same_form(expected, actual, strides)
    if expected.is_complex():
        same(torch.view_as_real(expected.resolve_conj()), torch.view_as_real(actual.resolve_conj()), rtol, atol, strides=False)
    elif expected.dtype.is_floating_point:
        r = RTOL[expected.dtype] if rtol is None else rtol
        a = ATOL[expected.dtype] if atol is None else atol[expected.dtype] if isinstance(atol, dict) else atol
        torch.testing.assert_close(actual, expected, rtol=r, atol=a, equal_nan=True)
    else:
        assert torch.equal(expected, actual), f"{actual} is not {expected}"


def same_form(expected, actual, strides=True):
    """Asserts that two tensors are alike but for their values."""
    assert expected.dtype == actual.dtype, (expected.dtype, actual.dtype)
    assert expected.shape == actual.shape, (expected.shape, actual.shape)
    if strides and expected.numel() > 0:
        want = [s for s, n in zip(expected.stride(), expected.shape) if n > 1]
        have = [s for s, n in zip(actual.stride(), actual.shape) if n > 1]
        assert want == have, f"strides {actual.stride()}, the host's are {expected.stride()}, shape {tuple(expected.shape)}"
    assert expected.requires_grad == actual.requires_grad
    assert expected.is_inference() == actual.is_inference()


class _Positive(TorchFunctionMode):
    """Factors of products without their signs."""
    def __torch_function__(self, func, types, args=(), kwargs=None):
        return func(*args, **{k: abs(v) if k in ("alpha", "beta") else v for k, v in (kwargs or {}).items()})


def _mapped(f, x):
    """x with f of every floating tensor in it."""
    if isinstance(x, torch.Tensor):
        return f(x) if x.dtype.is_floating_point else x
    if isinstance(x, (list, tuple)):
        return type(x)(_mapped(f, y) for y in x)
    return {k: _mapped(f, y) for k, y in x.items()} if isinstance(x, dict) else x


def _reference(fn, args, kwargs, size, rounded):
    """What fn gives, and leaves in its arguments, in f64; the size of what was summed: the sums of |a| |b|; and that of what
    was rounded to the dtype before."""
    args, kwargs = _mapped(lambda t: t.detach().double(), (args, kwargs))
    sizes, size_kwargs = _mapped(torch.abs, clone_args((args, kwargs)))
    with _Positive():
        summed = size(*sizes, **size_kwargs) if size is fn else size(*clone_args(args), **clone_args(kwargs))
    before = rounded(*clone_args(args), **clone_args(kwargs)) if rounded else None
    exact = fn(*args, **kwargs)
    exact, summed = [list(_tensors(x)) for x in ((exact, args, kwargs), (summed, sizes, size_kwargs))]
    before = list(_tensors(before))
    return [exact, summed, before + [torch.zeros(())] * (len(exact) - len(before))]


def same_sums(host, ours, exact, size, rounded, terms):
    """Asserts that the error of `ours` is at most twice the host's, which depends on its CPU, plus what rounding makes of
    a sum of so many terms in f32 (f64 for f64), plus one rounding to the dtype; where that has 16 bits, of each of the terms
    whose sizes add up to `rounded`, too."""
    info = torch.finfo(host.dtype)
    finite = host.isfinite() & ours.isfinite() & exact.isfinite()
    torch.testing.assert_close(ours[~finite], host[~finite], rtol=0, atol=0, equal_nan=True)
    host, ours, exact, size, rounded = (t.expand(finite.shape)[finite].double() for t in (host, ours, exact, size, rounded))
    unit = min(info.eps, torch.finfo(torch.float32).eps)
    bound = 2 * (host - exact).abs() + 2 * unit * max(terms, 1) ** 0.5 * size + info.eps * exact.abs() + info.smallest_normal * info.eps
    if info.bits == 16:
        bound += info.eps / 2 * rounded
    over = (ours - exact).abs() - bound
    assert not (over > 0).any(), f"{over.max().item():g} above the bound {bound[over.argmax()].item():g} at {exact[over.argmax()].item():g}"


def clone_args(x):
    """A deep copy that keeps strides, offsets and what views share."""
    return copy.deepcopy(x)


def attempt(fn, args, kwargs):
    try:
        return fn(*args, **kwargs), None
    except Exception as e:  # noqa: BLE001 - whatever the host raises is to be matched
        return None, e


def agree_sized(fn, *args, atol=None, **kwargs):
    """agree where results may be small by cancellation: their error is measured by the largest number that went in."""
    with gems.off():
        largest = max([t[t.isfinite()].abs().max().item() for t in _tensors((args, kwargs))
                       if t.dtype.is_floating_point and t.isfinite().any()], default=1.0)
    return agree(fn, *args, atol={d: r * largest for d, r in RTOL.items()} if atol is None else atol, **kwargs)


def agree(fn, *args, op=None, routed=True, rtol=None, atol=None, strides=True, sums=None, size=None, rounded=None, **kwargs):
    """Runs fn once by the host alone and once routed, on equal copies of the arguments, and compares the results and the
    arguments afterwards. `op`: the operator ("abs", "add.Tensor") whose counters must show that it was routed (routed=True),
    was not (False), or either (None). `sums`: results are sums of so many products, compared as same_sums says; `size`: gives
    their sizes, where fn of the absolute values does not; `rounded`: gives those of terms that 16-bit results may be summed
    from after rounding. Returns the routed result."""
    with gems.off():
        host_args, host_kwargs = clone_args((args, kwargs))
        gems_args, gems_kwargs = clone_args((args, kwargs))
        reference_args = clone_args((args, kwargs))
        expected, host_error = attempt(fn, host_args, host_kwargs)
    before = gems.counters(op)
    actual, gems_error = attempt(fn, gems_args, gems_kwargs)
    after = gems.counters(op)
    reason = gems.last_reason()
    assert type(host_error) is type(gems_error), f"host: {host_error!r}, gems: {gems_error!r}"
    with gems.off():
        if host_error is not None:
            assert str(host_error) == str(gems_error)
        elif sums is None:
            same(expected, actual, rtol, atol, strides)
        else:
            inside = [list(_tensors(x)) for x in ((expected, host_args, host_kwargs), (actual, gems_args, gems_kwargs))]
            reference = _reference(fn, *reference_args, size or fn, rounded)
            for host, ours, exact, summed, terms in zip(*inside, *reference, strict=True):
                same_form(host, ours, strides)
                if host.dtype.is_floating_point:
                    same_sums(host, ours, exact, summed, terms, sums)
                else:
                    same(host, ours)
        if host_error is None:
            _same_identity(expected, host_args, actual, gems_args)
        if sums is None or host_error is not None:
            same(list(_tensors((host_args, host_kwargs))), list(_tensors((gems_args, gems_kwargs))), rtol, atol)
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
