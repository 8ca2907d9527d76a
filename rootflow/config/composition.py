"""What Hydra composes, once for each set of choices; values of the command line go on copies of it.

Composing takes Hydra some 40 ms, laying values over it one or two. A sweep of 200 jobs has few sets of
choices and many values, so its check takes a second instead of half a minute. Hydra's own part of the
config is left out: it is Hydra's to compose when it runs the job.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository
from hydra._internal.defaults_list import create_defaults_list
from hydra.core.default_element import ResultDefault
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from rootflow.config.folders import BASE, display_path, find_config
from rootflow.config.hydra_errors import as_config_errors
from rootflow.config.layers import START, Start, place_of_choice, texts_of
from rootflow.config.origin import (
    EXPERIMENT_RANK,
    OPTION_RANK,
    PRIMARY_RANK,
    ConfigText,
    find_default,
    read_text,
)
from rootflow.registry import GROUPS


@dataclass(frozen=True)
class Composition:
    """A config without the values of the command line, and what it was composed from."""

    cfg: DictConfig
    texts: tuple[ConfigText, ...]
    """The overruling last."""

    def copy(self) -> DictConfig:
        """Return the config, to be changed."""
        return copy.deepcopy(self.cfg)


class Compositions:
    """Compositions by their choices, each made once."""

    def __init__(self, loader: ConfigLoaderImpl, start: Start) -> None:
        self.loader = loader
        self.start = start
        self._asked: tuple[str, ...] = ()
        self.of = functools.lru_cache(maxsize=64)(self._compose)
        self.parse = functools.lru_cache(maxsize=4096)(self._parse)

    def _parse(self, override: str) -> Override:
        """Return an override, read by Hydra's grammar.

        Raises:
            OverrideParseException: it can't be read.
        """
        parser = OverridesParser.create(config_loader=self.loader)  # which knows the options of `glob(*)`
        return parser.parse_overrides([override])[0]

    def _compose(self, choices: tuple[str, ...]) -> Composition:
        """Compose what it starts from with the options that overrides choose, e.g. `model=resnet`."""
        self._asked = choices
        repository = CachingConfigRepository(self.loader.repository)  # composing changes what it holds
        found = create_defaults_list(
            repo=repository,
            config_name=START,
            overrides_list=[self.parse(choice) for choice in choices],
            prepend_hydra=True,
            skip_missing=False,
        )
        own = [default for default in found.defaults if not _is_hydras(default)]
        cfg = self.loader._compose_config_from_defaults_list(defaults=own, repo=repository)
        cfg.pop("hydra", None)
        return Composition(cfg, tuple(text for default in own for text in self._texts(default)))

    def _texts(self, default: ResultDefault) -> Iterator[ConfigText]:
        """Return the file that a config came from, or the layers that it was made of."""
        name = str(default.config_path)
        path = find_config(name, self.start.extra)
        if path is not None:
            yield ConfigText(_rank(name), default.package or "", path)
        yield from texts_of(self.start.layers, name)

    def config_errors(self) -> AbstractContextManager[None]:
        """Turn what Hydra raises into errors that name the place."""
        return as_config_errors(self.start.extra, self.find_choice, self.find_key)

    def find_key(self, name: str, key: str) -> str | None:
        """Return `file:line` of a dotted key in a config, or in what was given as a whole in its place."""
        path = find_config(name, self.start.extra)
        texts = [*texts_of(self.start.layers, name), *([ConfigText(PRIMARY_RANK, path=path)] if path else [])]
        return next((found.place for text in texts if (found := text.find(key)) is not None), None)

    def find_choice(self, group: str, option: str, parent: str) -> str | None:
        """Return `file:line` of where a `defaults` list names an option of a group; any, if it is empty.

        Looked for in the config that Hydra was reading, then in those that were asked for.
        """
        asked = [f"{choice.key_or_group}/{choice.value()}" for choice in map(self.parse, self._asked)]
        for name in (parent, *asked, self.start.first, BASE):
            if name == BASE and (place := place_of_choice(self.start.layers, group, option)):
                return place
            path = find_config(name, self.start.extra)
            layers = [] if path else [(text.label, text.text) for text in texts_of(self.start.layers, name)]
            for label, text in [(display_path(path), read_text(path))] if path else layers:
                line = find_default(text, group, option) if text else None
                if line is not None:
                    return f"{label}:{line}"
        return None


def apply_value(cfg: DictConfig, override: Override) -> None:
    """Set in a config what one override of the command line says, as Hydra does.

    Raises:
        ConfigCompositionException: there is nothing to delete, or a value doesn't go there.
    """
    OmegaConf.set_struct(cfg, value=True)
    ConfigLoaderImpl._apply_overrides_to_config([override], cfg)


def _is_hydras(default: ResultDefault) -> bool:
    path = str(default.config_path)
    return path.startswith(("hydra/", "_dummy_")) or (default.package or "").partition(".")[0] == "hydra"


def _rank(name: str) -> int:
    group = name.rpartition("/")[0]
    if not group:
        return PRIMARY_RANK
    return OPTION_RANK if group in GROUPS else EXPERIMENT_RANK
