"""One update against the same one written by hand, bit for bit; and micro batches against whole ones."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer, SparseAdam
from torch.utils.data import DataLoader

from rootflow.tasks import LossTask
from rootflow.tasks.classification import Classification
from rootflow.tasks.task import LossSum
from rootflow.train.learner import Learner
from rootflow.train.objective import Objective
from rootflow.train.precision import Arithmetic
from rootflow.train.trainer import Trainer

CPU = Arithmetic(torch.device("cpu"))
Batch = tuple[Tensor, Tensor]


def make_batches(count: int = 10, size: int = 16) -> list[Batch]:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(count, size, 6, generator=generator)
    return [(x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long()) for x in inputs]


def make_model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))


def make_learner(model: nn.Module, optimizers: Sequence[Optimizer], **settings: Any) -> Learner:
    return Learner(Objective(model, LossTask(F.cross_entropy)), optimizers, arithmetic=CPU, **settings)


def loss_of(model: nn.Module, batch: Batch) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def bits(model: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in model.parameters()]


def are_equal(one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


MakeOptimizers = Callable[[Any], list[Optimizer]]


def train_both(
    make_model: Callable[[], nn.Module],
    make_optimizers: MakeOptimizers,
    batches: Sequence[Batch],
    clip: float | None = None,
) -> tuple[list[Tensor], list[Tensor]]:
    """Train by a learner, and by hand; return both weights, which changed."""
    ours, theirs = make_model(), make_model()
    learner = make_learner(ours, make_optimizers(ours), grad_clip_norm=clip)
    optimizers = make_optimizers(theirs)
    trained = [p for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
    for batch in batches:
        learner.update(batch)
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss_of(theirs, batch).backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(trained, clip)
        for optimizer in optimizers:
            optimizer.step()
    assert not are_equal(bits(ours), bits(make_model()))
    assert learner.num_skipped == 0
    return bits(ours), bits(theirs)


@pytest.mark.parametrize("clip", [0.01, 0.3, 1.0, 1e9])
def test_gradients_are_clipped_as_torch_clips_them(clip: float) -> None:
    ours, theirs = train_both(make_model, lambda m: [SGD(m.parameters(), lr=0.5)], make_batches(), clip)
    assert are_equal(ours, theirs)


@pytest.mark.parametrize("offset", [0.0, 5e-7, 2e-6])
def test_gradients_a_hair_below_the_norm_are_clipped_as_torch_clips_them(offset: float) -> None:
    model, batch = make_model(), make_batches(1)[0]
    loss_of(model, batch).backward()
    norm = float(nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None]))
    ours, theirs = train_both(make_model, lambda m: [SGD(m.parameters(), lr=100.0)], [batch], norm + offset)
    assert are_equal(ours, theirs)


def test_several_optimizers_are_all_applied() -> None:
    def make(model: Any) -> list[Optimizer]:
        return [SGD(model[0].parameters(), lr=0.1, momentum=0.9), AdamW(model[2].parameters(), lr=0.01)]

    for clip in (None, 0.1):
        ours, theirs = train_both(make_model, make, make_batches(), clip)
        assert are_equal(ours, theirs)


def test_parameters_that_are_frozen_or_unused_stay() -> None:
    def make() -> nn.Module:
        model = make_model()
        model[0].requires_grad_(False)
        model.register_parameter("unused", nn.Parameter(torch.ones(2)))
        return model

    for clip in (None, 0.1):
        ours, theirs = train_both(
            make, lambda m: [AdamW(m.parameters(), weight_decay=0.0)], make_batches(), clip
        )
        assert are_equal(ours, theirs)
        assert are_equal(ours[:3], bits(make())[:3])


def test_sparse_gradients_are_applied() -> None:
    def make() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Embedding(20, 6, sparse=True), nn.Flatten(), nn.Linear(24, 3))

    def optimizers(model: Any) -> list[Optimizer]:
        return [SparseAdam(list(model[0].parameters()), lr=0.01), Adam(model[2].parameters(), lr=0.01)]

    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(20, (10, 16, 4), generator=generator)
    ours, theirs = train_both(make, optimizers, [(x, x[:, 0] % 3) for x in tokens])
    assert are_equal(ours, theirs)


def test_a_sparse_gradient_that_is_not_finite_is_found() -> None:
    embedding = nn.Embedding(20, 3, sparse=True)
    before = bits(embedding)
    learner = make_learner(embedding, [SparseAdam(list(embedding.parameters()))])
    embedding.weight.register_hook(lambda gradient: gradient * torch.inf)
    learner.update((torch.tensor([1, 2]), torch.tensor([0, 1])))
    assert (learner.num_skipped, are_equal(bits(embedding), before)) == (1, True)


class TwoFormats(nn.Module):
    """A body in bf16, a head in fp32."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Linear(6, 16).bfloat16()
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x.bfloat16()).relu().float())


@pytest.mark.parametrize("clip", [None, 0.1])
def test_parameters_of_two_formats_train_together(clip: float | None) -> None:
    ours, theirs = train_both(TwoFormats, lambda m: [AdamW(m.parameters(), lr=0.01)], make_batches(), clip)
    assert are_equal(ours, theirs)
    assert {p.dtype for p in ours} == {torch.bfloat16, torch.float32}


@pytest.mark.parametrize("part", ["body", "head"])
def test_a_gradient_of_either_format_is_looked_at(part: str) -> None:
    model = TwoFormats()
    before = bits(model)
    learner = make_learner(model, [SGD(model.parameters(), lr=0.1)])
    learner.after_backward = (lambda: getattr(model, part).bias.grad[0].fill_(torch.inf),)
    learner.update(make_batches(1)[0])
    assert (learner.num_skipped, are_equal(bits(model), before)) == (1, True)


def make_lbfgs(model: nn.Module) -> torch.optim.LBFGS:
    return torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=4)


def test_lbfgs_evaluates_its_closure_as_by_hand() -> None:
    ours, theirs = make_model(), make_model()
    learner, optimizer = make_learner(ours, [make_lbfgs(ours)]), make_lbfgs(theirs)

    for batch in make_batches():

        def closure(batch: Batch = batch) -> float:
            optimizer.zero_grad()
            loss = loss_of(theirs, batch)
            loss.backward()
            return float(loss.detach())

        first = float(loss_of(ours, batch).detach())
        loss, num_samples, _ = learner.update(batch)
        optimizer.step(closure)
        assert (float(loss), num_samples) == (first, 16)
    assert are_equal(bits(ours), bits(theirs))
    assert not are_equal(bits(ours), bits(make_model()))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("evaluation", [1, 2, 4])
def test_lbfgs_never_leaves_weights_that_are_not_finite(evaluation: int, value: float) -> None:
    """Whether the gradient is bad at the first evaluation, where nothing has moved yet, or later."""
    model, count = make_model(), 0
    learner = make_learner(model, [make_lbfgs(model)])
    batches = make_batches(4)

    def spoil() -> None:
        nonlocal count
        count += 1
        if count == evaluation:
            model[0].weight.grad[0, 0] = value  # type: ignore[union-attr, operator]

    learner.update(batches[0])
    before = bits(model)
    learner.after_backward = (spoil,)
    learner.update(batches[1])
    assert (learner.num_skipped, learner.bad_steps) == (1, 1)
    assert are_equal(bits(model), before)
    learner.update(batches[2])
    assert (learner.num_skipped, learner.bad_steps) == (1, 0)
    assert not are_equal(bits(model), before)
    assert all(p.isfinite().all() for p in model.parameters())


def test_lbfgs_keeps_its_history_past_an_update_that_was_skipped_at_once() -> None:
    ours, theirs = make_model(), make_model()
    learner, other = make_learner(ours, [make_lbfgs(ours)]), make_learner(theirs, [make_lbfgs(theirs)])
    first, bad, last = make_batches(3)
    for batch in (first, last):
        other.update(batch)
    for batch in (first, (bad[0] * torch.nan, bad[1]), last):
        learner.update(batch)
    assert learner.num_skipped == 1
    assert are_equal(bits(ours), bits(theirs))


class PerToken(nn.Module):
    """Logits (batch, class, token) of tokens (batch, token, 6)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).transpose(1, 2)


def make_samples(num_samples: int = 70, num_tokens: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, their classes, of which very many or very few are masked, and weights of samples."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(num_samples, num_tokens, 6, generator=generator)
    y = (x[..., 0] > 0).long() + (x[..., 1] > 0).long()
    kept = torch.rand(num_samples, 1, generator=generator) ** 4
    y = y.where(torch.rand(y.shape, generator=generator) < kept, -100)
    y[0, 0] = 1
    return x, y, torch.rand(num_samples, generator=generator)


class MaskedSum:
    """A task whose loss is a sum over the tokens that count."""

    monitor = "val/loss"
    higher_is_better = False

    def loss(self, outputs: Tensor, targets: Tensor) -> LossSum:
        return LossSum(F.cross_entropy(outputs, targets, reduction="sum"), (targets != -100).sum())

    def measure(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        return {}


class SummingStep(PerToken):
    def training_step(self, batch: Batch) -> dict[str, Any]:
        return {"loss": MaskedSum().loss(self(batch[0]), batch[1]), "count": 1}


class MeanStep(PerToken):
    """What can't be right with micro batches: nobody tells how many tokens each mean is of."""

    def training_step(self, batch: Batch) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])


def weighted_mean(outputs: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    return (F.cross_entropy(outputs, targets, reduction="none").mean(1) * weights).mean()


def weighted_sum(outputs: Tensor, targets: Tensor, weights: Tensor) -> LossSum:
    return LossSum(
        (F.cross_entropy(outputs, targets, reduction="none").sum(1) * weights).sum(), weights.sum()
    )


X, Y, W = make_samples()
CLASSES = Y[:, 0].clamp(min=0)
PAIRS = list(zip(X, Y, strict=True))
TRIPLES = list(zip(X, Y, W, strict=True))
DICTS = [{"x": x, "labels": y} for x, y in PAIRS]
FLAT = list(zip(X[:, 0], CLASSES, strict=True))
CLASS_WEIGHTS = torch.tensor([0.1, 1.0, 5.0])
SHARES = list(zip(X[:, 0], F.one_hot(CLASSES, 3) * 0.8 + 0.2 / 3, strict=True))

PARTIAL = functools.partial(F.cross_entropy, weight=CLASS_WEIGHTS, ignore_index=-100, label_smoothing=0.2)

Setting = tuple[Callable[[], nn.Module], Any, dict[str, Any]]
SETTINGS: dict[str, Setting] = {
    "a mean": (make_model, list(zip(X[:, 0], X[:, 0, :3], strict=True)), {"loss": "mse_loss"}),
    "classification": (make_model, FLAT, {"task": Classification(label_smoothing=0.1)}),
    "masked": (PerToken, PAIRS, {"loss": "cross_entropy"}),
    "weighted classes": (PerToken, PAIRS, {"loss": nn.CrossEntropyLoss(CLASS_WEIGHTS)}),
    "another mask": (PerToken, PAIRS, {"loss": nn.CrossEntropyLoss(ignore_index=-100)}),
    "smoothed": (PerToken, PAIRS, {"loss": nn.CrossEntropyLoss(CLASS_WEIGHTS, label_smoothing=0.2)}),
    "negative log-likelihood": (
        lambda: nn.Sequential(PerToken(), nn.LogSoftmax(1)), PAIRS, {"loss": nn.NLLLoss(CLASS_WEIGHTS)},
    ),
    "a partial": (PerToken, PAIRS, {"loss": PARTIAL}),
    "a partial of log-likelihood": (
        lambda: nn.Sequential(PerToken(), nn.LogSoftmax(1)), PAIRS,
        {"loss": functools.partial(F.nll_loss, weight=CLASS_WEIGHTS)},
    ),
    "shares of classes": (make_model, SHARES, {"loss": "cross_entropy"}),
    "a task's sum": (PerToken, PAIRS, {"task": MaskedSum()}),
    "a step's sum": (SummingStep, PAIRS, {}),
    "dicts": (PerToken, DICTS, {"loss": "cross_entropy"}),
    "weighted samples": (PerToken, TRIPLES, {"loss": weighted_mean}),
    "a sum over weights": (PerToken, TRIPLES, {"loss": weighted_sum}),
}  # fmt: skip


def train(setting: Setting, micro_batch_size: int | str, lr: float = 0.5) -> Tensor:
    """Return the weights after 10 updates on batches of 32, 32 and 6 samples."""
    make_model, samples, how = setting
    model = make_model()
    trainer = Trainer(max_steps=10, device="cpu", precision="fp32", micro_batch_size=micro_batch_size)  # type: ignore[arg-type]
    result = trainer.fit(
        model, DataLoader(samples, batch_size=32), optimizer=SGD(model.parameters(), lr), **how
    )
    assert (result.step, result.num_skipped) == (10, 0)
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize("name", SETTINGS)
def test_micro_batches_change_memory_and_not_the_weights(name: str) -> None:
    whole = train(SETTINGS[name], "auto")
    assert (whole - train(SETTINGS[name], "auto", lr=0.0)).abs().max() > 0.01
    for micro_batch_size in (8, 5, 1):
        assert (train(SETTINGS[name], micro_batch_size) - whole).abs().max() < 1e-6


def test_a_mean_of_the_means_of_masked_micro_batches_would_be_another_training() -> None:
    setting: Setting = (MeanStep, PAIRS, {})
    whole = train(setting, "auto")
    assert torch.equal(whole, train(SETTINGS["masked"], "auto"))
    by_parts = train(setting, 16)
    assert (by_parts - whole).abs().max() > 1e-3
