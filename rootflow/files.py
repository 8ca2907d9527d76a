"""Files that are whole or not there, also after a power cut: synced writes, atomic replacement, digests."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_BLOCK_BYTES = 1 << 22
"""What is read at once for a digest."""


@dataclass(frozen=True)
class Digest:
    """What tells one file's content from any other's: its length in bytes and its SHA-256 in hex."""

    num_bytes: int
    sha256: str


@contextmanager
def replace_when_done(path: Path) -> Iterator[Path]:
    """Yield a scratch path that becomes ``path`` only if the block succeeds.

    A reader finds the old file or the new one, never a part of either, also after a power cut: the
    file is synced before the rename and its folder after it. The scratch file is a sibling because
    a rename is atomic only within one file system; it is removed when the block raises.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield scratch
        sync(scratch)
        scratch.replace(path)
        sync(path.parent)
    finally:
        scratch.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replace ``path`` by a file that holds ``text`` (UTF-8), atomically."""
    with replace_when_done(path) as scratch:
        scratch.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Replace ``path`` by ``value`` as indented JSON, atomically.

    Raises:
        ValueError: ``value`` holds NaN or an infinity, which is not JSON; ``path`` is untouched.
        TypeError: ``value`` holds something JSON has no form for; ``path`` is untouched.
    """
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """Return the JSON that `write_json` writes; raises as it does."""
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def write_synced(path: Path, chunks: Iterable[bytes | memoryview]) -> Digest:
    """Write a new file and sync it; its folder isn't synced.

    Raises:
        OSError: the file is there already, or can't be written; a part of it may then be there.
    """
    sha256, num_bytes = hashlib.sha256(), 0
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        for chunk in chunks:
            _write_all(fd, chunk)
            sha256.update(chunk)
            num_bytes += len(chunk)
        os.fsync(fd)
    finally:
        os.close(fd)
    return Digest(num_bytes, sha256.hexdigest())


def read_regular(path: Path, *, max_bytes: int) -> bytes:
    """Return the content of a file that is no link, device or pipe.

    Raises:
        OSError: it is one (ELOOP, EINVAL), is longer than ``max_bytes`` (EFBIG), or can't be read.
    """
    with _open_regular(path) as fd:
        num_bytes = os.fstat(fd).st_size
        if num_bytes > max_bytes:
            raise OSError(errno.EFBIG, f"has {num_bytes} bytes, more than {max_bytes}", str(path))
        return b"".join(_blocks(fd))


def read_digest(path: Path) -> Digest:
    """Return the digest of a file that is no link, device or pipe; OSError as `read_regular`."""
    sha256, num_bytes = hashlib.sha256(), 0
    with _open_regular(path) as fd:
        for block in _blocks(fd):
            sha256.update(block)
            num_bytes += len(block)
    return Digest(num_bytes, sha256.hexdigest())


def make_folder(path: Path) -> None:
    """Make a folder and those above it where they are missing, so that a power cut doesn't undo it."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        sync(path.parent)


def remove_flat_folder(path: Path) -> None:
    """Remove a folder and the files in it; links are removed, not followed.

    Raises:
        OSError: a file can't be removed, there is a folder among them, or ``path`` is itself a link.
    """
    if path.is_symlink():
        raise OSError(errno.ELOOP, "is a symbolic link", str(path))
    for entry in list(path.iterdir()):
        entry.unlink()
    path.rmdir()


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def why_not_written(path: Path, error: OSError, *, need_bytes: int) -> str:
    """Return the reason of a failed write below the folder ``path``, as a sentence.

    A full disk is told with what was needed and what there is; call it when the torn file is removed.
    """
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return f"{path} can't be written: {error}."
    mount = _mount_point(path)
    disk = os.statvfs(mount)
    what = "Disk quota exceeded" if error.errno == errno.EDQUOT else "No space left"
    have = _in_mb(disk.f_bavail * disk.f_frsize)
    return (
        f"{what} on {mount}: need {_in_mb(need_bytes)} in {path}, have {have}. Free some, or write elsewhere."
    )


def _in_mb(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:,.1f} MB"


def _mount_point(path: Path) -> Path:
    """Return the folder where the file system of ``path`` is mounted; ``path`` may be missing."""
    path = path.resolve()
    while not path.exists():
        path = path.parent
    while not path.is_mount():
        path = path.parent
    return path


def _write_all(fd: int, chunk: bytes | memoryview) -> None:
    rest = memoryview(chunk)
    while rest:
        done = os.write(fd, rest)  # may write less than asked, on a disk that is nearly full
        if done == 0:
            raise OSError(errno.EIO, "nothing was written, and no error given")
        rest = rest[done:]


@contextmanager
def _open_regular(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe would wait
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "is no regular file", str(path))
        yield fd
    finally:
        os.close(fd)


def _blocks(fd: int) -> Iterator[bytes]:
    while block := os.read(fd, _BLOCK_BYTES):
        yield block
