"""A loop that goes on where it was stopped: run it again, or kill it at any instant."""

import torch

from rootflow.checkpoint import Checkpoints

model = torch.nn.Linear(4, 1)
optimizer = torch.optim.Adam(model.parameters())
checkpoints = Checkpoints("checkpoints")
if found := checkpoints.load():
    model.load_state_dict(found.state["model"])
    optimizer.load_state_dict(found.state["optimizer"])
first = found.step + 1 if found else 1
for step in range(first, first + 3):
    model(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    checkpoints.save(step, {"model": model.state_dict(), "optimizer": optimizer.state_dict()})
print(f"began with step {first}; {checkpoints.steps()} are on the disk")
