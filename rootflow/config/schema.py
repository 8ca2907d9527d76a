"""The typed config, and the schema of each part of it: the signature of the component it names."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rootflow.build import ABOUT, CONFIG_PARAMETERS, OWN_KEYS
from rootflow.config.folders import shipped_folder
from rootflow.errors import ConfigError
from rootflow.registry import GROUPS, NUM_GIVEN, components, find_component
from rootflow.signatures import COMPUTED, REQUIRED, Parameter, Signature, read_signature
from rootflow.sources import definition_path

REDACTED = "[redacted]"
"""What stands for a secret in records; a config read back from one lacks that value."""

MISSING = "???"
"""OmegaConf's mark for a value that must be given."""

FROM_DATA = ("in_channels", "in_features", "input_shape", "num_classes", "class_names", "mean", "std")
"""Parameters of a model that may be `auto`: the data set fills them."""

AUTO_KEYS = {
    "model": FROM_DATA,
    "task": (*FROM_DATA, "target_mean", "target_std"),
    "optimizer": ("lr",),
    "scheduler": (
        *("total_steps", "T_max", "total_iters", "epochs", "steps_per_epoch"),
        *("max_lr", "base_lr", "mode"),
    ),
}
"""Parameters that are `auto` when required and left out, beside those whose type says `Auto`."""

CHOSEN_BY_DATA = ("task",)
"""Groups whose component itself may be `auto`; it then has no keys of its own."""

ALIASES = {
    "lr": "optimizer.lr",
    "epochs": "trainer.max_epochs",
    "steps": "trainer.max_steps",
    "batch_size": "trainer.batch_size",
}
"""Short names of keys that are typed daily; the command line only."""

_LIMITS = {
    "lr": "Annotated[float, Gt(0)]",
    "weight_decay": "Annotated[float, Ge(0)]",
    "momentum": "Annotated[float, Ge(0)]",
}
"""Ranges that the optimizers of torch and rootflow have and their signatures don't say."""

KNOWN_CODE = ("torch.", "rootflow.")
"""How the modules begin of which it is known what they do with a value; a user's may do anything."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """One experiment. Each group is a component's name and the arguments it is built with."""

    model: dict[str, Any]
    dataset: dict[str, Any]
    task: dict[str, Any]
    optimizer: dict[str, Any]
    scheduler: dict[str, Any]
    trainer: dict[str, Any]
    loader: dict[str, Any]
    discover: dict[str, Any]
    tracking: dict[str, Any]
    seed: int
    """Seeds the weights, the order of the samples and their augmentation."""
    name: str | None
    """A name for the run; null makes one from the model and the data set."""
    init_from: str | None = None
    """A run, its folder or a .safetensors file to take the first weights from; null starts anew."""

    def to_dict(self) -> dict[str, Any]:
        """Return the nested plain form."""
        return dataclasses.asdict(self)


SETTINGS = tuple(f.name for f in dataclasses.fields(Config) if f.name not in GROUPS)
"""Top-level keys that aren't groups."""


@dataclass(frozen=True)
class Schema:
    """The keys that one choice in a group has."""

    title: str
    path: Path
    line: int
    doc: str
    parameters: tuple[Parameter, ...]
    accepts_more: bool
    about: tuple[Parameter, ...] = ()
    """Keys that are about the component, not for it; no config has them unless they are given."""

    def find(self, key: str) -> Parameter | None:
        """Return the parameter of that name."""
        return next((p for p in (*self.parameters, *self.about) if p.name == key), None)


def schema_of(group: str, node: Mapping[str, Any]) -> Schema | None:
    """Return the schema of a group's node, or None where the source doesn't tell.

    The keys of a component that takes one dataclass are that dataclass's fields.

    Args:
        group: e.g. `model`.
        node: has `name` (a registered component) or `_target_` (a dotted path).
    """
    if group in CHOSEN_BY_DATA and node.get("name") == "auto":
        path = shipped_folder("conf") / group / "auto.yaml"
        return Schema(f"{group}=auto", path, 1, "Chosen when the data is known.", (), accepts_more=False)
    signature = _signature_of(group, node) if group in GROUPS else None
    if signature is None:
        return None
    own = signature.parameters[NUM_GIVEN.get(group, 0) :]
    is_flat = len(own) == 1 and is_one_dataclass(own[0])
    taken = (own[0].fields or ()) if is_flat else own
    return Schema(
        title=definition_path(signature.module, signature.qualname),
        path=signature.path,
        line=signature.line,
        doc=signature.doc,
        parameters=tuple(_completed(group, signature.module, p) for p in taken),
        accepts_more=signature.accepts_more and not is_flat,
        about=tuple(p for p in about_keys(group) if p.name not in {own.name for own in taken}),
    )


def about_keys(group: str) -> tuple[Parameter, ...]:
    """Return the keys that any component of a group may have, about it; see `rootflow.build.ABOUT`."""
    module, _, name = ABOUT.get(group, "").rpartition(".")
    signature = read_signature(module, name) if module else None
    return signature.parameters if signature is not None else ()


def defaults_of(schema: Schema) -> dict[str, Any]:
    """Return every key with its default; what must be given, or is computed, is `???`."""
    return {p.name: default_of(p) for p in schema.parameters}


def bare_components(group: str) -> list[str]:
    """Return the names that a project registered in a group without writing a YAML for them."""
    if group not in GROUPS:
        return []
    return [name for name, found in components(group).items() if found.is_users and not found.is_spelling]


def is_auto_key(group: str, key: str) -> bool:
    """Whether rootflow can fill this key of the group itself."""
    return key in AUTO_KEYS.get(group, ())


def _signature_of(group: str, node: Mapping[str, Any]) -> Signature | None:
    target, name = node.get("_target_"), node.get("name")
    if isinstance(target, str):
        module, _, qualname = target.rpartition(".")
        return read_signature(module, qualname) if module else None
    if not isinstance(name, str):
        return None
    try:
        return find_component(group, name).signature()
    except ConfigError:
        return None  # reported by the check, with the place where the name was given


def is_one_dataclass(parameter: Parameter) -> bool:
    """Whether a component's only parameter stands for its fields: as `build.taken_dataclass` says it."""
    is_all = parameter.default is REQUIRED or parameter.name in CONFIG_PARAMETERS
    return is_all and parameter.fields is not None and not any(p.name in OWN_KEYS for p in parameter.fields)


def _completed(group: str, module: str, parameter: Parameter) -> Parameter:
    if group == "optimizer" and module.startswith(KNOWN_CODE) and parameter.name in _LIMITS:
        limits = ast.parse(_LIMITS[parameter.name], mode="eval").body
        parameter = dataclasses.replace(parameter, annotation=limits)
    if parameter.default is REQUIRED and is_auto_key(group, parameter.name):
        return dataclasses.replace(parameter, default="auto")
    return parameter


def default_of(parameter: Parameter) -> Any:
    """Return the default of one key; `???` for one that must be given, or is computed."""
    if parameter.fields is not None and parameter.default is not None:
        return {p.name: default_of(p) for p in parameter.fields}
    return MISSING if parameter.default in (REQUIRED, COMPUTED) else parameter.default
