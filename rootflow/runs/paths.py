"""Where everything lies in a run folder: the one place that knows the file names."""

from __future__ import annotations

from pathlib import Path


class RunPaths:
    """The paths in one run folder; none of them is made or looked at here."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"

    @property
    def id(self) -> str:
        """The run's id, which is its folder's name."""
        return self.path.name

    @property
    def run_json(self) -> Path:
        """The summary; its fields are those of `rootflow.runs.record.RunFields`."""
        return self.path / "run.json"

    @property
    def lock(self) -> Path:
        """An empty file that the run's process holds locked (flock) while it lives."""
        return self.path / "run.lock"

    @property
    def config_yaml(self) -> Path:
        """The config as asked for, interpolations resolved, every default included; `auto` stays `auto`."""
        return self.path / "config.yaml"

    @property
    def metrics_jsonl(self) -> Path:
        """One JSON object a line, in the order logged; null stands for NaN and the infinities.

        `metrics.cut-<n>.jsonl` beside it are rows that a resumed run took back, and logged anew.
        """
        return self.path / "metrics.jsonl"

    @property
    def timing_jsonl(self) -> Path:
        """How fast it went, by step; apart, so that equal trainings have equal metrics.jsonl."""
        return self.path / "timing.jsonl"

    @property
    def output_log(self) -> Path:
        """All that was printed, warnings and tracebacks too."""
        return self.path / "output.log"

    @property
    def git_patch(self) -> Path:
        """What was not committed, for `git apply`; absent when everything was."""
        return self.path / "git.patch"

    @property
    def plots_dir(self) -> Path:
        """Pictures of what was measured, as PNG; absent where nothing was."""
        return self.path / "plots"

    @property
    def checkpoints_dir(self) -> Path:
        """Weights to use, and states to resume from."""
        return self.path / "checkpoints"
