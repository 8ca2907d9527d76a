"""Finding runs: all under a root, or the one that a user means."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from rootflow.errors import RunError, did_you_mean
from rootflow.runs.text import escape

_ID = re.compile(r"\d{8}-\d{6}-.+-[a-z0-9]{4}")


def find_runs(root: Path) -> list[Path]:
    """Return the folders under ``root`` that hold a run.json, at any depth, newest last.

    An id starts with the time of the run, so sorting by name is sorting by age. A folder that was
    renamed to something else comes first. Links and hidden folders are not followed.

    Raises:
        RunError: ``root`` is not a folder that can be read.
    """
    try:
        found = _runs_in(str(root))
    except OSError as error:
        raise RunError(
            f"The folder of runs {escape(str(root))} can't be read ({error.strerror}). "
            "Name another with --root."
        ) from error
    return sorted(map(Path, found), key=lambda path: (bool(_ID.fullmatch(path.name)), path.name, str(path)))


def _runs_in(folder: str) -> list[str]:
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or not entry.is_dir(follow_symlinks=False):
                continue
            # os.path, because this line runs for each of thousands of folders
            if os.path.exists(f"{entry.path}/run.json"):  # noqa: PTH110
                found.append(entry.path)
            else:
                with contextlib.suppress(FileNotFoundError):  # deleted since it was listed
                    found += _runs_in(entry.path)
    return found


def resolve_run(reference: str, root: Path) -> Path:
    """Return the folder of the run that ``reference`` means.

    It may be `latest`, the path of a run folder, an id, or the beginning or the end of just one id.

    Raises:
        RunError: no run or several runs fit; names the nearest or the candidates.
    """
    if (Path(reference) / "run.json").is_file():
        return Path(reference)
    runs = find_runs(root)
    if reference == "latest":
        if not runs:
            raise RunError(f"There is no run under {escape(str(root))} yet. `rootflow train` makes one.")
        return runs[-1]
    matches = _matches(reference, runs)
    if len(matches) == 1:
        return matches[0]
    raise RunError(_none_or_many(reference, matches, runs, root))


def _matches(reference: str, runs: list[Path]) -> list[Path]:
    exact = [run for run in runs if run.name == reference]
    if exact or not reference:
        return exact
    return [run for run in runs if run.name.startswith(reference) or run.name.endswith(reference)]


def _none_or_many(reference: str, matches: list[Path], runs: list[Path], root: Path) -> str:
    shown, place = escape(reference), escape(str(root))
    if matches:
        newest = ", ".join(escape(str(run)) for run in matches[-5:])
        return (
            f"{shown!r} fits {len(matches)} runs under {place}, the newest: {newest}. "
            "Write more of the id, or the path."
        )
    near = did_you_mean(reference, [run.name for run in runs]) if runs else ""
    return (
        f"No run under {place} is called {shown!r}.{escape(near)} "
        "A run is named by its folder, its id, the beginning or end of its id, or `latest`."
    )
