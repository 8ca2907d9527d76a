"""An average of the weights, evaluated in place of them."""

import torch

from rootflow.train.ema import Ema

model = torch.nn.Linear(1, 1, bias=False)
torch.nn.init.zeros_(model.weight)
ema = Ema(model, decay=0.5)
for _ in range(2):
    with torch.no_grad():
        model.weight += 1  # here the optimizer would take its step
    ema.update()
with ema.applied():
    averaged = model.weight.item()
print(f"the weight is {model.weight.item()}, its average {averaged}")
