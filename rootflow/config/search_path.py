"""How Hydra finds rootflow's config files, and gives each the schema of its component.

A YAML that says `name: resnet` is loaded on top of the defaults in that component's signature. So
every parameter can be overridden although the file doesn't list it, and the composed config
holds every default, while each default is written in one place.

The plugins are registered in the process by `register_plugins`: no entry points, nothing global
at import.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf

from rootflow.config.folders import config_folders
from rootflow.config.schema import bare_components, defaults_of, schema_of


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
        group = Path(config_path).parent.as_posix()
        if super().is_config(config_path):
            result = super().load_config(config_path)
        else:
            config = OmegaConf.create({"name": Path(config_path).stem})
            result = ConfigResult(
                provider=self.provider,
                path=f"{self.scheme()}://{self.path}",
                config=config,
                header={"package": None},
            )
        if isinstance(result.config, DictConfig):
            result.config = _with_defaults(group, result.config)
        return result

    def is_config(self, config_path: str) -> bool:
        """Whether there is a YAML, or a registered component without one."""
        path = Path(config_path)
        return super().is_config(config_path) or path.stem in self._bare(path.parent.as_posix())

    def _bare(self, group: str) -> list[str]:
        return bare_components(group) if self.provider == "rootflow" else []

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """List YAML files and registered components without one."""
        found = super().list(config_path, results_filter) if super().is_group(config_path) else []
        bare = self._bare(config_path) if results_filter in (None, ObjectType.CONFIG) else []
        return sorted({*found, *bare})


def _with_defaults(group: str, config: DictConfig) -> DictConfig:
    node = {key: config._get_node(key) for key in ("name", "_target_") if key in config}
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
        inside = _inside(config_path)
        return [] if inside is None else super().list(inside, results_filter)


def _inside(config_path: str) -> str | None:
    """Return the part below `sweeps/`; None for a path outside of it."""
    group, _, rest = config_path.strip("/").partition("/")
    return rest if group == "sweeps" else None


class RootflowSearchPath(SearchPathPlugin):
    """Puts `--config-dir`, ./conf and the shipped conf in front of Hydra's own main folder."""

    extra: Path | None = None

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Called by Hydra once, before anything is composed."""
        for owner, folder in config_folders("conf", self.extra):
            # each goes right before Hydra's own, and so after the one before
            search_path.prepend(owner, f"rootflow://{folder}", anchor="main")
        for owner, folder in config_folders("sweeps"):
            search_path.append(f"{owner}-sweeps", f"rootflow-sweeps://{folder}")


def register_plugins(extra: Path | None) -> None:
    """Make the sources above known to Hydra in this process.

    Args:
        extra: the folder of `--config-dir`.
    """
    RootflowSearchPath.extra = extra
    plugins: Any = Plugins.instance()
    for plugin in (ComponentSource, SweepsSource, RootflowSearchPath):
        plugins.register(plugin)
