"""Weight decay for matrices and kernels, and none for biases, norms and embeddings."""

import torch
from torch import nn

from rootflow.optim.parameter_groups import parameter_groups

model = nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.Linear(16, 2))
optimizer = torch.optim.AdamW(parameter_groups(model, weight_decay=0.1), lr=1e-3)
for group in optimizer.param_groups:
    print(group["weight_decay"], [tuple(p.shape) for p in group["params"]])
