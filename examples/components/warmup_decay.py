"""A learning rate that rises, stays, and falls when it is told to: nobody need know how long it takes."""

import torch

from rootflow.optim.schedules import WarmupDecay

optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
schedule = WarmupDecay(optimizer, None, steps_per_epoch=None, warmup="2 steps")
rates = []
for step in range(1, 9):
    rates.append(round(optimizer.param_groups[0]["lr"], 2))
    optimizer.step()
    schedule.step()
    if step == 4:  # here the loss has stopped falling
        schedule.begin_decay(4)
print(rates)
