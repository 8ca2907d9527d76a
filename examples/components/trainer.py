"""The whole loop, for any module, loss and data; `fit` trains in place and tells how it ended."""

import torch
from torch.utils.data import TensorDataset

from rootflow.train.trainer import Trainer

inputs = torch.randn(200, 8)
data = TensorDataset(inputs, (inputs.sum(dim=1) > 0).long())
model = torch.nn.Linear(8, 2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
result = Trainer(max_epochs=5).fit(model, data, data, loss="cross_entropy", optimizer=optimizer)
print(f"{result.stop_reason}; the best of {result.step} updates is {result.best['step']}")
