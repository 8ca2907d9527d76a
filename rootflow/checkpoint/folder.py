"""A folder of saved states of a training, of which there is always a whole one after the first.

    step-00000400/               model.safetensors, optimizer.safetensors, ..., state.json, manifest.json
    .tmp-<pid>-step-...@<host>   one that is being written
    .replaced-step-...           one whose step was saved again, for as long as that takes
    .del-step-...                one that is being removed
    .rejected-step-...           one that was found damaged; moved aside, never removed

A name `step-...` appears by a rename, after everything in it is synced, and an old state goes only after
the new one's name is synced too. So a kill or a power cut at any instant leaves the old states or the
new one. Damage is found by SHA-256, and what is damaged is never loaded. Other files in the folder are
left alone. Nothing here is a pickle, so a folder of somebody else can be loaded too.
"""

from __future__ import annotations

import contextlib
import logging
import operator
import os
import re
import socket
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from rootflow.checkpoint.contents import Contents, read_contents, split_state, write_contents
from rootflow.checkpoint.manifest import (
    DamagedError,
    Manifest,
    Seal,
    UnreadableError,
    check_files,
    find_seal,
    read_manifest,
    write_manifest,
)
from rootflow.errors import CheckpointError, ConfigError
from rootflow.files import make_folder, remove_flat_folder, sync, why_not_written

_STEP = r"step-([0-9]{8,18})"
_SAVED = re.compile(rf"{_STEP}|\.replaced-{_STEP}(?:-[0-9]+)?")
_DELETED = re.compile(rf"\.del-{_STEP}(?:-[0-9]+)?")
_SCRATCH = re.compile(rf"\.tmp-([1-9][0-9]{{0,9}})-{_STEP}@(.*)")
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_MAX_LOOKS = 20
"""How often a reader starts again because the writer removed what it was reading."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """A saved state, verified."""

    step: int
    path: Path
    state: dict[str, Any] = field(repr=False)
    """As it was given to `Checkpoints.save`; tensors are on the CPU, each with memory of its own."""
    label: str | None
    rejected: tuple[str, ...]
    """Newer ones that were damaged, a sentence each: the path, the reason, and where it was moved."""


class Checkpoints:
    """Saves states of a training in a folder, and loads the newest that is whole.

        checkpoints = Checkpoints("checkpoints")
        checkpoints.save(step, {"model": model.state_dict(), "optimizer": optimizer.state_dict()})

        if found := checkpoints.load():
            model.load_state_dict(found.state["model"])
            optimizer.load_state_dict(found.state["optimizer"])

    One thread of one process saves; any number may load meanwhile.

    Args:
        folder: where; made by the first save.
        keep: how many of the newest stay, besides those with a label.

    Raises:
        ConfigError: ``keep`` is below 2.
    """

    def __init__(self, folder: Path | str, *, keep: int = 2) -> None:
        if keep < 2:
            raise ConfigError(f"keep is {keep}; at least 2 must stay, for the newest may be damaged.")
        self.folder = Path(folder)
        self.keep = keep
        self._seals: dict[int, Seal] = {}

    def save(self, step: int, state: Mapping[str, Any], *, label: str | None = None) -> Path:
        """Save a state, then remove what is older than the newest ``keep`` and has no label.

        When this returns the state is on the disk, and no tensor of it is referred to any more. A step
        that is there already is replaced (one with another label stays, as `.replaced-step-...`).

        Args:
            step: optimizer updates made.
            state: anything nested of tensors and plain values (`rootflow.checkpoint.tree` says which).
                The tensors below an outermost key are in a safetensors file of that name.
            label: a name for this state, which is then not removed by later saves; an older one of
                the same label loses it.

        Raises:
            CheckpointError: the disk is full, say, or the state holds something that can't be kept.
                What was saved before is untouched.
        """
        name = _name(step)
        if not _SAVED.fullmatch(name):
            raise CheckpointError(f"step is {step}; it must be 0 or more, and have at most 18 digits.")
        if label is not None and not _LABEL.fullmatch(label):
            raise CheckpointError(f"label is {label!r}; it must be letters, digits, dots and dashes.")
        contents = split_state(state)
        scratch = self.folder / f".tmp-{os.getpid()}-{name}@{socket.gethostname()}"
        try:
            make_folder(self.folder)
            self._clear_leftovers()
            manifest = self._write(scratch, contents, operator.index(step), label)
            path = self._publish(scratch, self.folder / name)
        except BaseException as error:
            _remove(scratch)
            if not isinstance(error, OSError):
                raise
            reason = why_not_written(self.folder, error, need_bytes=contents.num_bytes)
            raise CheckpointError(
                f"The checkpoint of step {step} is not on the disk; those before are untouched. {reason}"
            ) from error
        if seal := find_seal(path, manifest):
            self._seals[manifest.serial] = seal
        self._retire()
        return path

    def load(self, label: str | None = None) -> Checkpoint | None:
        """Return the state that was saved last, or the one of that label; None if nothing was saved.

        If that is damaged, it is the newest that is whole; those damaged are moved aside and named in
        `Checkpoint.rejected`.

        Raises:
            CheckpointError: all that there are are damaged (they stay where they are), of a later version
                of rootflow, or may not be read.
        """
        return self._found(label)

    def read(self, *, near: int | None = None) -> Checkpoint | None:
        """Return a whole state as `load` does, but move nothing: for the folder of another training.

        Args:
            near: a step; of the whole states it is the one saved closest to that. None: the newest.

        Raises:
            CheckpointError: as `load`.
        """
        return self._found(None, near=near, is_own=False)

    def steps(self) -> list[int]:
        """Return the steps that are there, the one saved last at the end; they aren't verified."""
        return list(dict.fromkeys(saved.step for saved in self._newest_first()[::-1] if saved.is_known))

    def _write(self, scratch: Path, contents: Contents, step: int, label: str | None) -> Manifest:
        newest = max((saved.serial for saved in self._newest_first()), default=0)
        # the time too, because the manifest of the newest may not be readable just now
        serial = max(newest + 1, time.time_ns() // 1000)
        scratch.mkdir()
        manifest = Manifest(step, label, serial, write_contents(scratch, contents))
        write_manifest(scratch, manifest)
        sync(scratch)
        return manifest

    def _publish(self, scratch: Path, path: Path) -> Path:
        """Give a written state its name; one that has it stays whole under a second name."""
        if os.path.lexists(path):
            try:
                self._check(_look(path))
            except DamagedError as error:
                _logger.warning("%s", self._set_aside(path, error))
        if os.path.lexists(path):
            path.rename(self._free_path(f".replaced-{path.name}"))
            sync(self.folder)
        scratch.rename(path)
        sync(self.folder)
        return path

    def _retire(self) -> None:
        """Remove what is older than the newest ``keep`` that are whole; a failure is no error of the save."""
        try:
            doomed = []
            for saved in self._old():
                self._seals.pop(saved.serial, None)
                doomed.append(saved.path.rename(self._free_path(f".del-{_name(saved.step)}")))
            if doomed:
                sync(self.folder)
            for path in doomed:
                _remove(path)
        except (OSError, CheckpointError) as error:
            _logger.warning("Old checkpoints in %s can't be removed: %s", self.folder, error)

    def _old(self) -> list[_Saved]:
        """Return what can go; a damaged one that would have stayed is moved aside, and doesn't count."""
        kept: set[int] = set()
        labels: set[str | None] = {None}
        old: list[_Saved] = []
        for saved in self._newest_first():
            if saved.step not in kept and len(kept) < self.keep:
                try:
                    self._check(saved)
                except DamagedError as error:
                    _logger.warning("%s", self._set_aside(saved.path, error))
                    continue
                kept.add(saved.step)
            elif saved.label in labels:
                old.append(saved)
            labels.add(saved.label)
        return old

    def _found(self, label: str | None, *, near: int | None = None, is_own: bool = True) -> Checkpoint | None:
        try:
            for _ in range(_MAX_LOOKS):
                with contextlib.suppress(_ChangedError):
                    return self._load(label, near, is_own=is_own)
        except OSError as error:
            raise CheckpointError(f"{self.folder} can't be read: {error}.") from error
        raise CheckpointError(f"{self.folder} changes faster than it can be read.")

    def _load(self, label: str | None, near: int | None, *, is_own: bool) -> Checkpoint | None:
        damaged: list[tuple[Path, DamagedError]] = []
        candidates = self._newest_first()
        if near is not None:
            candidates.sort(key=lambda saved: abs(saved.step - near))
        for saved in candidates:
            if label not in (None, saved.label) and saved.is_known:
                continue
            try:
                state = self._read(saved)
            except DamagedError as error:
                damaged.append((saved.path, error))
                continue
            rejected = tuple(
                self._set_aside(path, reason) if is_own else f"{path} is damaged: {reason}."
                for path, reason in damaged
            )
            return Checkpoint(saved.step, saved.path, state, saved.label, rejected)
        if damaged:
            listed = "".join(f"\n  {path}: {reason}" for path, reason in damaged)
            which = f"no checkpoint labelled {label!r}" if label else "no checkpoint"
            raise CheckpointError(f"There is {which} in {self.folder} that is whole. Damaged are:{listed}")
        return None

    def _read(self, saved: _Saved) -> dict[str, Any]:
        try:
            state = read_contents(saved.path, self._check(saved, anew=True))
        except (DamagedError, OSError) as error:
            if _identity(saved.path) != saved.identity:  # removed or replaced by the writer while it was read
                raise _ChangedError from error
            raise
        if _identity(saved.path) != saved.identity:
            raise _ChangedError
        return state

    def _check(self, saved: _Saved | None, *, anew: bool = False) -> Manifest:
        """Return the manifest of a state that is whole; DamagedError if it isn't.

        One that this object wrote or read before is read again only if its files changed since, or
        ``anew``: what was just written would come from memory, and tell nothing about the disk.
        """
        if saved is None:
            raise DamagedError("is no folder")
        if isinstance(saved.manifest, DamagedError):
            raise saved.manifest
        seal = find_seal(saved.path, saved.manifest)
        if seal is None or anew or self._seals.get(saved.serial) != seal:
            check_files(saved.path, saved.manifest)
            if seal is not None:
                self._seals[saved.serial] = seal
        return saved.manifest

    def _newest_first(self) -> list[_Saved]:
        """Return what was saved, the last save first; before it those without a readable manifest."""
        paths = sorted(self.folder.iterdir()) if self.folder.is_dir() else []
        found = [saved for path in paths if (saved := _look(path))]
        return sorted(found, key=lambda saved: (not saved.is_known, saved.serial, saved.step), reverse=True)

    def _set_aside(self, path: Path, reason: DamagedError) -> str:
        """Move a damaged state out of the way; one that can't be read stays. Return a sentence about it."""
        if isinstance(reason, UnreadableError):
            return f"{path} is left out: {reason}."
        target = self._free_path(f".rejected-{path.name.removeprefix('.replaced-')}")
        try:
            path.rename(target)
            sync(self.folder)
        except OSError as error:  # a folder that may only be read
            return f"{path} is damaged: {reason}. It can't be moved aside: {error}."
        return f"{path} is damaged: {reason}. It is now {target.name}."

    def _free_path(self, name: str) -> Path:
        path, number = self.folder / name, 1
        while os.path.lexists(path):
            number += 1
            path = self.folder / f"{name}-{number}"
        return path

    def _clear_leftovers(self) -> None:
        """Finish removals, and remove what processes of this host that are dead were writing."""
        for path in self.folder.iterdir():
            scratch = _SCRATCH.fullmatch(path.name)
            is_dead = scratch and scratch[3] == socket.gethostname() and _is_dead(int(scratch[1]))
            if is_dead or _DELETED.fullmatch(path.name):
                _remove(path)


@dataclass(frozen=True)
class _Saved:
    """One folder of a state, as it was when looked at."""

    path: Path
    step: int
    identity: _Identity | None
    manifest: Manifest | DamagedError

    @property
    def is_known(self) -> bool:
        return isinstance(self.manifest, Manifest)

    @property
    def label(self) -> str | None:
        return self.manifest.label if isinstance(self.manifest, Manifest) else None

    @property
    def serial(self) -> int:
        return self.manifest.serial if isinstance(self.manifest, Manifest) else 0


class _ChangedError(Exception):
    """What was being read is not there any more."""


_Identity: TypeAlias = tuple[int, int]


def _name(step: int) -> str:
    return f"step-{operator.index(step):08d}"


def _look(path: Path) -> _Saved | None:
    """Return what is saved under a path; None if that is no folder, or isn't named like one of ours."""
    name, identity = _SAVED.fullmatch(path.name), _identity(path)
    if name is None or identity is None:
        return None
    step = int(name[1] or name[2])
    try:
        manifest = read_manifest(path)
        if manifest.step != step:
            raise DamagedError(f"its manifest is of step {manifest.step}")
    except DamagedError as error:
        return _Saved(path, step, identity, error)
    return _Saved(path, step, identity, manifest)


def _identity(path: Path) -> _Identity | None:
    """Return what tells a folder from another of its name; None if there is no folder, or only a link."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    return (found.st_ino, found.st_mtime_ns) if stat.S_ISDIR(found.st_mode) else None


def _is_dead(pid: int) -> bool:
    """Whether no process has that number; one that reuses it only makes a leftover stay longer."""
    if pid == os.getpid():  # left by an earlier save, for this one hasn't begun
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    return False


def _remove(folder: Path) -> None:
    try:
        remove_flat_folder(folder)
    except FileNotFoundError:
        return
    except OSError as error:
        _logger.warning("%s can't be removed: %s", folder, error)
