"""Kills, full disks, I/O errors and power cuts at every call of a save: a whole checkpoint is always there.

A kill leaves what the calls did; it says nothing about `fsync`. So the power cuts are enumerated: the calls
of some saves are recorded, and after each of them every disk that could be found then is built and loaded.
"""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from rootflow.checkpoint import Checkpoints
from rootflow.checkpoint.manifest import check_files, read_manifest
from rootflow.errors import CheckpointError
from tests.checkpoint.faults import count_calls, failing_at, recorded, run_killed, short_writes
from tests.checkpoint.test_folder import is_exact, load, make_state, names

SCENARIOS = {
    "a new step, an old one goes": 3,
    "a step that is there": 2,
    "a step that is there, with a label": 1,
}
"""Into a folder with the steps 1 (labelled) and 2."""
ERRORS = {"full disk": errno.ENOSPC, "I/O error": errno.EIO}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    checkpoints = Checkpoints(tmp_path / "before")
    checkpoints.save(0, make_state(0))
    checkpoints.save(1, make_state(1), label="stable")
    checkpoints.save(2, make_state(2))
    return checkpoints.folder


def copies(folder: Path, num_copies: int) -> Iterator[Path]:
    for index in range(num_copies):
        yield Path(shutil.copytree(folder, folder.with_name(f"case-{index}")))


def saver(folder: Path, step: int) -> Callable[[], object]:
    """Return a save of other values, to tell the new one from the old one of its step."""
    return lambda: Checkpoints(folder).save(step, make_state(step) | {"new": True})


def check(folder: Path, step: int, *, may_be: set[str]) -> None:
    """Check that the old newest state or the new one is loaded, exactly, and that all are whole, two or more."""
    found = load(folder)
    is_new = found.state.pop("new", False)
    assert is_exact(found, step if is_new else 2)
    assert ("new" if is_new else "old") in may_be
    assert found.rejected == ()
    assert is_exact(load(folder, "stable"), 1)
    num_whole = 0
    for path in folder.iterdir():
        if path.name.startswith(("step-", ".replaced-")):
            check_files(path, read_manifest(path))
            num_whole += 1
    assert num_whole >= 2


def check_next_save(folder: Path) -> None:
    """Check that a save goes through as if nothing had been, and leaves nothing behind."""
    Checkpoints(folder).save(9, make_state(9))
    assert is_exact(load(folder), 9)
    hidden = [name for name in names(folder) if name.startswith((".tmp-", ".del-"))]
    assert not hidden


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_kill_at_any_call_of_a_save_leaves_the_old_state_or_the_new_one(
    folder: Path, scenario: str
) -> None:
    step = SCENARIOS[scenario]
    num_killed = num_torn = 0
    for call, case in enumerate(copies(folder, 100)):
        if not run_killed(saver(case, step), call):
            break
        num_killed += 1
        num_torn += any(name.startswith(".tmp-") for name in names(case))
        check(case, step, may_be={"old", "new"})
        check_next_save(case)
    assert 30 < num_killed < 99
    assert num_torn >= 20


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("kind", ERRORS)
def test_an_error_of_any_call_of_a_save_leaves_the_old_state_or_the_new_one(
    folder: Path, scenario: str, kind: str
) -> None:
    step = SCENARIOS[scenario]
    cases = copies(folder, 101)
    outcomes = []
    for call in range(count_calls(saver(next(cases), step))):
        case = next(cases)
        with failing_at(call, ERRORS[kind]):
            try:
                saver(case, step)()
                outcomes.append("saved")
            except CheckpointError as error:
                outcomes.append("refused")
                text = str(error)
        if outcomes[-1] == "refused":
            expected = "No space left on /" if kind == "full disk" else "Input/output error"
            assert f"The checkpoint of step {step} is not on the disk; those before are untouched." in text
            assert expected in text
            assert not [name for name in names(case) if name.startswith(".tmp-")]
            check(
                case, step, may_be={"old", "new"}
            )  # new: the name is there, but may not outlive a power cut
        else:
            check(case, step, may_be={"new"})
        check_next_save(case)
    assert outcomes.count("refused") > 20
    assert outcomes.count("saved") > 3  # what fails after the new one is safe is no error of the save


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_writes_that_take_less_than_they_are_given_are_continued(folder: Path, scenario: str) -> None:
    with short_writes():
        saver(folder, SCENARIOS[scenario])()
    check(folder, SCENARIOS[scenario], may_be={"new"})


@dataclass(eq=False)
class Node:
    """A file or a folder of a simulated disk: what programs see, and what a power cut leaves for certain."""

    data: bytes | None = None
    synced: bytes = b""
    entries: dict[str, Node] = field(default_factory=dict)
    synced_entries: dict[str, Node] = field(default_factory=dict)
    unsynced: list[dict[str, Node | None]] = field(default_factory=list)
    """Changes of names, in order; each happens as a whole or not."""

    def change(self, names: dict[str, Node | None]) -> None:
        self.entries = changed(self.entries, names)
        self.unsynced.append(names)

    def sync(self) -> None:
        self.synced, self.synced_entries, self.unsynced = self.data or b"", dict(self.entries), []

    def possible_entries(self) -> Iterator[dict[str, Node]]:
        """Yield what names it may have: any of the changes that weren't synced may be lost."""
        for happened in itertools.product((True, False), repeat=len(self.unsynced)):
            entries = self.synced_entries
            for change in itertools.compress(self.unsynced, happened):
                entries = changed(entries, change)
            yield entries


def changed(entries: dict[str, Node], names: dict[str, Node | None]) -> dict[str, Node]:
    return {name: node for name, node in (entries | names).items() if node is not None}


class Disk:
    """Plays recorded calls, and builds the folders that could be there after a power cut."""

    def __init__(self, root: Path) -> None:
        self.root = Node()
        self._path = root
        self._open: dict[int, Node] = {}

    def _find(self, path: str) -> tuple[Node, str]:
        parts = Path(path).relative_to(self._path).parts
        node = self.root
        for part in parts[:-1]:
            node = node.entries[part]
        return node, parts[-1] if parts else ""

    def play(self, name: str, args: tuple[Any, ...], result: Any) -> None:
        if name == "write":
            node = self._open[args[0]]
            node.data = (node.data or b"") + args[1][:result]
            return
        if name == "fsync":
            self._open[args[0]].sync()
            return
        parent, leaf = self._find(str(args[0]))
        if name == "mkdir":
            parent.change({leaf: Node()})
        elif name == "open":
            if leaf and leaf not in parent.entries:
                parent.change({leaf: Node(data=b"")})
            self._open[result] = parent.entries[leaf] if leaf else parent
        elif name == "rename":
            assert self._find(str(args[1]))[0] is parent
            parent.change({leaf: None, Path(args[1]).name: parent.entries[leaf]})
        else:
            assert name in ("unlink", "rmdir")
            parent.change({leaf: None})

    def after_power_cut(self) -> Iterator[dict[str, bytes | None]]:
        """Yield every disk: names and data that weren't synced are lost, there, or (data) there in part."""
        for root, are_lost, data in itertools.product(
            self.root.possible_entries(), (False, True), ("full", "torn", "empty")
        ):
            state: dict[str, bytes | None] = {}
            for name, folder in sorted(root.items()):
                state[name] = None
                files = folder.synced_entries if are_lost else folder.entries
                state |= {f"{name}/{leaf}": _content(file, data) for leaf, file in sorted(files.items())}
            yield state


def _content(file: Node, data: str) -> bytes:
    assert file.data is not None
    rest = file.data[len(file.synced) :]
    return file.synced + {"full": rest, "torn": rest[: len(rest) // 2], "empty": bytes(len(rest))}[data]


def build(folder: Path, disk: dict[str, bytes | None]) -> None:
    folder.mkdir()
    for name, data in disk.items():
        if data is None:
            (folder / name).mkdir()
        else:
            (folder / name).write_bytes(data)


def test_after_a_power_cut_at_any_instant_the_last_finished_save_is_there_or_the_one_under_way(
    tmp_path: Path,
) -> None:
    """1, 2 and 3 with the label going from one to the other, 3 again, and 4: new names, replacing, removing."""
    folder = tmp_path / "recorded"
    folder.mkdir()
    checkpoints = Checkpoints(folder)
    saves = [(1, 0, "stable"), (2, 0, None), (3, 0, "stable"), (3, 1, None), (4, 0, None), (4, 1, "stable")]
    disk, seen, num_states = Disk(folder), set(), 0
    last: tuple[int, int] | None = None
    label: tuple[int, int] | None = None
    for number, (step, version, name) in enumerate(saves):
        calls = recorded(lambda: checkpoints.save(step, {"v": version, **make_state(step)}, label=name))  # noqa: B023
        for index, call in enumerate(calls):
            disk.play(*call)
            is_finished = index == len(calls) - 1
            for state in disk.after_power_cut():
                key = (number, is_finished, tuple(state.items()))
                if key in seen:
                    continue
                seen.add(key)
                case = tmp_path / f"case-{num_states}"
                num_states += 1
                build(case, state)
                found, labelled = Checkpoints(case).load(), Checkpoints(case).load("stable")
                allowed = {(step, version)} if is_finished else {last, (step, version)}
                assert (found and (found.step, found.state["v"])) in allowed
                if found is not None:
                    del found.state["v"]
                    assert is_exact(found, found.step)
                may_be = {label, (step, version)} if name else {label}
                assert (labelled and (labelled.step, labelled.state["v"])) in may_be
                for path in case.iterdir():
                    if path.name.startswith(("step-", ".replaced-", ".rejected-")):
                        check_files(path, read_manifest(path))  # what has a name is whole
                shutil.rmtree(case)
        last, label = (step, version), (step, version) if name else label
    assert num_states > 300


def test_folders_that_a_save_makes_outlive_a_power_cut(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "checkpoints"
    calls = recorded(lambda: Checkpoints(folder).save(1, {}))
    opened: dict[int, Path] = {}
    done: list[tuple[str, Path]] = []
    for name, args, result in calls:
        if name == "open":
            opened[result] = Path(args[0])
        done.append((name, opened[args[0]] if name == "fsync" else Path(str(args[0]))))
    for made in (folder.parent, folder):
        assert done.index(("mkdir", made)) < done.index(("fsync", made.parent))


def test_a_disk_that_is_really_full_keeps_what_was_there_and_is_told_by_name(tmp_path: Path) -> None:
    mounted = tmp_path / "small disk"
    mounted.mkdir()
    enter = ["unshare", "--user", "--map-root-user", "--mount"] if os.getuid() else ["unshare", "--mount"]
    mount = 'mount -t tmpfs -o size=1m none "$1" && exec "$2" -c "$3" "$1"'
    if (
        shutil.which("unshare") is None
        or subprocess.run(
            [*enter, "sh", "-c", mount, "sh", str(mounted), "true", ""], check=False, capture_output=True
        ).returncode
    ):
        pytest.skip("needs to mount a file system")
    code = textwrap.dedent("""
        import sys, pathlib, torch
        from rootflow.checkpoint import Checkpoints
        from rootflow.errors import CheckpointError
        disk = pathlib.Path(sys.argv[1])
        checkpoints = Checkpoints(disk / "run" / "checkpoints")
        checkpoints.save(1, {"w": torch.full((60_000,), 1.0)})
        checkpoints.save(2, {"w": torch.full((60_000,), 2.0)})
        (disk / "log").write_bytes(bytes(200_000))
        for _ in range(2):
            try:
                checkpoints.save(3, {"w": torch.full((120_000,), 3.0)})
            except CheckpointError as error:
                print(error)
        print(sorted(path.name for path in checkpoints.folder.iterdir()))
        found = Checkpoints(checkpoints.folder).load()
        print(found.step, found.state["w"].unique().tolist())
        (disk / "log").unlink()
        checkpoints.save(3, {"w": torch.full((60_000,), 3.0)})
        print(checkpoints.load().step)
    """)
    script = [*enter, "sh", "-c", mount, "sh", str(mounted), sys.executable, code]
    printed = subprocess.run(script, check=True, capture_output=True, text=True).stdout.splitlines()
    for line in printed[:2]:
        assert f"No space left on {mounted}: need 0.5 MB in {mounted}/run/checkpoints, have 0.3 MB" in line
    assert printed[2:] == ["['step-00000001', 'step-00000002']", "2 [2.0]", "3"]
