"""Prices a million European options by Black and Scholes, with their sensitivities, in several scenarios of the market.

An ordinary PyTorch program, written as the formulas stand in a textbook. It knows nothing of gems_preload. Needs: torch, numpy.

    python3 options.py --save prices.npz --times times.json
"""
import argparse
import json
import math
import time

import numpy
import torch

SCENARIOS = [("today", 0.0, 0.0, 0.0), ("shares fall by a tenth", -0.10, 0.08, 0.0), ("a calm year", 0.05, -0.05, 0.0),
             ("rates rise by a point", 0.0, 0.0, 0.01), ("a crash", -0.30, 0.25, -0.01)]
NAMES = ["call", "put", "delta", "gamma", "vega", "theta", "rho"]


def density(x):
    return torch.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)


def cumulative(x):
    return 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def price(spot, strike, years, volatility, rate):
    """Call and put, and how the call moves with the share, twice, the volatility, time in days, and the rate."""
    root = torch.sqrt(years)
    d1 = (torch.log(spot / strike) + (rate + 0.5 * volatility * volatility) * years) / (volatility * root)
    d2 = d1 - volatility * root
    discount = torch.exp(-rate * years)
    call = spot * cumulative(d1) - strike * discount * cumulative(d2)
    put = call - spot + strike * discount
    delta = cumulative(d1)
    gamma = density(d1) / (spot * volatility * root)
    vega = spot * density(d1) * root / 100
    theta = (-spot * density(d1) * volatility / (2 * root) - rate * strike * discount * cumulative(d2)) / 365
    rho = strike * years * discount * cumulative(d2) / 100
    return call, put, delta, gamma, vega, theta, rho


def portfolio(count):
    """Options on a share, 20 to 180 to buy at 50 to 150, from a month to three years, of volatility 10 to 60 %."""
    generator = torch.Generator().manual_seed(7)
    spot, strike, years, volatility = torch.rand(4, count, generator=generator)
    return spot * 160 + 20, strike * 100 + 50, years * 2.9 + 0.1, volatility * 0.5 + 0.1


def revalue(options):
    """Every option in every scenario."""
    spot, strike, years, volatility = options
    results = []
    for _, move, volatility_move, rate_move in SCENARIOS:
        results.append(price(spot * (1 + move), strike, years, (volatility + volatility_move).clamp(min=0.02), 0.03 + rate_move))
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=1_000_000, help="options (default: a million)")
    parser.add_argument("--passes", type=int, default=20, help="times to price them, to time it (default: 20)")
    parser.add_argument("--save", metavar="FILE", help="write prices and sensitivities of each scenario (.npz)")
    parser.add_argument("--times", metavar="FILE", help="write the times in seconds (.json)")
    arguments = parser.parse_args()

    torch.set_grad_enabled(False)
    options = portfolio(arguments.count)
    seconds = []
    for _ in range(arguments.passes):
        before = time.perf_counter()
        results = revalue(options)
        totals = [[values.mean().item() for values in result] for result in results]
        seconds.append(time.perf_counter() - before)

    print(f"{'mean of all options':<24}" + "".join(f"{name:>10}" for name in NAMES))
    for (scenario, *_), means in zip(SCENARIOS, totals):
        print(f"{scenario:<24}" + "".join(f"{value:>10.4f}" for value in means))

    # Where the share stands in one scenario, for a look at the curve: an option for 100, half a year, 30 %.
    spots = torch.linspace(50, 150, 101)
    curve = price(spots, torch.full((101,), 100.0), torch.full((101,), 0.5), torch.full((101,), 0.3), 0.03)
    grid_spot, grid_years = torch.meshgrid(torch.linspace(50, 150, 31), torch.linspace(0.05, 3, 31), indexing="ij")
    surface = price(grid_spot, torch.tensor(100.0), grid_years, torch.tensor(0.3), 0.03)[0]

    if arguments.save:
        values = {f"{name} {i}": values.numpy() for i, result in enumerate(results) for name, values in zip(NAMES, result)}
        numpy.savez(arguments.save, spots=spots.numpy(), surface=torch.stack([grid_spot, grid_years, surface]).numpy(),
                    **{f"curve {name}": values.numpy() for name, values in zip(NAMES, curve)}, **values)
    if arguments.times:
        with open(arguments.times, "w", encoding="utf-8") as file:
            json.dump({"passes": seconds}, file)


if __name__ == "__main__":
    main()
