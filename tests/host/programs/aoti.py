"""A model compiled ahead of time by AOTInductor. `make FILE` compiles it; `use FILE` loads and runs it: its matrix
products and the like call PyTorch through the C shim. Prints the results."""
import sys

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(20, 40), nn.Linear(40, 8)

    def forward(self, x):
        scores = self.second(torch.relu(self.first(x)))
        best, place = torch.topk(scores, 3)
        return best.cumsum(1), place, torch.mm(scores, scores.t())


torch.manual_seed(7)
x = torch.randn(16, 20)
verb, path = sys.argv[1:]
with torch.no_grad():
    if verb == "make":
        exported = torch.export.export(Model().eval(), (x,))
        torch._inductor.aoti_compile_and_package(exported, package_path=path)
    else:
        for result in torch._inductor.aoti_load_package(path)(x):
            print(*(f"{value:.9g}" for value in result.flatten().tolist()))
