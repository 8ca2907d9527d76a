"""Batches of tensors on the device; their order is a function of the seed and the epoch."""

import torch
from torch.utils.data import TensorDataset

from rootflow.data.loaders import build_loader

data = TensorDataset(torch.arange(10.0)[:, None], torch.arange(10))
loader = build_loader(data, batch_size=4, device=torch.device("cpu"), is_train=True, seed=7)
epochs = [[targets.tolist() for _, targets in loader] for _ in range(2)]
loader.set_epoch(1, start_batch=1)  # as a resumed training does
rest = [targets.tolist() for _, targets in loader]
print(f"another order: {epochs[0] != epochs[1]}; the rest again: {rest == epochs[1][1:]}")
