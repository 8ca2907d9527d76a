"""The state of the user's git repository, and a patch of what is not committed.

Never writes to the repository, runs no monitor, external diff or pager that its config names, and gives
up on a git that does not answer within seconds: a run starts without its patch rather than late.
"""

from __future__ import annotations

import fnmatch
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rootflow.tracking.redaction import redact_text

_FILE_BYTES = 100_000
_PATCH_BYTES = 1_000_000
_TIMEOUT_S = 5.0
_SECRET_FILES = (
    ".env",
    ".env.*",
    "*.pem",
    "*.key",
    "id_rsa*",
    "id_ed25519*",
    ".netrc",
    ".npmrc",
    ".pypirc",
    "*.p12",
)
_EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
"""git's name for a tree with nothing in it: what to compare with before the first commit."""


def read_git(folder: Path) -> tuple[dict[str, Any], str] | None:
    """Return the state of the repository around ``folder`` and the patch on top of its commit.

    The state has commit, branch (None where there is none yet), dirty, untracked (how many files)
    and remote. `git apply` on that commit gives the files back; untracked text files are in it as
    new files. Left out, and listed at its head: binary files, files above 100 kB, what is beyond
    1 MB in all. Files that hold secrets (.env, keys) are never in it. None: no git, no repository.
    """
    top = _git(folder, "rev-parse", "--show-toplevel")
    if top is None:
        return None
    root = Path(top.rstrip("\n"))
    status = _git(root, "status", "--porcelain=v2", "--branch", "-z", "--untracked-files=no") or ""
    heads = dict(re.findall(r"# branch\.(oid|head) ([^\0]*)", status))
    commit = heads.get("oid", "(initial)")
    listed = _git(root, "ls-files", "--others", "--exclude-standard", "-z") or ""
    untracked = [name for name in listed.split("\0") if name]
    state = {
        "commit": None if commit == "(initial)" else commit,
        "branch": None if heads.get("head") == "(detached)" else heads.get("head"),
        "dirty": bool(re.search(r"^[12u] |\0[12u] ", status)),
        "untracked": len(untracked),
        "remote": redact_text((_git(root, "config", "--get", "remote.origin.url") or "").strip()) or None,
    }
    return state, _patch(root, _EMPTY_TREE if commit == "(initial)" else commit, untracked)


def _git(folder: Path, *words: str) -> str | None:
    """Return what a git command prints, or None if it can't."""
    # a repository may come from elsewhere, and its config could name a program to run
    command = ["git", "-c", "core.fsmonitor=false", "-c", "core.quotePath=false", *words]
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode(errors="replace") if done.returncode == 0 else None


def _patch(root: Path, commit: str, untracked: list[str]) -> str:
    """Return the parts that fit, after a line for each that does not; git ignores such lines."""
    parts, left_out, size = [], [], 0
    for name, part in (*_tracked(root, commit), *_new_files(root, untracked)):
        if not part or len(part) > _FILE_BYTES or size + len(part) > _PATCH_BYTES:
            left_out.append(f"# left out: {name}\n")
        else:
            size += len(part)
            parts.append(redact_text(part))
    return "".join(left_out + parts)


def _tracked(root: Path, commit: str) -> Iterator[tuple[str, str]]:
    excluded = [f":(exclude,top,glob)**/{pattern}" for pattern in _SECRET_FILES]
    diff = _git(
        root, "diff", "--no-color", "--no-ext-diff", "--no-textconv", commit, "--", ":(top)", *excluded
    )
    for part in re.split(r"^(?=diff --git )", diff or "", flags=re.MULTILINE):
        if part:
            name = part.partition("\n")[0].removeprefix("diff --git ")
            yield name, "" if "\nBinary files " in part else part


def _new_files(root: Path, names: list[str]) -> Iterator[tuple[str, str]]:
    for name in names:
        if not any(fnmatch.fnmatch(Path(name).name, pattern) for pattern in _SECRET_FILES):
            yield name, _new_file(root / name, name)


def _new_file(path: Path, name: str) -> str:
    """Return the diff that makes the file, or "" for one that is binary, large or oddly named."""
    try:
        if (
            path.is_symlink()
            or path.stat().st_size > _FILE_BYTES
            or not name.isprintable()
            or set(name) & set('"\\')
        ):
            return ""
        text = path.read_bytes().decode()
    except (OSError, UnicodeDecodeError):
        return ""
    mode = "100755" if os.access(path, os.X_OK) else "100644"
    head = f"diff --git a/{name} b/{name}\nnew file mode {mode}\n"
    if "\0" in text or not text:
        return head if not text else ""
    lines = text.removesuffix("\n").split("\n")
    ending = "\n" if text.endswith("\n") else "\n\\ No newline at end of file\n"
    body = "\n".join(f"+{line}" for line in lines)
    return f"{head}--- /dev/null\n+++ b/{name}\n@@ -0,0 +1,{len(lines)} @@\n{body}{ending}"
