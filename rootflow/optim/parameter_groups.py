"""Which parameters weight decay is for, and parts of a model that are trained otherwise than the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import nn
from torch.optim import LBFGS, Optimizer

from rootflow.errors import ConfigError, did_you_mean
from rootflow.limits import Epochs, NonNegativeFloat, PositiveFloat

_SPARED = (nn.Embedding, nn.EmbeddingBag, nn.LayerNorm, nn.RMSNorm)
"""Modules whose parameters may have several dimensions and yet aren't decayed."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """How a part of a model's parameters is trained.

    Raises:
        ValueError: it says two things about when they are trained.
    """

    lr_scale: PositiveFloat = 1.0
    """factor on the learning rate"""
    weight_decay: NonNegativeFloat | None = None
    """instead of the optimizer's; biases, norms and embeddings are spared as ever; null: the optimizer's"""
    frozen: bool = False
    """whether they are never trained"""
    unfreeze_at: Epochs | None = None
    """epoch from whose start on they are trained; null: from the first one on"""
    freeze_at: Epochs | None = None
    """epoch from whose start on they no longer are; null: never"""

    def __post_init__(self) -> None:
        if self.frozen and (self.unfreeze_at or self.freeze_at):
            raise ValueError("frozen is for good; leave out unfreeze_at and freeze_at, or frozen")
        if self.unfreeze_at is not None and self.unfreeze_at == self.freeze_at:
            raise ValueError(f"unfreeze_at and freeze_at are both {self.freeze_at}; leave one out")

    def is_trained_in(self, epoch: int) -> bool:
        """Whether the parameters are trained in an epoch; the first one is 1."""
        has_begun = self.unfreeze_at is None or epoch >= self.unfreeze_at
        has_ended = self.freeze_at is not None and epoch >= self.freeze_at
        if self.unfreeze_at and self.freeze_at and self.freeze_at < self.unfreeze_at:
            return not self.frozen and (has_begun or not has_ended)  # a pause
        return not self.frozen and has_begun and not has_ended


def parameter_groups(model: nn.Module, *, weight_decay: float) -> list[dict[str, Any]]:
    """Return the groups that a torch optimizer takes: decayed weights, then all the rest.

    Decay is for matrices and kernels, parameters of more than one dimension. Biases, scalars, norms
    and embeddings are in the other group, with decay 0. (In the ResNet-50 recipe of torchvision,
    sparing the norms and tuning the decay is worth 0.5 points on ImageNet.) Frozen parameters are left
    out, a parameter shared by two modules comes once, and a group without parameters isn't there.
    """
    spared = _spared(model)
    trainable = [p for p in model.parameters() if p.requires_grad]
    decayed = [p for p in trainable if id(p) not in spared]
    others = [p for p in trainable if id(p) in spared]
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def split_groups(optimizer: Optimizer, model: nn.Module, groups: Mapping[str, Group]) -> None:
    """Divide an optimizer's parameter groups, so that each part of the model has its own settings.

    What no pattern matches comes first. Parameters that are frozen for good leave the optimizer, those
    that are trained later are in it from the start. To be called before the first update, and before a
    scheduler is made.

    Args:
        optimizer: over the model's parameters, in whatever groups.
        model: the one it was made for.
        groups: by patterns, see `match_groups`.

    Raises:
        ConfigError: a pattern matches no parameter, or the optimizer can't do what a group asks.
    """
    if isinstance(optimizer, LBFGS):
        raise ConfigError("optimizer.groups: LBFGS moves all parameters as one; leave the groups out.")
    chosen = {id(p): pattern for pattern, found in match_groups(model, groups).items() for p in found}
    spared = _spared(model)
    parts: list[dict[str, Any]] = []
    for pattern in (None, *groups):
        group = Group() if pattern is None else groups[pattern]
        for settings in optimizer.param_groups:
            own = [p for p in settings["params"] if chosen.get(id(p)) == pattern]
            if group.frozen:
                _forget(optimizer, own)
            else:
                parts += _parts(settings | {"params": own}, group, spared, f"optimizer.groups.{pattern}")
    if not parts:
        raise ConfigError("optimizer.groups: every parameter is frozen; nothing is left to train.")
    optimizer.param_groups.clear()  # the list itself stays: an optimizer around another one may share it
    for part in parts:
        optimizer.add_param_group(part)


def match_groups(model: nn.Module, groups: Mapping[str, Group]) -> dict[str, list[nn.Parameter]]:
    """Return the parameters of each group; those of none are left out.

    A pattern is for the whole name of a parameter, as `fnmatch` has it: `backbone.*` is all of a backbone,
    `*.bias` every bias. Where several match, the last one decides.

    Raises:
        ConfigError: a pattern matches no parameter.
    """
    named = [*model.named_parameters(remove_duplicate=False)]
    decided: dict[int, tuple[str, nn.Parameter]] = {}
    for pattern in groups:
        matched = [p for name, p in named if fnmatchcase(name, pattern)]
        if not matched:
            raise ConfigError(_no_match(pattern, [name for name, _ in named]))
        decided |= {id(p): (pattern, p) for p in matched}
    return {pattern: [p for last, p in decided.values() if last == pattern] for pattern in groups}


def _no_match(pattern: str, names: list[str]) -> str:
    modules = dict.fromkeys(f"{name.rpartition('.')[0]}.*" for name in names if "." in name)
    tops = dict.fromkeys(f"{name.partition('.')[0]}.*" for name in names if "." in name)
    near = did_you_mean(pattern, [*tops, *modules, *names])
    some = ", ".join([*names[:6], *(["..."] if len(names) > 6 else [])])
    return f"optimizer.groups.{pattern} matches no parameter of the model.{near} There are {some}."


def _parts(settings: dict[str, Any], group: Group, spared: set[int], key: str) -> list[dict[str, Any]]:
    """Return one of the optimizer's groups as a group of ours has it, weight decay apart."""
    own, changed = settings["params"], dict(settings)
    changed.pop("param_names", None)
    if group.lr_scale != 1.0:
        changed["lr"] = _taken(settings, "lr", f"{key}.lr_scale") * group.lr_scale
    if group.weight_decay is None:
        return [changed] if own else []
    _taken(settings, "weight_decay", f"{key}.weight_decay")
    decayed = changed | {
        "params": [p for p in own if id(p) not in spared],
        "weight_decay": group.weight_decay,
    }
    others = changed | {"params": [p for p in own if id(p) in spared], "weight_decay": 0.0}
    return [part for part in (decayed, others) if part["params"]]


def _taken(settings: Mapping[str, Any], name: str, key: str) -> Any:
    if name not in settings:
        raise ConfigError(f"{key} is given, but the optimizer has no {name}; leave it out.")
    return settings[name]


def _forget(optimizer: Optimizer, parameters: list[nn.Parameter]) -> None:
    """Drop what some optimizers, such as Adagrad, keep of a parameter from the start."""
    for parameter in parameters:
        optimizer.state.pop(parameter, None)


def _spared(model: nn.Module) -> set[int]:
    """Return the ids of the parameters that weight decay is not for."""
    whole = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, _SPARED)
        for parameter in module.parameters(recurse=False)
    }
    return whole | {id(p) for p in model.parameters() if p.ndim <= 1}
