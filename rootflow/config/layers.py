"""What composing starts from: a config in conf/, and configs given as a whole, in Python or by `--config`.

A config given as a whole takes the place of values and choices in the shipped conf/rootflow.yaml, on which
every config builds. So the order is: signature < Python < the project's config.yaml < experiment < command
line; and `--config` takes the place of config.yaml, so that it comes after Python and before an experiment.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from omegaconf._utils import get_yaml_loader

from rootflow.config.folders import BASE, display_path, find_config
from rootflow.config.origin import PRIMARY_RANK, ConfigText, find_line
from rootflow.config.plain_yaml import parse_yaml, read_yaml
from rootflow.errors import ConfigError
from rootflow.registry import GROUPS

START = "(start)"
"""What Hydra calls the config that it composes first: the primary config, then the experiment."""

PRIMARY = "(config)"
"""What Hydra calls a layer that builds on other configs itself."""


@dataclass(frozen=True)
class Layer:
    """One config given as a whole."""

    label: str
    """`Python`, or the file as typed."""
    values: Mapping[str, Any]
    text: str | None = None
    """The YAML, for line numbers."""
    choices: Mapping[str, Any] = field(init=False)
    """By group: the name of an option, or a component's whole node."""

    def __post_init__(self) -> None:
        """Tell choices from values."""
        chosen = {
            key: value
            for key, value in self.values.items()
            if key in (*GROUPS, "experiment") and (not isinstance(value, Mapping) or _is_component(value))
        }
        object.__setattr__(self, "choices", chosen)

    @property
    def option(self) -> str:
        """What Hydra calls a component that the layer describes itself; no file has such a name."""
        return "(python)" if self.text is None else "(file)"

    @property
    def is_primary(self) -> bool:
        """Whether it is a config in Hydra's sense, which says by itself what it builds on."""
        return self.text is not None and "defaults" in self.values


@dataclass(frozen=True)
class Start:
    """What composing starts from."""

    primary: str = "config"
    """A config in conf/; a layer that is a file takes its place."""
    extra: Path | None = None
    """A folder of config files, searched first."""
    layers: tuple[Layer, ...] = ()
    """The overruling last."""

    @property
    def first(self) -> str:
        """What Hydra calls the config that stands before the experiment."""
        files = [layer for layer in self.layers if layer.text is not None]
        if not files:
            return self.primary
        return PRIMARY if files[-1].is_primary else BASE

    def has_own_experiment(self) -> bool:
        """Whether that config says itself where in its `defaults` an experiment comes."""
        last = self.layers[-1].values if self.first == PRIMARY else self.read(self.first)
        entries = last.get("defaults") if isinstance(last, Mapping) else None
        keys = [str(key) for entry in entries or () if isinstance(entry, Mapping) for key in entry]
        return any(key.rpartition(" ")[2].strip("/") == "experiment" for key in keys)

    def read(self, name: str) -> dict[str, Any]:
        """Return a config in conf/ as its file says it; empty where there is none, which Hydra tells.

        Raises:
            ConfigError: it can't be read, or its `defaults` is no list.
        """
        path = find_config(name, self.extra)
        content = read_yaml(path) if path else {}
        if path and not isinstance(content or {}, dict):
            raise ConfigError(f"{display_path(path)}:1 is no mapping of keys to values.")
        if path and not isinstance((content or {}).get("defaults", []), list):
            raise ConfigError(f"{display_path(path)}:1: `defaults` must be a list of configs.")
        return content or {}


def load_layer(given: str | Path) -> Layer:
    """Return the config in a file, or in the folder of a run.

    Raises:
        ConfigError: there is no such file, or it isn't a YAML mapping.
    """
    if not str(given):
        raise ConfigError("--config (command line) names no file.")
    path = Path(given) / "config.yaml" if Path(given).is_dir() else Path(given)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ConfigError(f"--config {path} (command line) can't be read: {reason}.") from error
    return read_layer(display_path(path.absolute()), text)


def read_layer(label: str, text: str) -> Layer:
    """Return the layer that a YAML text is.

    Args:
        label: what to call it in messages, e.g. the file.
        text: a YAML mapping.

    Raises:
        ConfigError: it can't be read as YAML, or isn't a mapping.
    """
    values = parse_yaml(label, text, get_yaml_loader())  # a safe one, and the one that reads conf/
    if not isinstance(values, dict) or not values:
        raise ConfigError(f"{label}:1: holds no config: write `key: value` lines, as `rootflow config` does.")
    for key in values:
        if not isinstance(key, str):
            raise ConfigError(f"{label}: the key {key!r} is not text.")
    _check_defaults(label, values.get("defaults", [BASE]), find_line(text, "defaults") or 1)
    return Layer(label, values, text)


def _check_defaults(label: str, defaults: Any, line: int) -> None:
    """Check that a file with `defaults` builds on something: an experiment, given as --config, doesn't."""
    if not isinstance(defaults, list):
        raise ConfigError(f"{label}:{line}: `defaults` must be a list of configs.")
    names = [next(iter(entry), "") if isinstance(entry, dict) else entry for entry in defaults]
    if all(str(name).startswith("override ") or name == "_self_" for name in names):
        raise ConfigError(
            f"{label}:{line}: its `defaults` override what nothing chose; write `- {BASE}` as the first."
        )


def encoded(start: Start) -> str:
    """Return it as text, which can go to the process of a job."""
    layers = [[layer.label, dict(layer.values), layer.text] for layer in start.layers]
    plain = [start.primary, start.extra and str(start.extra), layers]
    return yaml.safe_dump(plain, sort_keys=False, default_flow_style=True, width=float("inf"))


def decoded(text: str) -> Start:
    """Return what `encoded` wrote."""
    primary, extra, layers = yaml.safe_load(text)
    return Start(primary, Path(extra) if extra else None, tuple(Layer(*fields) for fields in layers))


def served_configs(start: Start) -> dict[str, dict[str, Any]]:
    """Return the configs that Hydra is to find before any file, by their path in conf/."""
    base = {"defaults": [], **start.read(BASE)}
    served: dict[str, dict[str, Any]] = {}
    experiment: list[Any] = [] if start.has_own_experiment() else [{"experiment": None}]
    for layer in start.layers:
        if layer.is_primary:
            served[PRIMARY] = dict(layer.values)
            continue
        for group, choice in layer.choices.items():
            if isinstance(choice, Mapping):
                served[f"{group}/{layer.option}"] = dict(choice)
            option = layer.option if isinstance(choice, Mapping) else choice
            _choose(experiment if group == "experiment" else base["defaults"], group, option)
        _merge(base, {k: v for k, v in layer.values.items() if k not in layer.choices})
    served[START] = {"defaults": [start.first, "_self_", *experiment]}
    return {**served, BASE: base} if start.layers else served


def texts_of(layers: Sequence[Layer], path: str) -> Iterator[ConfigText]:
    """Return what the layers said in a config that `served_configs` served."""
    group, _, option = path.rpartition("/")
    for layer in layers:
        said: Mapping[str, Any] = {}
        if layer.is_primary:
            said = layer.values if path == PRIMARY else {}
        elif path == BASE:
            said = {k: v for k, v in layer.values.items() if not isinstance(layer.choices.get(k), Mapping)}
        elif option == layer.option:
            said = {group: layer.values[group]}
        if said:
            yield ConfigText(PRIMARY_RANK, label=layer.label, given=said, given_text=layer.text)


def place_of_choice(layers: Sequence[Layer], group: str, option: str) -> str | None:
    """Return the place where a config given as a whole chooses an option by its name."""
    for layer in layers:
        if not layer.is_primary and str(layer.choices.get(group)) == option:
            line = find_line(layer.text, group) if layer.text else None
            return f"{layer.label}:{line}" if line else layer.label
    return None


def _choose(defaults: list[Any], group: str, option: Any) -> None:
    for position, entry in enumerate(defaults):
        if isinstance(entry, dict) and group in entry:
            defaults[position] = {group: option}
            return
    defaults.insert(0, {group: option})


def _merge(below: dict[str, Any], above: Mapping[str, Any]) -> None:
    for key, value in above.items():
        if isinstance(value, Mapping) and isinstance(below.get(key), dict):
            _merge(below[key], value)
        else:
            below[key] = value


def _is_component(node: Mapping[str, Any]) -> bool:
    return "name" in node or "_target_" in node
