"""Started by torchrun: trains on a share of the data in each process, gradients averaged through gloo."""
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

dist.init_process_group("gloo")
rank = dist.get_rank()
torch.manual_seed(11)
model = DistributedDataParallel(nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 4)))
data, target = torch.randn(2, 64, 16), torch.randint(4, (2, 64))
optimiser = torch.optim.SGD(model.parameters(), lr=0.2)
for _ in range(3):
    optimiser.zero_grad()
    loss = nn.functional.cross_entropy(model(data[rank]), target[rank])
    loss.backward()
    optimiser.step()
    mean = loss.detach() / dist.get_world_size()
    dist.all_reduce(mean)
    if rank == 0:
        print("loss", f"{mean.item():.9g}", flush=True)
sums = torch.stack([parameter.detach().sum() for parameter in model.parameters()])
everyone = [torch.empty_like(sums) for _ in range(dist.get_world_size())]
dist.all_gather(everyone, sums)
if rank == 0:
    print("ranks agree", all(torch.equal(sums, other) for other in everyone), *(f"{v:.9g}" for v in sums), flush=True)
dist.destroy_process_group()
