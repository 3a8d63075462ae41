"""Programs of mostly pointwise operators on tensors of n elements, for memory.py and chains.py: each a function and its inputs."""
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


def kmeans(points, centres):
    for _ in range(3):
        distances = (points[:, None] - centres[None]).square().sum(-1)
        nearest = distances.argmin(1)
        belongs = (nearest[:, None] == torch.arange(len(centres))).to(points.dtype)
        centres = (belongs.t() @ points) / belongs.sum(0).clamp(min=1)[:, None]
    return centres


def nbody(x, y, z, vx, vy, vz, mass):
    step = 1e-3
    for _ in range(2):
        dx, dy, dz = (a[None, :] - a[:, None] for a in (x, y, z))
        inverse = torch.rsqrt(dx * dx + dy * dy + dz * dz + 1e-2)
        pull = inverse * inverse * inverse * mass
        vx, vy, vz = (v + step * (d * pull).sum(1) for v, d in ((vx, dx), (vy, dy), (vz, dz)))
        x, y, z = x + step * vx, y + step * vy, z + step * vz
    return torch.stack([x, y, z])


def filters(picture):
    rows = (picture[:-2] + 2 * picture[1:-1] + picture[2:]) * 0.25
    blurred = (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) * 0.25
    across = picture[:, 2:] - picture[:, :-2]
    down = picture[2:] - picture[:-2]
    gx = across[:-2] + 2 * across[1:-1] + across[2:]
    gy = down[:, :-2] + 2 * down[:, 1:-1] + down[:, 2:]
    edges = torch.sqrt(gx * gx + gy * gy).clamp(max=1)
    sharp = (picture[1:-1, 1:-1] + 0.6 * (picture[1:-1, 1:-1] - blurred)).clamp(0, 1)
    toned = sharp * sharp * (3 - 2 * sharp)
    return torch.where(edges > 0.5, toned * (1 - 0.3 * edges), toned)


def train(net, optimizer, x, y):
    with torch.enable_grad():
        for _ in range(3):
            optimizer.zero_grad()
            loss = F.mse_loss(net(x), y)
            loss.backward()
            optimizer.step()
    return torch.cat([p.detach().flatten()[:1000] for p in net.parameters()])


def adam(net, optimizer, x, y):
    return train(net, optimizer, x, y)


def adam_foreach(net, optimizer, x, y):
    return train(net, optimizer, x, y)


def one_operator(x):
    return x + 1


def two_operators(x):
    return (x + 1) * 2


def tiny(x):
    """4,000 operators, each far too small to be worth anything."""
    for _ in range(1000):
        y = x * 0.5 + 1
        x = y - x * 0.25
    return x


PROGRAMS = {f.__name__: f for f in (black_scholes, heat, adamw, rms_norm, gelu, mandelbrot, kmeans, nbody, filters, adam, adam_foreach,
                                    one_operator, two_operators, tiny)}


def inputs(name, n):
    torch.manual_seed(1)
    rand, side, rows = torch.rand, math.isqrt(n), max(n // 1024, 1)
    if name == "black_scholes":
        return rand(n) * 100 + 1, rand(n) * 100 + 1, rand(n) + 0.1, rand(n) * 0.5 + 0.1
    if name == "heat":
        u = rand(side + 2, side + 2)
        return u, u.clone()
    if name == "adamw":
        count = 2 if n > 1 << 22 else 5 if n > 1 << 20 else 20
        return tuple([make(n) for _ in range(count)] for make in (torch.randn, torch.randn, torch.zeros, torch.zeros))
    if name == "rms_norm":
        return torch.randn(rows, 1024), rand(1024), torch.randn(rows, 1024)
    if name == "mandelbrot":
        return rand(n) * 3 - 2, rand(n) * 2.4 - 1.2
    if name == "kmeans":  # the differences are n
        return torch.randn(max(n // 64, 16), 4), torch.randn(16, 4)
    if name == "nbody":  # pairs are n
        return *(torch.randn(side) for _ in range(6)), rand(side)
    if name == "filters":
        return (rand(side + 2, side + 2),)
    if name.startswith("adam"):  # parameters are n
        wide = math.isqrt(n // 2)
        net = torch.nn.Sequential(torch.nn.Linear(wide, wide), torch.nn.GELU(), torch.nn.Linear(wide, wide))
        optimizer = torch.optim.Adam(net.parameters(), foreach=name == "adam_foreach")
        return net, optimizer, torch.randn(32, wide), torch.randn(32, wide)
    return (torch.randn(n),)
