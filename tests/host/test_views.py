"""glu and polar: pointwise operators over halves and complex planes of their arguments."""
import math

import pytest
import torch
import torch.nn.functional as F

from agree import agree

aten = torch.ops.aten


def layouts():
    x = torch.randn(4, 6, 5, 8) * 5
    return {"dense": x, "permuted": x.permute(3, 1, 2, 0), "gaps": x.permute(3, 1, 0, 2)[:, :, :, 1:],
            "channels last": x.contiguous(memory_format=torch.channels_last), "expanded": x[:1].expand(7, 6, 5, 8)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_glu(dtype):
    x = layouts()["dense"].to(dtype)
    agree(F.glu, x, 1, op="glu")
    agree(F.glu, x, -1, op="glu")
    agree(aten.glu_backward, x[:, :3], x, 1, op="glu_backward")


@pytest.mark.parametrize("name", layouts())
def test_glu_of_layouts(name):
    x = layouts()[name]
    agree(F.glu, x, 1, op="glu")
    agree(aten.glu_backward, x[:, 3:], x, 1, op="glu_backward")


def test_glu_out_and_what_is_the_hosts():
    x, special = torch.randn(4, 6), [math.inf, -math.inf, math.nan, 0, 1e4, 1, 200, -200]
    agree(F.glu, torch.tensor(special), 0, op="glu")
    agree(lambda t, o: aten.glu.out(t, 1, out=o), x, torch.zeros(3, 4).t(), op="glu.out")
    agree(lambda t: aten.glu.out(t, 1, out=t[:, :3]), x, op="glu.out", routed=False)
    for t, dim in ((x, 5), (x[:, :5], 1), (x.int(), 1), (x[0, 0], 0), (x[:0], 0)):
        agree(F.glu, t, dim, op="glu", routed=False)
    agree(lambda t, o: aten.glu.out(t, 1, out=o), x, torch.zeros(4, 3).double(), op="glu.out", routed=False)


def test_glu_trains():
    def train(t):
        t = t.clone().requires_grad_()
        F.glu(t, 1).square().sum().backward()
        return t.grad
    agree(train, torch.randn(5, 8), op="glu_backward")


def test_polar():
    r, angle = torch.rand(5, 7), torch.randn(5, 7) * 9
    agree(torch.polar, r, angle, op="polar")
    agree(torch.polar, r.double(), angle.double(), op="polar")
    for a, b in ((r[:, :1], angle), (r[0, 0], angle), (r.t(), angle.t()), (r, torch.rand(7, 5).t()), (torch.rand(7, 5).t(), r)):
        agree(torch.polar, a, b, op="polar")
    agree(torch.polar, torch.tensor([math.inf, math.nan, 0.0, -1, 1]), torch.tensor([0.0, 1, -0.0, 2, math.inf]), op="polar")
    for a, b in ((r.double(), angle), (r[:0], angle[:0]), (r, angle[:3])):
        agree(torch.polar, a, b, op="polar", routed=False)

    def train(a, b):
        a = a.clone().requires_grad_()
        torch.polar(a, b).abs().sum().backward()
        return a.grad
    agree(train, r, angle, op="polar")


def test_polar_out():
    def polar(a, b, out):
        return torch.polar(a, b, out=out)
    r, angle = torch.rand(5, 7), torch.randn(5, 7)
    agree(polar, r, angle, torch.zeros(5, 7, dtype=torch.complex64), op="polar.out")
    agree(polar, r, angle, torch.zeros(7, 5, dtype=torch.complex64).t(), op="polar.out")
    for out in (torch.zeros(5, 7, dtype=torch.complex128), torch.zeros(5, 7), torch.zeros(0, dtype=torch.complex64)):
        agree(polar, r, angle, out, op="polar.out", routed=False)
    agree(lambda a, b, o: polar(a, b, o.conj()), r, angle, torch.zeros(5, 7, dtype=torch.complex64), op="polar.out", routed=False)
    agree(lambda o, b: torch.polar(torch.view_as_real(o)[..., 0], b, out=o), torch.rand(5, 7, dtype=torch.complex64), angle,
          op="polar.out", routed=False)
