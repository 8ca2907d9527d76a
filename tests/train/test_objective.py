"""How a batch becomes a loss: each form of batch, of outputs, of steps and of losses, against the loss by hand."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rootflow.errors import ConfigError, RunError
from rootflow.tasks import LossTask
from rootflow.tasks.classification import Classification
from rootflow.train.loop import StepReport
from rootflow.train.objective import Objective
from rootflow.train.trainer import FitResult, Trainer

X = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(8) % 3
NUMBERS = X.sum(dim=1, keepdim=True)
WEIGHTS = torch.linspace(0.5, 2.0, 8)


class Pair(NamedTuple):
    inputs: Tensor
    targets: Tensor


class Base(nn.Module):
    """Holds the layer that all models here use."""

    def __init__(self, num_outputs: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, num_outputs)


class Net(Base):
    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        return self.layer(x) * scale  # type: ignore[no-any-return]


class TwoInputs(Base):
    def forward(self, x: Tensor, shift: Tensor, *, scale: float = 1.0) -> Tensor:
        return self.layer(x + shift) * scale  # type: ignore[no-any-return]


class HuggingFaceLike(Base):
    """Takes labels if it is given some, and then returns its loss."""

    def forward(self, pixels: Tensor, labels: Tensor | None = None) -> SimpleNamespace:
        logits = self.layer(pixels)
        return SimpleNamespace(
            loss=None if labels is None else F.cross_entropy(logits, labels), logits=logits
        )


class ReturnsLoss(Base):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(self.layer(x), y)


class ReturnsDict(Base):
    def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        logits = self.layer(x)
        return {"logits": logits, "loss": F.cross_entropy(logits, y)}


class TupleOutputs(Base):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.layer(x)
        return logits, logits.square().mean()


class Stepping(Base):
    """Its training step returns whatever it is told to."""

    def __init__(self, form: str = "scalar") -> None:
        super().__init__()
        self.form = form

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Any:
        x, y = batch
        loss = F.cross_entropy(self.layer(x), y)
        return {
            "scalar": loss,
            "one element": loss[None],
            "pair": (loss, {"part": loss / 2}),
            "dict": {"loss": loss, "part": loss / 2},
            "attribute": SimpleNamespace(loss=loss),
            "non-scalar": self.layer(x),
            "detached": loss.detach(),
            "float": loss.item(),
            "no key": {"nll": loss, "part": loss},
            "nothing": None,
        }[self.form]


def weighted(outputs: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    return (F.cross_entropy(outputs, targets, reduction="none") * weights).mean()


def with_penalty(outputs: tuple[Tensor, Tensor], targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs[0], targets) + outputs[1]


def on_logits(outputs: Any, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs.logits, targets)


def linear(num_outputs: int = 3) -> nn.Linear:
    return Base(num_outputs).layer


def loss_of(model: nn.Module, batch: Any, loss: Any = None) -> Tensor:
    found, _ = Objective(model, None if loss is None else LossTask(loss)).loss(batch)
    assert isinstance(found, Tensor)
    assert found.ndim == 0
    assert found.requires_grad
    return found.detach()


def means_of(objective: Objective, batch: Any) -> dict[str, float]:
    """Return what is measured, as means over the batch's eight samples."""
    with torch.inference_mode():
        sums = objective.measure(batch)
    return {name: float(value) / 8 for name, value in sums.items() if isinstance(value, Tensor)}


def fit(model: nn.Module, batch: Any, **given: Any) -> FitResult:
    """Train for one update on one batch."""
    settings = {"max_steps": 1, "device": "cpu", "precision": "fp32"}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return Trainer(**settings).fit(model, Batches([batch]), optimizer=optimizer, **given)  # type: ignore[arg-type]


class Batches:
    """A ready loader; not a list, which would be samples."""

    def __init__(self, batches: list[Any]) -> None:
        self.batches = batches

    def __iter__(self) -> Any:
        return iter(self.batches)


LOGITS = linear()(X).detach()
CROSS_ENTROPY = F.cross_entropy(LOGITS, Y)

FORMS: dict[str, tuple[nn.Module, Any, Any, Tensor]] = {
    "(x, y)": (Net(), (X, Y), "cross_entropy", CROSS_ENTROPY),
    "[x, y]": (Net(), [X, Y], F.cross_entropy, CROSS_ENTROPY),
    "a named tuple": (Net(), Pair(X, Y), nn.CrossEntropyLoss(), CROSS_ENTROPY),
    "(x, y, w)": (Net(), (X, Y, WEIGHTS), weighted, weighted(LOGITS, Y, WEIGHTS)),
    "(x1, x2, y)": (
        TwoInputs(),
        (X, X.flip(0), Y),
        "cross_entropy",
        F.cross_entropy(linear()(X + X.flip(0)), Y),
    ),
    "(x,)": (Base(4).layer, (X,), "mse_loss", F.mse_loss(linear(4)(X), X)),
    "a lone tensor": (Base(4).layer, X, "mse_loss", F.mse_loss(linear(4)(X), X)),
    "a dict as keywords": (
        TwoInputs(),
        {"shift": X.flip(0), "x": X, "labels": Y},
        "cross_entropy",
        F.cross_entropy(linear()(X + X.flip(0)), Y),
    ),
    "a dict with one input": (Net(), {"image": X, "label": Y}, "cross_entropy", CROSS_ENTROPY),
    "labels that the model takes": (
        HuggingFaceLike(),
        {"pixels": X, "labels": Y},
        "cross_entropy",
        CROSS_ENTROPY,
    ),
    "labels that it takes, and no loss": (HuggingFaceLike(), {"pixels": X, "labels": Y}, None, CROSS_ENTROPY),
    "outputs to a loss of one's own": (HuggingFaceLike(), (X, Y), on_logits, CROSS_ENTROPY),
    "the model returns its loss": (ReturnsLoss(), (X, Y), None, CROSS_ENTROPY),
    "the model takes a dict and returns its loss": (ReturnsLoss(), {"x": X, "y": Y}, None, CROSS_ENTROPY),
    "a dict of outputs with a loss": (ReturnsDict(), (X, Y), None, CROSS_ENTROPY),
    "a dict of outputs with a loss, though another is given": (
        ReturnsDict(), {"x": X, "y": Y}, "mse_loss", CROSS_ENTROPY
    ),
    "a tuple of outputs": (TupleOutputs(), (X, Y), with_penalty, CROSS_ENTROPY + LOGITS.square().mean()),
    **{
        f"a step that returns {form}": (Stepping(form), (X, Y), None, CROSS_ENTROPY)
        for form in ("scalar", "one element", "pair", "dict", "attribute")
    },
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_each_form_gives_the_loss_that_one_writes_by_hand(form: str) -> None:
    model, batch, loss, expected = FORMS[form]
    assert torch.equal(loss_of(model, batch, loss), expected)
    result = fit(model, batch, loss=None if isinstance(model, Stepping) else loss)
    assert result.last["train/loss"] == expected.item()


def test_a_models_own_loss_goes_before_the_one_given() -> None:
    class Own(Net):
        def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
            return 2 * F.cross_entropy(outputs, targets)

    assert torch.equal(loss_of(Own(), (X, Y), "cross_entropy"), 2 * CROSS_ENTROPY)


@pytest.mark.parametrize("form", ["pair", "dict"])
def test_the_parts_of_a_step_are_its_logs_and_hold_no_graph(form: str) -> None:
    _, logs = Objective(Stepping(form)).loss((X, Y))
    assert {name: value.item() for name, value in logs.items()} == {"part": CROSS_ENTROPY.item() / 2}
    assert not logs["part"].requires_grad


def test_a_loss_with_parts_logs_and_measures_them() -> None:
    def parts(outputs: Tensor, targets: Tensor) -> tuple[Tensor, dict[str, Any]]:
        loss = F.cross_entropy(outputs, targets)
        return loss, {"size": outputs.abs().mean(), "factor": 0.5, "note": "text"}

    objective = Objective(Net(), LossTask(parts))
    loss, logs = objective.loss((X, Y))
    assert isinstance(loss, Tensor)
    assert loss.item() == CROSS_ENTROPY.item()
    assert (logs["size"].item(), logs["factor"], logs["note"]) == (LOGITS.abs().mean().item(), 0.5, "text")
    expected = {"loss": CROSS_ENTROPY.item(), "size": LOGITS.abs().mean().item(), "factor": 0.5}
    assert means_of(objective, (X, Y)) == expected


def test_a_model_with_its_own_loss_is_measured_by_the_task_too() -> None:
    measured = means_of(Objective(HuggingFaceLike(), Classification()), {"pixels": X, "labels": Y})
    accuracy = (LOGITS.argmax(dim=1) == Y).float().mean().item()
    assert measured == {"loss": CROSS_ENTROPY.item(), "accuracy": accuracy}


def test_a_step_may_take_the_index_of_the_batch() -> None:
    class Counting(Base):
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[int] = []

        def training_step(self, batch: Tensor, index: int) -> Tensor:
            self.seen.append(index)
            return self.layer(batch).mean()  # type: ignore[no-any-return]

    model = Counting()
    Trainer(max_epochs=2, device="cpu").fit(
        model, Batches([X, X, X]), optimizer=torch.optim.SGD(model.parameters(), lr=0.1)
    )
    assert model.seen == [0, 1, 2, 0, 1, 2]


REFUSED = {
    "non-scalar": r"training_step returned float32 \(8, 3\); a loss is a scalar tensor\.",
    "float": r"training_step returned float; a loss is a scalar tensor\.",
    "nothing": r"training_step returned NoneType; a loss is a scalar tensor\.",
    "detached": r"training_step returned a loss without a gradient; it may have been detached",
    "no key": r"training_step returned a dict with nll, part; it needs 'loss'\.",
}


@pytest.mark.parametrize("form", REFUSED)
def test_what_is_no_loss_is_refused_with_the_batch_and_the_signature(form: str) -> None:
    with pytest.raises(RunError, match=f"^{REFUSED[form]}") as refused:
        fit(Stepping(form), (X, Y))
    assert refused.value.__notes__ == [
        "step 1: the batch is (float32 (8, 4), int64 (8,)); the model is Stepping.training_step(batch)"
    ]


def test_a_loss_function_that_returns_no_scalar_is_refused_by_its_name() -> None:
    def per_sample(outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets, reduction="none")

    with pytest.raises(RunError, match=r"per_sample returned float32 \(8,\); a loss is a scalar tensor\."):
        fit(Net(), (X, Y), loss=per_sample)


def test_a_model_of_a_loss_that_has_no_gradient_is_refused() -> None:
    class Frozen(ReturnsLoss):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return super().forward(x, y).detach()

    with pytest.raises(RunError, match=r"^Frozen\.forward returned a loss without a gradient"):
        fit(Frozen(), (X, Y))


def test_what_torch_says_of_a_batch_that_does_not_fit_gets_shapes_and_signature() -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied") as refused:
        fit(Net(), (X[:, :3], Y), loss="cross_entropy")
    assert refused.value.__notes__ == [
        "step 1: the batch is (float32 (8, 3), int64 (8,)); the model is Net.forward(x, scale=1.0), and the loss "
        "is cross_entropy"
    ]


@pytest.mark.parametrize(
    ("batch", "told"),
    [
        (
            (X, Y),
            "the batch is (float32 (8, 4), int64 (8,)); the model is Linear.forward(input); there is no loss. ",
        ),
        (
            {"input": X, "label": Y},
            "the batch is {input: float32 (8, 4), label: int64 (8,)}; the model is Linear.forward(input); it does "
            "not take label, and there is no loss. ",
        ),
        (X, "Linear.forward returned float32 (8, 3); a loss is a scalar tensor. "),
        ((X,), "Linear.forward returned float32 (8, 3); a loss is a scalar tensor. "),
    ],
)
def test_without_any_loss_the_ways_to_give_one_are_told(batch: Any, told: str) -> None:
    with pytest.raises(RunError) as refused:
        fit(linear(), batch)
    assert str(refused.value) == (
        f"{told}Give a loss (`loss=` or a task), a model with a method loss(outputs, targets) or "
        "training_step(batch), or one whose forward takes the whole batch and returns its loss."
    )


def test_a_model_with_a_training_step_alone_is_evaluated_by_it() -> None:
    model = Stepping()
    result = fit(model, (X, Y), val=Batches([(X, Y)]))
    with torch.no_grad():
        loss = model.training_step((X, Y))
    assert result.last["val/loss"] == pytest.approx(float(loss))


def test_keys_that_the_model_does_not_take_are_named() -> None:
    with pytest.raises(
        RunError, match=r"; it does not take image, mask\. The keys of a batch are the model's"
    ):
        fit(TwoInputs(), {"image": X, "mask": X, "label": Y}, loss="cross_entropy")


def test_a_batch_of_fewer_items_than_the_model_needs_is_refused() -> None:
    with pytest.raises(
        RunError, match=r"TwoInputs\.forward\(x, shift, \*, scale=1\.0\).*; it needs more than"
    ):
        fit(TwoInputs(), (X,), loss="mse_loss")


def test_a_loss_and_a_model_that_computes_its_own_contradict_one_another() -> None:
    with pytest.raises(ConfigError, match=r"fit got a loss, but Stepping\.training_step computes its own"):
        fit(Stepping(), (X, Y), loss="cross_entropy")
    with pytest.raises(ConfigError, match=r"fit got both loss and task"):
        fit(Net(), (X, Y), loss="cross_entropy", task=Classification())


def test_an_unknown_name_of_a_loss_is_told_with_the_nearest() -> None:
    with pytest.raises(ConfigError) as refused:
        fit(Net(), (X, Y), loss="crossentropy")
    assert str(refused.value) == (
        "there is no loss 'crossentropy' in torch.nn.functional. Did you mean 'cross_entropy'?"
    )


@pytest.mark.parametrize("name", ["cross_entropy", "mse_loss", "l1_loss", "huber_loss", "smooth_l1_loss"])
def test_a_loss_is_found_by_its_name_in_torch(name: str) -> None:
    targets = Y if name == "cross_entropy" else LOGITS.flip(0)
    assert torch.equal(loss_of(Net(), (X, targets), name), getattr(F, name)(LOGITS, targets))


def test_logs_of_any_kind_reach_the_hooks_as_they_are_and_no_step_keeps_the_last_ones_graph() -> None:
    graphs: list[weakref.ref[Tensor]] = []

    class Logging(Base):
        def training_step(self, batch: Tensor) -> tuple[Tensor, dict[str, Any]]:
            hidden = self.layer(batch)
            loss = hidden.square().mean()
            graphs.append(weakref.ref(hidden))
            return loss, {
                "loss": loss,
                "int": 1,
                "tensor": hidden.mean(),
                "text": "a",
                "none": None,
                "bool": True,
            }

    class Keeping:
        def __init__(self) -> None:
            self.reports: list[StepReport] = []
            self.num_alive: list[int] = []

        def on_batch_end(self, report: StepReport) -> None:
            self.reports.append(report)
            gc.collect()
            self.num_alive.append(sum(ref() is not None for ref in graphs))

    model, kept = Logging(), Keeping()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    Trainer(max_epochs=1, device="cpu", log_every=1).fit(
        model, Batches([X, X, X]), optimizer=optimizer, hooks=[kept]
    )
    logs: list[Mapping[str, Any]] = [report.logs for report in kept.reports]
    assert [set(log) for log in logs] == [{"loss", "int", "tensor", "text", "none", "bool"}] * 3
    assert [(log["int"], log["text"], log["none"], log["bool"]) for log in logs] == [(1, "a", None, True)] * 3
    assert not any(log[name].requires_grad for log in logs for name in ("loss", "tensor"))
    assert kept.num_alive == [0, 0, 0]
