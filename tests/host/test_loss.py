"""nll_loss, its gradients, and cross_entropy: reductions, weights, ignored targets, errors."""
import pytest
import torch
import torch.nn.functional as F

from agree import agree
from inputs import FLOATS, layouts, on_groups, special, values

aten = torch.ops.aten
REDUCTIONS = {"none": 0, "mean": 1, "sum": 2}
SHAPES = [(7,), (1, 7), (40, 7), (999, 12), (2, 7, 4, 5), (1, 3, 1, 1)]


def names(shape):
    n = "nll_loss2d" if len(shape) == 4 else "nll_loss"
    return n + "_forward", n + "_backward"


def targets(shape, ignored=-100):
    t = torch.randint(0, shape[len(shape) > 1], shape[:1] * (len(shape) > 1) + shape[2:])
    return t.masked_fill(torch.rand(t.shape) < 0.2, ignored)


def both(x, target, weight=None, reduction=1, ignored=-100, routed=True, backward=True, g=None):
    forward_name, backward_name = names(x.shape)
    forward = getattr(aten, forward_name)
    out, total = agree(forward, x, target, weight, reduction, ignored, op=forward_name, routed=routed, sums=target.numel(),
                       size=lambda *args: tuple(abs(t) for t in forward(*args)))
    if backward:
        g = values(out.shape, x.dtype) if g is None else g
        agree(getattr(aten, backward_name), g, x, target, weight, reduction, ignored, total, op=backward_name, routed=routed)


@pytest.mark.parametrize("reduction", REDUCTIONS.values(), ids=REDUCTIONS)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values(shape, dtype, reduction):
    weight = values((shape[len(shape) > 1],), dtype).abs()
    for w in (None, weight):
        both(values(shape, dtype), targets(shape), w, reduction)
        both(values(shape, dtype), targets(shape, 2), w, reduction, 2)


@pytest.mark.parametrize("reduction", REDUCTIONS.values(), ids=REDUCTIONS)
def test_layouts(reduction):
    for shape in ((40, 7), (2, 7, 4, 5)):
        for x in layouts(shape):
            for t in (targets(shape), targets(shape).unsqueeze(-1).expand(*shape[:1], *shape[2:], 3)[..., 1]):
                both(x, t, None, reduction, backward=len(shape) == 2 or x.is_contiguous())
        for t in layouts(shape[:1] + shape[2:], torch.int64):
            both(values(shape), t.remainder(7), values((7,)).abs(), reduction)
    both(values((40, 7)), targets((40, 7)), None, 0, g=values((1,)).expand(40))
    both(values((40, 7)), targets((40, 7)), None, 1, g=values((1,)))


def test_large():
    for reduction in REDUCTIONS.values():
        both(values((100_000, 3)), targets((100_000, 3)), values((3,)).abs(), reduction)
        both(values((64, 5000)), targets((64, 5000)), None, reduction)
        both(values((3, 5, 100, 90)), targets((3, 5, 100, 90)), values((5,)).abs(), reduction)


def test_all_are_ignored_and_special_values():
    for reduction in REDUCTIONS.values():
        both(values((5, 7)), torch.full((5,), -100), values((7,)).abs(), reduction)
        both(values((7,)), torch.tensor(-100), None, reduction)
        both(special(), torch.arange(8), values((33,)).abs(), reduction)
        both(special(), torch.arange(8), torch.zeros(33), reduction)
        both(values((8, 33)), torch.arange(8), special()[0], reduction)


@pytest.mark.parametrize("bad", [-1, 7, 1 << 40, -(1 << 40)])
def test_out_of_range(bad):
    for shape in ((40, 7), (2, 7, 4, 5)):
        t = targets(shape)
        t.view(-1)[-3] = bad
        for reduction in REDUCTIONS.values():
            agree(getattr(aten, names(shape)[0]), values(shape), t, None, reduction, -100, op=names(shape)[0], routed=False)
        agree(getattr(aten, names(shape)[1]), values(()), values(shape), t, None, 1, -100, torch.tensor(3.0), op=names(shape)[1], routed=False)
        both(values(shape), t.masked_fill(t == -100, bad), None, 1, bad)
    agree(F.cross_entropy, values((40, 7)), torch.full((40,), bad), op="nll_loss_forward", routed=False)


def test_left_to_the_host():
    x, t = values((5, 7)), torch.arange(5)
    for args in ((x, t.int(), None, 1, -100), (x, t.to(torch.uint8), None, 1, -100), (x, t[:4], None, 1, -100), (x[:0], t[:0], None, 1, -100),
                 (x[:0], t[:0], None, 0, -100), (x, t, values((6,)), 1, -100), (x, t, values((7,)).double(), 1, -100),
                 (x, t, values((14,))[::2], 1, -100), (x[0], t[:1], None, 1, -100), (x.int(), t, None, 1, -100), (x[None], t, None, 1, -100)):
        agree(aten.nll_loss_forward, *args, op="nll_loss_forward", routed=False)
    one = torch.tensor(1.0)
    for args in ((values((5,)), x, t, None, 1, -100, one), (values((4,)), x, t, None, 0, -100, one), (one, x, t, None, 1, -100, values((2,)))):
        agree(aten.nll_loss_backward, *args, op="nll_loss_backward", routed=False)
    images = values((2, 7, 4, 5)).contiguous(memory_format=torch.channels_last)
    agree(aten.nll_loss2d_backward, one, images, targets(images.shape), None, 1, -100, one, op="nll_loss2d_backward", routed=False)


def test_through_autograd():
    def step(x, target, weight, how):
        x = x.clone().requires_grad_()
        loss = F.cross_entropy(x, target, weight, reduction=how)
        loss.sum().backward()
        return loss.detach(), x.grad
    for how in REDUCTIONS:
        for shape in SHAPES[1:5]:
            for op in names(shape):
                agree(step, values(shape), targets(shape), values((shape[1],)).abs(), how, op=op, rtol=1e-5, atol=1e-6)
    agree(step, values((40, 7)).bfloat16(), targets((40, 7)), None, "mean", op="nll_loss_backward", rtol=2e-2, atol=1e-3)


@pytest.mark.long
def test_work_groups():
    def all_of_it():
        for shape in SHAPES + [(100_000, 3)]:
            for reduction in REDUCTIONS.values():
                both(values(shape), targets(shape), None, reduction)
                both(values(shape), targets(shape), values((shape[len(shape) > 1],)).abs(), reduction)
    on_groups(all_of_it)
