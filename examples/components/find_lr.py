"""A learning rate for a loop of one's own; the model and the loader stay as they are."""

import torch

import rootflow

torch.manual_seed(0)
inputs = torch.randn(4096, 20)
data = torch.utils.data.TensorDataset(inputs, inputs @ torch.randn(20, 1))
loader = torch.utils.data.DataLoader(data, batch_size=64, shuffle=True)
model = torch.nn.Linear(20, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
found = rootflow.find_lr(model, loader, "mse_loss", optimizer)
assert found.suggestion is not None
print(f"between 0.05 and 1: {0.05 < found.suggestion < 1}")
