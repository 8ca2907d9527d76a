"""What only a CUDA device can show: `make gpu-test`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import rootflow
from rootflow.data.augment import Augment, Preprocess
from rootflow.data.loaders import LoaderSettings, TensorLoader, build_loader
from rootflow.models.resnet import ResNet
from rootflow.optim.build_optimizer import build_optimizer
from rootflow.tasks import LossTask
from rootflow.tasks.classification import Classification
from rootflow.train.ema import Ema
from rootflow.train.learner import Learner
from rootflow.train.loop import Position, StepReport, train_steps
from rootflow.train.objective import Objective
from rootflow.train.precision import Arithmetic, find_dtype
from rootflow.train.trainer import FitResult, Trainer
from tests.test_resume import assert_same, last_resume, train, train_stopped

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
    objective = Objective(model, Classification())
    learner = Learner(objective, [optimizer], arithmetic=arithmetic, grad_clip_norm=1.0)
    loader, position = make_loader(CUDA), Position()

    def count_steps() -> int:
        return sum(1 for _ in train_steps(loader, learner.update, position, lr=lambda: learner.lr))

    count_steps()  # the first batch checks its targets, and kernels are chosen
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    num_steps = count_steps()
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


class NoWaiting:
    """Lets no update wait for the device from one step to another."""

    def __init__(self, first: int, last: int) -> None:
        self.first = first
        self.last = last
        self.num_watched = 0

    def on_batch_end(self, report: StepReport) -> None:
        if report.step == self.first:
            torch.cuda.synchronize()
            torch.cuda.set_sync_debug_mode("error")
        elif report.step > self.first:
            self.num_watched += 1
        if report.step == self.last:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.usefixtures("_no_waiting")
def test_fit_never_waits_between_two_rows() -> None:
    model = ResNet(in_channels=3, num_classes=10, depth=20)
    watching = NoWaiting(2, 8)
    Trainer(max_epochs=1, log_every=100, ema_decay=0.9, grad_clip_norm=1.0).fit(
        model, make_loader(CUDA), task=Classification(), optimizer="sgd", hooks=[watching]
    )
    assert watching.num_watched == 6


def make_batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(32, 64, generator=generator)
    return inputs.to(CUDA), inputs.roll(1, dims=1).to(CUDA)


def make_learner(model: nn.Module, optimizer: torch.optim.Optimizer, ema: Ema | None = None) -> Learner:
    return Learner(Objective(model, LossTask("mse_loss")), [optimizer], arithmetic=Arithmetic(CUDA), ema=ema)


def leave_nan_in_freed_memory() -> None:
    blocks = [torch.full((64, 64), torch.nan, device=CUDA) for _ in range(50)]
    del blocks


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_first_update_that_is_skipped_leaves_fused_sgd_as_new(momentum: float) -> None:
    """Its kernel would take momentum from memory that nobody has written, were it to skip its first step."""
    inputs, targets = make_batch()
    torch.manual_seed(0)
    ours = nn.Linear(64, 64, device=CUDA)
    theirs = nn.Linear(64, 64, device=CUDA)
    theirs.load_state_dict(ours.state_dict())
    settings = {"lr": 0.1, "momentum": momentum, "fused": True}
    learner = make_learner(ours, torch.optim.SGD(ours.parameters(), **settings))
    other = torch.optim.SGD(theirs.parameters(), **settings)
    leave_nan_in_freed_memory()
    learner.update((inputs * torch.nan, targets))
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=0, atol=0)
    for _ in range(3):
        learner.update((inputs, targets))
        other.zero_grad()
        F.mse_loss(theirs(inputs), targets).backward()
        other.step()
    assert int(learner.num_skipped) == 1
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


@pytest.mark.parametrize("bad_step", [1, 2, 4])
@pytest.mark.parametrize("fused", [True, False])
def test_a_skipped_batch_reaches_neither_batch_norm_nor_the_average(bad_step: int, fused: bool) -> None:
    inputs, targets = make_batch()
    model = nn.Sequential(nn.BatchNorm1d(64), nn.Linear(64, 64)).to(CUDA)
    ema = Ema(model, 0.9)
    learner = make_learner(model, torch.optim.AdamW(model.parameters(), fused=fused), ema)
    for step in range(1, 6):
        learner.update((inputs * torch.nan if step == bad_step else inputs, targets))
    learner.check(5)
    assert int(learner.num_skipped) == 1
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())
    assert all(tensor.isfinite().all() for tensor in ema.state_dict().values())
    assert int(model[0].num_batches_tracked) == 4  # type: ignore[arg-type]


def test_a_ready_loader_and_a_built_optimizer_train_as_a_loop_on_the_host() -> None:
    data = DataLoader(TensorDataset(*(tensor.cpu() for tensor in make_batch())), batch_size=8)
    ours, theirs = nn.Linear(64, 64), nn.Linear(64, 64)
    theirs.load_state_dict(ours.state_dict())
    optimizer, other = (torch.optim.AdamW(model.parameters(), lr=0.01) for model in (ours, theirs))
    result = Trainer(max_epochs=3, precision="fp32").fit(
        ours, data, data, loss="mse_loss", optimizer=optimizer
    )
    for _ in range(3):
        for inputs, targets in data:
            other.zero_grad()
            F.mse_loss(theirs(inputs), targets).backward()
            other.step()
    assert {parameter.device.type for parameter in ours.parameters()} == {"cuda"}
    assert (result.step, result.num_skipped) == (12, 0)
    for name, tensor in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name].cpu(), tensor, rtol=1e-3, atol=1e-4)


@pytest.fixture
def deterministic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.slow
@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("at", [10, "16:evaluation"])
def test_a_deterministic_run_that_was_stopped_goes_on_as_if_it_never_was(at: int | str) -> None:
    settings = ("trainer.device=cuda", "trainer.deterministic=true")
    whole = train(*settings)
    path = train_stopped(at, *settings)
    rootflow.resume(path)
    assert last_resume(path)["exact"]
    assert_same(path, whole)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 64))
        self.was_compiled = False

    def forward(self, inputs: Tensor) -> Tensor:
        self.was_compiled = torch.compiler.is_compiling()
        return self.layers(inputs)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit.*deprecated:DeprecationWarning")  # torch's own compiler
def test_a_compiled_training_averages_as_one_that_is_not() -> None:
    data = DataLoader(TensorDataset(*(tensor.cpu() for tensor in make_batch())), batch_size=8)

    def fit(*, is_compiled: bool) -> tuple[Net, FitResult]:
        model = Net()
        trainer = Trainer(max_epochs=3, precision="fp32", ema_decay=0.8, compile=is_compiled)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        return model, trainer.fit(model, data, data, loss="mse_loss", optimizer=optimizer)

    (plain, measured), (compiled, remeasured) = fit(is_compiled=False), fit(is_compiled=True)
    assert (plain.was_compiled, compiled.was_compiled) == (False, True)
    assert measured.ema is not None
    assert remeasured.ema is not None
    torch.testing.assert_close(compiled.state_dict(), plain.state_dict(), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(remeasured.ema.state_dict(), measured.ema.state_dict(), rtol=1e-3, atol=1e-4)
    assert remeasured.last == pytest.approx(measured.last, rel=1e-3)
