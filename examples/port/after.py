"""Three arms of a spiral told apart."""

import math

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from rootflow.train.trainer import Trainer


class Net(nn.Module):
    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.hidden = nn.Linear(2, width)
        self.out = nn.Linear(width, 3)

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        return self.out(torch.relu(self.hidden(points)))


def make_spiral(num_samples: int) -> TensorDataset:
    arms = torch.randint(3, (num_samples,))
    radii = torch.rand(num_samples)
    angles = 4 * radii + 2 * math.pi / 3 * arms + 0.2 * torch.randn(num_samples)
    return TensorDataset(torch.stack([radii * angles.cos(), radii * angles.sin()], dim=1), arms)


torch.manual_seed(0)
train = DataLoader(make_spiral(600), batch_size=32, shuffle=True)
points, arms = make_spiral(300).tensors
model = Net()
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.03, total_steps=10 * len(train))

trainer = Trainer(max_epochs=10, device="cpu", precision="fp32")
trainer.fit(model, train, loss=F.cross_entropy, optimizer=optimizer, scheduler=scheduler)

with torch.no_grad():
    final_loss = F.cross_entropy(model.eval()(points), arms).item()
print(f"loss {final_loss:.4f}")
