"""Going on with a run, in its own folder: from its newest whole checkpoint, as if it had never stopped.

Where that isn't so (other code, another machine, a setting that was changed) it is said, with the reasons, on
the console and in run.json. The run's lock is held from before the first look to the end.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import socket
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rootflow.assemble import Training, check_components, data_record, load_data
from rootflow.checkpoint import Checkpoint, Checkpoints
from rootflow.config.compose import open_composer
from rootflow.config.layers import read_layer
from rootflow.config.overrides import read_overrides
from rootflow.config.plain_yaml import to_yaml
from rootflow.config.schema import Config
from rootflow.errors import ConfigError, RunError
from rootflow.experiment import Prepare, RunResult, train_in
from rootflow.registry import open_project
from rootflow.runs.find import resolve_run
from rootflow.runs.record import ResumeFields, RunRecord, read_run
from rootflow.runs.resume_rules import (
    Judgement,
    asked_config,
    data_differences,
    environment_reasons,
    find_limit,
    judge,
    patch_without,
    with_found,
)
from rootflow.runs.text import escape
from rootflow.tracking.console import Console
from rootflow.tracking.provenance import collect_provenance
from rootflow.tracking.run_folder import RunFolder, as_json
from rootflow.tracking.run_lock import RunLock
from rootflow.train.going_on import (
    is_level,
    was_evaluated_early,
    with_best_on_disk,
    with_settings,
    without_end,
)
from rootflow.train.precision import gpu_names

_LENGTHS = ("total_steps", "total_iters", "T_max", "epochs")
"""Keys of a scheduler that follow the length of the training."""


def resume(
    run: str | Path,
    *,
    overrides: Sequence[str] = (),
    allow: Collection[str] = (),
    root: str | Path = "runs",
) -> RunResult:
    """Go on with a run in its own folder, and in the same run on W&B.

    Its config is the one that it has, with all that it found out, so that nothing is searched again.

    Args:
        run: its folder, its id, the beginning or end of that, or `latest`.
        overrides: what is to be different, in Hydra's grammar.
        allow: keys that may be different though they change the training; `dataset` for other data.
        root: where runs are looked for.

    Raises:
        ConfigError: an override is wrong or not permitted, or the run has reached its length.
        RunError: the run is alive, corrupt, or has no checkpoint.
        CheckpointError: every checkpoint is damaged.
        RootflowError: going on failed; run.json says so. After those above it is as it was.
    """
    if isinstance(overrides, str) or isinstance(allow, str):
        raise ConfigError("overrides and allow must be lists, as ['trainer.max_epochs=40'].")
    open_project(Path.cwd())
    path = resolve_run(str(run), Path(root))
    record = read_run(path)
    if record.is_corrupt:
        raise RunError(f"The run {escape(str(path))} can't be resumed, it is {escape(record.status)}.")
    with contextlib.ExitStack() as held:
        lock = RunLock(record.paths)
        held.callback(lock.release)
        plan = _plan(read_run(path), overrides, allow)
        data = load_data(plan.config)
        plan.add_data_reasons(data_record(*data), allow)
        folder = RunFolder.resume(path, metrics_bytes=plan.metrics_bytes, lock=lock)
        held.pop_all()  # the folder lets go of the lock
    with folder:
        return train_in(folder, plan.config, data, prepare=plan.prepare_in(folder), sweep=_sweep_of(path))


@dataclass
class _Plan:
    """How a run is to go on."""

    record: RunRecord
    config: Config
    judgement: Judgement
    checkpoint: Checkpoint
    """Its state is that to go on from."""
    reasons: list[str]
    """Why it isn't as if the run had never stopped."""

    @property
    def metrics_bytes(self) -> int:
        recorder = self.checkpoint.state["hooks"].get("Recorder", {})
        return int(recorder.get("metrics_bytes", 0))

    def add_data_reasons(self, present: Mapping[str, Any], allow: Collection[str]) -> None:
        """Compare the data with that of the run's beginning.

        Raises:
            ConfigError: it is other data, which wasn't allowed.
        """
        found = data_differences(self.record.summary["dataset"], json.loads(json.dumps(as_json(present))))
        if found and "dataset" not in allow:
            raise ConfigError(
                f"the data set is another than that of the run: {'; '.join(found)}. If that is wanted: "
                f"rootflow resume {self.record.paths.path} --allow dataset"
            )
        self.reasons += [f"the data set: {difference}" for difference in found]

    def prepare_in(self, folder: RunFolder) -> Prepare:
        """Return what `train_in` calls when everything is built."""

        def prepare(training: Training, console: Console) -> Checkpoint:
            state, reasons = _state_for(training, self, folder)
            self.reasons += reasons
            _record(folder, self)
            _tell(console, self)
            return dataclasses.replace(self.checkpoint, state=state)

        return prepare


def _plan(record: RunRecord, overrides: Sequence[str], allow: Collection[str]) -> _Plan:
    """Decide everything that needs neither the data nor the folder."""
    summary, path = record.summary, record.paths.path
    found = summary["discovered"]
    asked = asked_config(summary)
    config = Config(**with_found(_composed(asked, path, overrides).to_dict(), found))
    before = with_found(_composed(asked, path, ()).to_dict(), found) if overrides else config.to_dict()
    judgement = judge(before, config.to_dict(), run=str(path), allow=allow)
    check_components(config)
    checkpoint = _checkpoint(record, config, judgement)
    reasons = [*judgement.reasons, *_environment_reasons(record, config)]
    return _Plan(record, config, judgement, checkpoint, reasons)


def _composed(asked: Mapping[str, Any], path: Path, overrides: Sequence[str]) -> Config:
    layer = read_layer(f"{path}/config.yaml", to_yaml(asked))
    with open_composer(layers=[layer]) as composer:
        return composer.compose(composer.reader.expanded(read_overrides(overrides, environ={})))


def _checkpoint(record: RunRecord, config: Config, judgement: Judgement) -> Checkpoint:
    """Return the checkpoint to go on from, its end taken back if the run is to be longer than it was.

    Where the learning rate has fallen, or falls for a time that is no longer near, it is the one from before,
    labelled `stable`. A run that ended by patience goes on from there; one whose time was up only with more.

    Raises:
        ConfigError: the run has reached its length, and is not to be longer.
        RunError: there is none.
    """
    path = record.paths.path
    checkpoints = Checkpoints(record.paths.checkpoints_dir)
    newest = checkpoints.load()
    if newest is None:
        raise RunError(
            f"The run {escape(str(path))} has no checkpoint to go on from. Start it anew: "
            f"rootflow train --config {escape(str(path))}"
        )
    progress = {**newest.state["progress"], "elapsed_s": newest.state["clock"]["elapsed_s"]}
    is_time_raised = _is_time_raised(judgement)
    if not progress["stop_reason"] and not (is_time_raised and progress["decay_reason"] == "max_time"):
        return newest
    limit = find_limit(progress, config.trainer, is_time_raised=is_time_raised)
    if record.status != "finished" and limit:
        return newest  # only the test was left
    if limit:
        raise ConfigError(f"the run {path} has ended ({progress['stop_reason']}): {limit}.")
    if "cooled down" not in progress["stop_reason"] and progress["decay_reason"] != "max_time":
        return dataclasses.replace(newest, state=without_end(newest.state))
    stable = checkpoints.load("stable")
    if stable is None:
        raise RunError(
            f"The run {escape(str(path))} has ended ({progress['stop_reason']}), and its checkpoint "
            f"`stable`, from before the fall, is gone. Start another from its weights: init_from={path}"
        )
    rejected = newest.rejected + stable.rejected
    state = stable.state if progress["decay_reason"] == "max_time" else without_end(stable.state)
    return dataclasses.replace(stable, state=state, rejected=rejected)


def _is_time_raised(judgement: Judgement) -> bool:
    change = judgement.changes.get("trainer.max_time")
    return change is not None and (change["new"] is None or change["new"] > change["old"])


def _state_for(training: Training, plan: _Plan, folder: RunFolder) -> tuple[dict[str, Any], list[str]]:
    """Return the state to go on from, with the changed settings in it, and what makes it inexact."""
    state, optimizer = plan.checkpoint.state, training.optimizer
    reasons = _schedule_reasons(plan.record.summary["discovered"], folder.summary["discovered"])
    if optimizer is not None and is_level(optimizer, training.scheduler):
        reasons = []
    if optimizer is not None and (reasons or plan.judgement.touches("optimizer", "scheduler")):
        state = with_settings(state, optimizer, training.scheduler)
    monitor = folder.summary.get("best", {}).get("monitor")
    state, lost = with_best_on_disk(state, folder.checkpoints_dir, monitor)
    if lost:
        reasons.append(lost)
    if folder.cut.missing_bytes:
        reasons.append(f"metrics.jsonl lacks {folder.cut.missing_bytes} bytes of rows before the checkpoint")
    if plan.checkpoint.state["progress"]["phase"] == "training" and (why := training.train.inexact_reason()):
        reasons.append(why)
    if not state["progress"]["stop_reason"]:
        reasons += _length_reasons(training, plan, state)
    return state, reasons


def _length_reasons(training: Training, plan: _Plan, state: Mapping[str, Any]) -> list[str]:
    """Return what a training with another length would have done differently from the beginning."""
    reasons, progress = [], state["progress"]
    ended = plan.record.summary.get("stop_reason") or ""
    is_anew = plan.checkpoint.label == "stable" and plan.record.status == "finished"
    if is_anew and not ended.startswith("max_time"):
        reasons.append(f"the run had ended ({ended}); its patience starts anew")
    if training.trainer.is_open == (state["ema"] is None) and training.trainer.ema_decay == "auto":
        reasons.append("whether weights are averaged follows the length of the training, which has changed")
    if was_evaluated_early(state, training.trainer.eval_every, training.train.num_batches):
        where = f"at step {progress['step']}"
        reasons.append(f"the end was evaluated, {where}; a longer training has no row there")
    return reasons


def _schedule_reasons(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    pairs = [(key, before.get(key, {}).get("value"), after[key]["value"]) for key in after]
    return [
        f"{key} was {old} and is now {new}"
        for key, old, new in pairs
        if key.startswith("scheduler.") and key.removeprefix("scheduler.") in _LENGTHS and old != new
    ]


def _environment_reasons(record: RunRecord, config: Config) -> list[str]:
    here = collect_provenance(gpu_names=gpu_names())
    patch = record.paths.git_patch
    root = str(config.tracking.get("root", "runs"))
    return environment_reasons(
        record.summary,
        {"versions": here.versions, "hardware": here.hardware, "git": here.git},
        recorded_patch=patch_without(patch.read_text() if patch.exists() else "", root),
        present_patch=patch_without(here.git_patch, root),
    )


def _record(folder: RunFolder, plan: _Plan) -> None:
    checkpoint = plan.checkpoint
    entry: ResumeFields = {
        "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "host": socket.gethostname(),
        "step": checkpoint.step,
        "label": checkpoint.label,
        "exact": not plan.reasons,
        "reasons": plan.reasons,
        "changes": plan.judgement.changes,
        "rejected": list(checkpoint.rejected),
    }
    folder.update(resumes=[*folder.summary.get("resumes", []), dict(entry)])


def _tell(console: Console, plan: _Plan) -> None:
    for sentence in plan.checkpoint.rejected:
        console.line(sentence)
    for key, change in plan.judgement.changes.items():
        console.setting(key, change["new"], f"was {change['old']}")
    console.line(f"resumes at step {plan.checkpoint.step}" + ("" if plan.reasons else ", exactly"))
    for reason in plan.reasons:
        console.line(f"not exactly as if it had never stopped: {reason}")


def _sweep_of(path: Path) -> Path | None:
    return path.parent if path.parent.parent.name == "sweeps" else None
