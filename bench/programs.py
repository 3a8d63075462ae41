"""Six programs of pointwise operators on tensors of n elements, for bench/memory.py: each a function and its inputs."""
import math

import torch
import torch.nn.functional as F


def black_scholes(spot, strike, years, sigma):
    def cdf(x):
        return 0.5 * (1 + torch.erf(x / math.sqrt(2)))
    rate = 0.03
    d1 = (torch.log(spot / strike) + (rate + 0.5 * sigma * sigma) * years) / (sigma * torch.sqrt(years))
    d2 = d1 - sigma * torch.sqrt(years)
    return spot * cdf(d1) - strike * torch.exp(-rate * years) * cdf(d2)


def heat(u, v):
    for _ in range(4):
        laplacian = u[2:, 1:-1] + u[:-2, 1:-1] + u[1:-1, 2:] + u[1:-1, :-2] - 4 * u[1:-1, 1:-1]
        v[1:-1, 1:-1] = u[1:-1, 1:-1] + 0.1 * laplacian
        u, v = v, u
    return u


def adamw(weights, gradients, means, squares):
    rate, decay, b1, b2, eps, step = 1e-3, 1e-2, 0.9, 0.999, 1e-8, 10
    for p, g, m, v in zip(weights, gradients, means, squares):
        p.mul_(1 - rate * decay)
        m.mul_(b1).add_(g, alpha=1 - b1)
        v.mul_(b2).addcmul_(g, g, value=1 - b2)
        denominator = (v.sqrt() / math.sqrt(1 - b2**step)).add_(eps)
        p.addcdiv_(m, denominator, value=-rate / (1 - b1**step))
    return weights[-1]


def rms_norm(x, weight, gate):
    y = x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-6) * weight
    return F.silu(gate) * y


def gelu(x):
    return x * 0.5 * (1 + torch.tanh(0.7978845608 * (x + 0.044715 * x * x * x)))


def mandelbrot(cr, ci):
    zr, zi, count = cr, ci, torch.zeros_like(cr)
    for _ in range(50):
        zr2, zi2 = zr * zr, zi * zi
        inside = (zr2 + zi2) <= 4
        zi_next = 2 * zr * zi + ci
        zr_next = zr2 - zi2 + cr
        zr, zi = torch.where(inside, zr_next, zr), torch.where(inside, zi_next, zi)
        count += inside
    return count


PROGRAMS = {f.__name__: f for f in (black_scholes, heat, adamw, rms_norm, gelu, mandelbrot)}


def inputs(name, n):
    torch.manual_seed(1)
    rand, side, rows = torch.rand, math.isqrt(n), max(n // 1024, 1)
    if name == "black_scholes":
        return rand(n) * 100 + 1, rand(n) * 100 + 1, rand(n) + 0.1, rand(n) * 0.5 + 0.1
    if name == "heat":
        u = rand(side + 2, side + 2)
        return u, u.clone()
    if name == "adamw":
        count = 5 if n > 1 << 20 else 20
        return tuple([make(n) for _ in range(count)] for make in (torch.randn, torch.randn, torch.zeros, torch.zeros))
    if name == "rms_norm":
        return torch.randn(rows, 1024), rand(1024), torch.randn(rows, 1024)
    if name == "mandelbrot":
        return rand(n) * 3 - 2, rand(n) * 2.4 - 1.2
    return (torch.randn(n),)
