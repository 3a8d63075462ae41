"""The same model run eagerly, compiled by inductor (C++), and traced; prints all three."""
import torch
from torch import nn

torch.manual_seed(5)
model = nn.Sequential(nn.Linear(24, 48), nn.GELU(), nn.LayerNorm(48), nn.Linear(48, 6), nn.Softmax(-1)).eval()
x = torch.randn(10, 24)
with torch.no_grad():
    eager = model(x)
    compiled = torch.compile(model, fullgraph=True)(x)
    traced = torch.jit.trace(model, x)(x)
for name, result in (("eager", eager), ("compiled", compiled), ("traced", traced)):
    print(name, *(f"{value:.9g}" for value in result.flatten().tolist()))
