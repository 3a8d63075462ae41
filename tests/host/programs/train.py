"""Trains a small network for a few steps: convolution, normalisation, attention, several optimisers' in-place steps,
checkpointing and hooks. Prints losses, gradients and weights."""
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

torch.manual_seed(3)


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x):
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(x)


embed, first, second, head = nn.Embedding(40, 32), Block(32), Block(32), nn.Linear(32, 40)
modules = nn.ModuleList([embed, first, second, head])
words = torch.randint(40, (8, 12))
seen = []
head.weight.register_hook(lambda grad: seen.append(float(grad.abs().sum())))

for optimiser in (torch.optim.SGD(modules.parameters(), lr=0.1, momentum=0.9), torch.optim.AdamW(modules.parameters(), eps=1e-3)):
    for _ in range(2):
        optimiser.zero_grad()
        x = first(embed(words))
        x = checkpoint(second, x, use_reentrant=False)
        loss = nn.functional.cross_entropy(head(x).flatten(0, 1), words.roll(1, 1).flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(modules.parameters(), 1.0)
        optimiser.step()
        print("loss", f"{loss.item():.9g}")

for name, parameter in modules.named_parameters():
    print(name, f"{parameter.grad.abs().mean():.9g} {parameter.detach().abs().mean():.9g}")
print("hook", *(f"{value:.9g}" for value in seen))

a = torch.tensor([1.0, 2.0], dtype=torch.double, requires_grad=True)
print("gradcheck", torch.autograd.gradcheck(lambda v: (v.exp() * v.softmax(0)).sum(), (a,)))
v = torch.randn(5, requires_grad=True)
w = v * 2
w.exp_()
try:
    z = v.exp()
    z.add_(1)
    z.sum().backward()
except RuntimeError as error:
    print("refused", str(error).split("[")[0])
w.sum().backward()
print("in-place", *(f"{value:.9g}" for value in v.grad.tolist()))
