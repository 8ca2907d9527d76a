"""Files from the internet: checked before they are used, whole or not there.

A file is fetched over https only, into a scratch file beside its place; a cut connection is taken up
where it broke. The file gets its name when its size and sha256 are what the source says. After a failure
nothing is left behind, and the error says where to put the file by hand.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import sys
import tarfile
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeAlias

from rootflow.errors import DataError
from rootflow.files import replace_when_done

_TIMEOUT_S = 8
"""For connecting, and for each read: a server that is silent for longer counts as a cut connection."""

_MAX_CUTS = 5
_CHUNK_BYTES = 2**20
_LOOPBACK = ("127.0.0.1", "::1")

Progress: TypeAlias = Callable[[int, int], None]
"""Called with the bytes that are there and the bytes in total."""


@dataclass(frozen=True)
class Source:
    """A file that somebody publishes."""

    url: str
    sha256: str
    num_bytes: int

    @property
    def name(self) -> str:
        """The file's name."""
        return self.url.rpartition("/")[2]


def default_root() -> Path:
    """Return the folder for data sets: `ROOTFLOW_DATA`, or `~/.cache/rootflow/datasets`."""
    return Path(os.environ.get("ROOTFLOW_DATA") or "~/.cache/rootflow/datasets").expanduser()


def fetch(source: Source, into: Path, *, progress: Progress | None = None) -> Path:
    """Download a file into a folder, which is made if need be; return its path.

    Args:
        source: what to fetch, and how to know it.
        into: the folder.
        progress: by default a line on stderr, if that is a terminal.

    Raises:
        DataError: it can't be had, or isn't what the source says. The folder is then as it was before.
    """
    path = into / source.name
    by_hand = f"get the file in another way and put it into {into}"
    with _explained(source, path, by_hand), _folder(into), replace_when_done(path) as scratch:
        _download(source, scratch, progress or _show_progress)
        _check(source, scratch)
    return path


def fetch_archive(source: Source, into: Path, *, folder: str, progress: Progress | None = None) -> Path:
    """Download a tar archive and unpack the one folder in it that is asked for; return its path.

    Raises:
        DataError: as `fetch`, or the archive doesn't hold the folder.
    """
    path = into / folder
    by_hand = f"get the archive in another way and unpack it in {into}, so that {path} is there"
    with (
        _explained(source, path, by_hand),
        _folder(into),
        tempfile.TemporaryDirectory(dir=into, prefix=".download-") as scratch,
    ):
        archive = Path(scratch) / source.name
        _download(source, archive, progress or _show_progress)
        _check(source, archive)
        with tarfile.open(archive) as tar:
            _unpack(tar, Path(scratch))
        if not (Path(scratch) / folder).is_dir():
            raise _RefusedError(f"there is no folder {folder} in it")
        if not path.is_dir():  # else another process was faster, with the same files
            (Path(scratch) / folder).rename(path)
    return path


def _unpack(tar: tarfile.TarFile, into: Path) -> None:
    """Unpack files and folders, none outside of ``into``; tarfile helps only from Python 3.11.4 on."""
    if hasattr(tarfile, "data_filter"):
        tar.extractall(into, filter="data")
        return
    for member in tar.getmembers():
        inside = (into / member.name).resolve().is_relative_to(into.resolve())
        if not inside or not (member.isfile() or member.isdir()):
            raise _RefusedError(f"it holds {member.name!r}, which is no file or folder inside of it")
    tar.extractall(into)


class _RefusedError(Exception):
    """What came isn't what was asked for."""


@contextmanager
def _explained(source: Source, path: Path, by_hand: str) -> Iterator[None]:
    """Turn whatever can go wrong into a `DataError` that says what to do."""
    try:
        yield
    except (OSError, http.client.HTTPException, tarfile.TarError, _RefusedError) as error:
        reason = getattr(error, "reason", None) or error
        raise DataError(
            f"{source.url} can't be downloaded to {path}: {reason}. Check the connection, or {by_hand}."
        ) from error


class _NoDowngrade(urllib.request.HTTPRedirectHandler):
    """Follows redirects to where `fetch` itself would go, and nowhere else."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        try:
            _check_scheme(newurl)
        except _RefusedError:
            fp.close()
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _check_scheme(url: str) -> None:
    parts = urllib.parse.urlsplit(url)
    # within this machine nobody listens in; a mirror or a test server there has no certificate
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        raise _RefusedError(f"{url} is not https, and rootflow fetches nothing else")


def _download(source: Source, scratch: Path, progress: Progress) -> None:
    """Fill ``scratch``; go on after a cut as long as anything came at all."""
    for cut in range(_MAX_CUTS + 1):
        had = scratch.stat().st_size if scratch.exists() else 0
        try:
            _download_rest(source, scratch, had, progress)
            return
        except urllib.error.HTTPError as error:  # an answer, not a cut
            error.close()
            raise
        except (OSError, http.client.HTTPException):
            has_come = scratch.exists() and scratch.stat().st_size > 0
            if not has_come or cut == _MAX_CUTS:
                raise


def _download_rest(source: Source, scratch: Path, had: int, progress: Progress) -> None:
    _check_scheme(source.url)
    headers = {"User-Agent": "rootflow"} | ({"Range": f"bytes={had}-"} if had else {})
    request = urllib.request.Request(source.url, headers=headers)
    with urllib.request.build_opener(_NoDowngrade).open(request, timeout=_TIMEOUT_S) as response:
        is_rest = response.status == http.HTTPStatus.PARTIAL_CONTENT
        done = had if is_rest else 0  # a server may ignore the range and send everything again
        with scratch.open("ab" if is_rest else "wb") as file:
            while chunk := response.read1(_CHUNK_BYTES):
                file.write(chunk)
                done += len(chunk)
                if done > source.num_bytes:
                    raise _RefusedError(f"more than the {source.num_bytes:,} bytes expected came")
                progress(done, source.num_bytes)
        if response.length:
            raise http.client.IncompleteRead(b"", response.length)


def _check(source: Source, scratch: Path) -> None:
    size = scratch.stat().st_size
    if size != source.num_bytes:
        raise _RefusedError(f"{size:,} bytes came where {source.num_bytes:,} were expected")
    with scratch.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != source.sha256:
        raise _RefusedError(f"its sha256 is {found} and should be {source.sha256}")


@contextmanager
def _folder(path: Path) -> Iterator[None]:
    """Make a folder and its parents; if the block raises, remove those that it made and that are empty."""
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for folder in made:
            with suppress(OSError):
                folder.rmdir()
        raise


def _show_progress(done: int, total: int, stream: IO[str] | None = None) -> None:
    stream = stream or sys.stderr
    if stream.isatty():
        end = "\n" if done == total else ""
        stream.write(f"\rdownloading {done / 1e6:.0f} of {total / 1e6:.0f} MB{end}")
        stream.flush()
