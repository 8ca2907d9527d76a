"""How Hydra finds rootflow's config files, and gives each the schema of its component.

A YAML that says `name: resnet` is loaded on top of the defaults in that component's signature. So
every parameter can be overridden although the file doesn't list it, and the composed config
holds every default, while each default is written in one place.

The plugins are registered in the process by `register_plugins`: no entry points, nothing global
at import.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rootflow.build import COMPONENT_KEYS
from rootflow.config.folders import config_folders, display_path
from rootflow.config.layers import Start, decoded, encoded, served_configs
from rootflow.config.origin import find_line
from rootflow.config.schema import bare_components, defaults_of, schema_of
from rootflow.errors import ConfigError
from rootflow.registry import is_component


class ComponentSource(FileConfigSource):
    """A folder of config groups whose options name components.

    The shipped folder also serves a project's registered components that no file names: `model=mynet`
    needs a YAML only to say something about it.
    """

    @staticmethod
    def scheme() -> str:
        """Return the prefix of such folders in Hydra's search path."""
        return "rootflow"

    def load_config(self, config_path: str) -> ConfigResult:
        """Load a YAML; put the defaults of the component that it names under what it says."""
        group, _, option = config_path.rpartition("/")
        if super().is_config(config_path):
            with _naming(Path(self.path, f"{config_path}.yaml")):
                result = super().load_config(config_path)
        else:
            config = OmegaConf.create({"name": option})
            result = ConfigResult(
                provider=self.provider,
                path=f"{self.scheme()}://{self.path}",
                config=config,
                header={"package": None},
            )
        if isinstance(result.config, DictConfig):
            defaults = result.config._get_node("defaults") if "defaults" in result.config else None
            if defaults is not None and not OmegaConf.is_list(defaults):
                path = display_path(Path(self.path, f"{config_path}.yaml"))
                raise ConfigError(f"{path}:1: `defaults` must be a list of configs.")
            result.config = _with_defaults(group, result.config)
        return result

    def is_config(self, config_path: str) -> bool:
        """Whether there is a YAML, or a component that can do without one: registered, or an import path."""
        group, _, option = config_path.rpartition("/")
        return super().is_config(config_path) or (self.provider == "rootflow" and is_component(group, option))

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """List YAML files and registered components without one."""
        found = super().list(config_path, results_filter) if super().is_group(config_path) else []
        is_asked = self.provider == "rootflow" and results_filter in (None, ObjectType.CONFIG)
        return sorted({*found, *(bare_components(config_path) if is_asked else ())})


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Say in which file an interpolation can't be read."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise ConfigError(f"{display_path(path)}:1 can't be read: it is not UTF-8 text.") from error
    except OmegaConfBaseException as error:
        key = str(getattr(error, "full_key", None) or "")
        line = find_line(path.read_text(encoding="utf-8"), key) if key else None
        place = f"{display_path(path)}:{line or 1}"
        raise ConfigError(f"{place}: {key} can't be read: {str(error).splitlines()[0]}.") from error


def _with_defaults(group: str, config: DictConfig) -> DictConfig:
    node = {key: config._get_node(key) for key in COMPONENT_KEYS if key in config}
    schema = schema_of(group, {key: getattr(n, "_value", lambda: None)() for key, n in node.items()})
    if schema is None:
        return config
    merged = OmegaConf.merge(defaults_of(schema), config)
    assert isinstance(merged, DictConfig)
    return merged


class SweepsSource(FileConfigSource):
    """Serves a folder `sweeps/` as the config group `sweeps`, and nothing else in it."""

    @staticmethod
    def scheme() -> str:
        """Return the prefix of such folders in Hydra's search path."""
        return "rootflow-sweeps"

    def load_config(self, config_path: str) -> ConfigResult:
        """Load `sweeps/<name>`."""
        with _naming(Path(self.path, f"{_inside(config_path)}.yaml")):
            return super().load_config(_inside(config_path) or "")

    def available(self) -> bool:
        """Whether the folder exists."""
        return Path(self.path).is_dir()

    def is_group(self, config_path: str) -> bool:
        """Whether the path is the root or the group `sweeps`."""
        inside = _inside(config_path)
        return not config_path.strip("/") or (inside is not None and super().is_group(inside))

    def is_config(self, config_path: str) -> bool:
        """Whether the path is a sweep file."""
        inside = _inside(config_path)
        return bool(inside) and super().is_config(inside or "")

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """List the group in the root, or the sweep files in the group."""
        if not config_path.strip("/"):
            return ["sweeps"] if results_filter in (None, ObjectType.GROUP) else []
        if _inside(config_path) is None or results_filter is ObjectType.GROUP:
            return []
        return sorted(path.stem for path in Path(self.path).glob("*.yaml"))


def _inside(config_path: str) -> str | None:
    """Return the part below `sweeps/`; None for a path outside of it."""
    group, _, rest = config_path.strip("/").partition("/")
    return rest if group == "sweeps" else None


class LayerSource(ConfigSource):
    """Serves what composing starts from. That is its path, so that it can go to other processes."""

    provider_name = "given"

    def __init__(self, provider: str, path: str) -> None:
        super().__init__(provider=provider, path=path)
        self.served = served_configs(decoded(self.path))

    @staticmethod
    def scheme() -> str:
        """Return the prefix of such sources in Hydra's search path."""
        return "rootflow-given"

    def load_config(self, config_path: str) -> ConfigResult:
        """Return a config, over the defaults of the component that it names."""
        config = OmegaConf.create(self.served[config_path])
        group = Path(config_path).parent.as_posix()
        return ConfigResult(
            provider=self.provider,
            path=f"{self.scheme()}://",
            config=_with_defaults(group, config),
            header={"package": None},
        )

    def available(self) -> bool:
        """Always: there is no folder that could be missing."""
        return True

    def is_group(self, config_path: str) -> bool:
        """Whether the path is the root; groups are known by their folders."""
        return not config_path.strip("/")

    def is_config(self, config_path: str) -> bool:
        """Whether it was given."""
        return config_path in self.served

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:  # noqa: ARG002
        """List nothing: what was given isn't there to be chosen by name."""
        return []


class RootflowSearchPath(SearchPathPlugin):
    """Puts `--config-dir`, ./conf and the shipped conf in front of Hydra's own main folder."""

    start: ClassVar[Start] = Start()

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Called by Hydra once, before anything is composed."""
        search_path.prepend(LayerSource.provider_name, f"{LayerSource.scheme()}://{encoded(self.start)}")
        for owner, folder in config_folders("conf", self.start.extra):
            # each goes right before Hydra's own, and so after the one before
            search_path.prepend(owner, f"rootflow://{folder}", anchor="main")
        for owner, folder in config_folders("sweeps"):
            search_path.append(f"{owner}-sweeps", f"rootflow-sweeps://{folder}")


def register_plugins(start: Start) -> None:
    """Make the sources above known to Hydra in this process, and what it is to start from."""
    RootflowSearchPath.start = start
    plugins: Any = Plugins.instance()
    for plugin in (ComponentSource, SweepsSource, LayerSource, RootflowSearchPath):
        plugins.register(plugin)
