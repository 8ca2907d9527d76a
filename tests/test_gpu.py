"""What only a CUDA device can show: `make gpu-test`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from rootflow.data.augment import Augment, Preprocess
from rootflow.data.loaders import LoaderSettings, TensorLoader, build_loader
from rootflow.models.resnet import ResNet
from rootflow.optim.build_optimizer import build_optimizer
from rootflow.tasks.classification import Classification
from rootflow.train.loop import Learner, train_steps
from rootflow.train.precision import find_dtype
from rootflow.train.trainer import Trainer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
CUDA = torch.device("cuda")


def make_images(num_samples: int = 512) -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (num_samples, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return TensorDataset(images, torch.randint(10, (num_samples,), generator=generator))


def make_loader(device: torch.device, **settings: object) -> TensorLoader:
    loader = build_loader(
        make_images(),
        batch_size=64,
        device=device,
        is_train=True,
        seed=3,
        transform=Preprocess(
            (0.5,) * 3, (0.25,) * 3, augment=Augment(flip="alternating", translate=4, cutout=8), seed=3
        ),
        settings=LoaderSettings(**settings),  # type: ignore[arg-type]
    )
    assert isinstance(loader, TensorLoader)
    return loader


def test_batches_and_their_augmentation_are_those_of_the_cpu() -> None:
    for resident in (True, False):
        here, there = make_loader(torch.device("cpu")), make_loader(CUDA, resident=resident)
        for epoch in (1, 2):
            here.set_epoch(epoch)
            there.set_epoch(epoch)
            for (inputs, targets), (inputs_there, targets_there) in zip(here, there, strict=True):
                assert inputs_there.device.type == "cuda"
                assert torch.allclose(inputs, inputs_there.cpu(), atol=1e-6)
                assert torch.equal(targets, targets_there.cpu())


@pytest.fixture
def _no_waiting() -> Iterator[None]:
    yield
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.usefixtures("_no_waiting")
def test_updates_never_wait_for_the_device() -> None:
    model = ResNet(in_channels=3, num_classes=10, depth=20)
    trainer = Trainer(max_epochs=1)
    arithmetic = trainer.arithmetic(model)
    assert (arithmetic.device.type, arithmetic.channels_last) == ("cuda", True)
    arithmetic.place(model)
    optimizer = build_optimizer(torch.optim.SGD, model, {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4})
    learner = Learner(model, Classification(), optimizer, None, arithmetic, grad_clip_norm=1.0)
    loader = make_loader(CUDA)
    for _ in train_steps(learner, loader, 1):  # the first batch checks its targets, and kernels are chosen
        pass
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    num_steps = sum(1 for _ in train_steps(learner, loader, 2))
    torch.cuda.set_sync_debug_mode("default")
    assert num_steps == 8


def test_bf16_and_fused_kernels_are_the_default() -> None:
    dtype, reason = find_dtype("auto", CUDA)
    has_bf16 = torch.cuda.get_device_capability() >= (8, 0)
    assert (dtype is torch.bfloat16) == has_bf16, reason
    optimizer = build_optimizer(torch.optim.AdamW, nn.Linear(3, 3).to(CUDA), {"lr": 0.1})
    assert optimizer.defaults["fused"] is True


def test_a_model_learns_on_the_device() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(1024, 1, 8, 8, generator=generator)
    targets = (inputs.mean((1, 2, 3)) > 0).long()
    loader = build_loader(TensorDataset(inputs, targets), batch_size=64, device=CUDA, is_train=True)
    model = ResNet(in_channels=1, num_classes=2, depth=20).to(CUDA)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    result = Trainer(max_epochs=10).fit(model, loader, loader, task=Classification(), optimizer=optimizer)
    assert result.best["val/accuracy"] > 0.9
