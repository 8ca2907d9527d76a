"""The manifest of a saved state: which files it has, and whether they are still what was written.

    {"format": 1, "step": 400, "label": null, "serial": 1795275000000000,
     "files": {"model.safetensors": {"bytes": ..., "sha256": ...}, ...}, "sha256": "..."}

The last one is of the manifest's own content, so that a flipped bit in it is found too.
"""

from __future__ import annotations

import errno
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from rootflow.errors import CheckpointError
from rootflow.files import Digest, read_digest, read_regular, write_synced

FILE = "manifest.json"
SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
"""File names that a manifest may have: no separators, nothing hidden."""
_FORMAT = 1
_MAX_BYTES = 1 << 20
_DAMAGE = {
    errno.ENOENT: "is missing",
    errno.ELOOP: "is a symbolic link",
    errno.EINVAL: "is no regular file",
    errno.EISDIR: "is a folder",
    errno.EFBIG: "is too long",
}
"""What an error of a file says about it; any other (no permission, no memory) says nothing about it."""

Seal: TypeAlias = tuple[tuple[str, int, int, int], ...]
"""Names, lengths, times and numbers of the files: who writes to one changes it."""


class DamagedError(Exception):
    """A saved state is not what was written; the text says what and where."""


class UnreadableError(DamagedError):
    """The disk failed to give a saved state back; it may do so another time."""


@dataclass(frozen=True)
class Manifest:
    """What one saved state is."""

    step: int
    label: str | None
    serial: int
    """When it was saved, in microseconds since 1970; above those of all earlier saves in the folder.

    By this the newest is known also when a training went back to an earlier step, or the clock did.
    """
    files: dict[str, Digest]


def write_manifest(folder: Path, manifest: Manifest) -> Digest:
    """Write the manifest of the files in ``folder`` and sync it; they must be synced already."""
    content = {
        "format": _FORMAT,
        "step": manifest.step,
        "label": manifest.label,
        "serial": manifest.serial,
        "files": {name: {"bytes": d.num_bytes, "sha256": d.sha256} for name, d in manifest.files.items()},
    }
    text = json.dumps(content | {"sha256": _own_sha256(content)}, indent=1) + "\n"
    return write_synced(folder / FILE, [text.encode()])


def read_manifest(folder: Path) -> Manifest:
    """Read a manifest; the files that it names aren't looked at.

    Raises:
        DamagedError: it is missing or not what was written.
        CheckpointError: it is of a later version of rootflow.
    """
    with damage_named(FILE):
        text = read_regular(folder / FILE, max_bytes=_MAX_BYTES)
    try:
        content: dict[str, Any] = json.loads(text)
        own = content.pop("sha256")
        if own != _own_sha256(content):
            raise DamagedError(f"{FILE} is not what was written (its sha256 differs)")
        if content["format"] != _FORMAT:
            raise CheckpointError(
                f"{folder} has format {content['format']}, this rootflow reads {_FORMAT}. Use a later one."
            )
        manifest = Manifest(int(content["step"]), _label(content), int(content["serial"]), _digests(content))
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise DamagedError(f"{FILE} is no manifest: {error}") from error
    return manifest


def check_files(folder: Path, manifest: Manifest) -> None:
    """Compare every file with the manifest, to the last bit; DamagedError names the first that differs."""
    for name, expected in manifest.files.items():
        with damage_named(name):
            found = read_digest(folder / name)
        if found.num_bytes != expected.num_bytes:
            raise DamagedError(f"{name} has {found.num_bytes} bytes, {expected.num_bytes} were written")
        if found.sha256 != expected.sha256:
            raise DamagedError(f"{name} is not what was written (its sha256 differs)")


def find_seal(folder: Path, manifest: Manifest) -> Seal | None:
    """Return the seal of a state's files; None if one is missing."""
    try:
        stats = [(name, (folder / name).lstat()) for name in (FILE, *manifest.files)]
    except OSError:
        return None
    return tuple((name, found.st_size, found.st_mtime_ns, found.st_ino) for name, found in stats)


@contextmanager
def damage_named(name: str) -> Iterator[None]:
    """Make the errors that say that a file is damaged a DamagedError."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.EIO:
            raise UnreadableError(f"{name} can't be read from the disk: {error}") from error
        if error.errno not in _DAMAGE:
            raise
        raise DamagedError(f"{name} {_DAMAGE[error.errno]}") from error


def _label(content: dict[str, Any]) -> str | None:
    return None if content["label"] is None else str(content["label"])


def _digests(content: dict[str, Any]) -> dict[str, Digest]:
    files: dict[str, dict[str, Any]] = content["files"]
    bad = [name for name in files if not SAFE_NAME.fullmatch(name)]
    if bad:
        raise ValueError(f"{bad[0]!r} can't be a file of it")
    return {name: Digest(int(entry["bytes"]), str(entry["sha256"])) for name, entry in files.items()}


def _own_sha256(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
