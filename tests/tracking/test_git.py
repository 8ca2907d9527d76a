from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from rootflow.tracking.git import read_git


def git(folder: Path, *words: str, **arguments: object) -> str:
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *words]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, **arguments).stdout


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    (folder / "train.py").write_text("lr = 0.1\n")
    (folder / ".gitignore").write_text("runs/\n")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "first")
    return folder


def test_outside_a_repository_there_is_nothing_to_tell(tmp_path):
    assert read_git(tmp_path) is None


def test_without_git_there_is_nothing_to_tell(repository, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert read_git(repository) is None


def test_a_clean_repository_has_a_state_and_no_patch(repository):
    commit = git(repository, "rev-parse", "HEAD").strip()
    clean = {"commit": commit, "branch": "main", "dirty": False, "untracked": 0, "remote": None}
    assert read_git(repository) == (clean, "")


def test_the_patch_gives_back_every_text_file(repository, tmp_path):
    (repository / "train.py").write_text("lr = 0.2\n")
    (repository / "deep").mkdir()
    new = {
        "deep/a b.py": "x = 1\n\ny = 2",
        "empty.txt": "",
        "crlf.txt": "a\r\nb\r\n",
        "dos-name-ü.txt": "one\x0btwo\u2028three\n",
        "newline.txt": "\n",
        "run.sh": "#!/bin/sh\n",
    }
    for name, text in new.items():
        (repository / name).write_bytes(text.encode())
    (repository / "run.sh").chmod(0o755)
    state, patch = read_git(repository / "deep")
    assert (state["dirty"], state["untracked"]) == (True, 6)

    git(tmp_path, "clone", "-q", str(repository), "copy")
    git(tmp_path / "copy", "apply", "-", input=patch)
    assert (tmp_path / "copy/train.py").read_text() == "lr = 0.2\n"
    assert {name: (tmp_path / "copy" / name).read_bytes().decode() for name in new} == new
    assert (tmp_path / "copy/run.sh").stat().st_mode & 0o111


def test_staged_and_deleted_files_are_in_the_patch(repository):
    (repository / "new.py").write_text("staged = 1\n")
    git(repository, "add", "new.py")
    (repository / "train.py").unlink()
    state, patch = read_git(repository)
    assert state["dirty"]
    assert "+staged = 1" in patch
    assert "-lr = 0.1" in patch


def test_binary_and_large_files_are_left_out_and_listed(repository, tmp_path):
    (repository / "weights.bin").write_bytes(b"\0\1\2")
    (repository / "latin.txt").write_bytes(b"\xe9")
    (repository / "log.txt").write_text("x" * 100_001)
    (repository / "link").symlink_to(".gitignore")
    (repository / "train.py").write_bytes(b"\0binary now")
    _, patch = read_git(repository)
    listed = [line for line in patch.splitlines() if line.startswith("# left out: ")]
    assert len(listed) == 5
    assert "# left out: weights.bin" in listed
    assert len(patch) < 500


def test_the_patch_stays_below_a_megabyte_and_still_applies(repository, tmp_path):
    for number in range(20):
        (repository / f"notes{number}.txt").write_text("x" * 90_000 + "\n")
    _, patch = read_git(repository)
    assert 900_000 < len(patch) < 1_001_000
    assert patch.count("# left out: ") == 9
    git(tmp_path, "clone", "-q", str(repository), "copy")
    git(tmp_path / "copy", "apply", "-", input=patch)


def test_no_secret_is_in_the_patch_or_the_state(repository):
    for name in (".env", "deep.pem", ".env.local", "id_rsa"):
        (repository / name).write_text("sekret\n")
    (repository / "prod.key").write_text("old\n")
    git(repository, "add", "prod.key")
    git(repository, "commit", "-q", "-m", "oh no")
    (repository / "prod.key").write_text("sekret\n")
    (repository / "train.py").write_text('API_KEY = "sekret"\n')
    git(repository, "remote", "add", "origin", "https://me:sekret@example.org/x.git")
    state, patch = read_git(repository)
    assert "sekret" not in patch
    assert 'API_KEY = "[redacted]"' in patch
    assert state["remote"] == "https://[redacted]@example.org/x.git"
    assert state["untracked"] == 4


def test_ignored_files_are_not_looked_at(repository):
    (repository / "runs").mkdir()
    (repository / "runs/a.txt").write_text("x\n")
    assert read_git(repository)[0]["untracked"] == 0


def test_before_the_first_commit_everything_is_in_the_patch(tmp_path):
    git(tmp_path, "init", "-q", "-b", "main")
    (tmp_path / "a.py").write_text("a = 1\n")
    git(tmp_path, "add", "a.py")
    (tmp_path / "b.py").write_text("b = 1\n")
    state, patch = read_git(tmp_path)
    assert (state["commit"], state["branch"]) == (None, "main")
    assert "+a = 1" in patch
    assert "+b = 1" in patch


def test_a_detached_head_has_no_branch(repository):
    git(repository, "checkout", "-q", "--detach")
    state, _ = read_git(repository)
    assert state["branch"] is None
    assert state["commit"]


@pytest.mark.parametrize("key", ["core.fsmonitor", "diff.external", "core.pager"])
def test_no_program_that_the_repository_names_is_run(repository, tmp_path, key):
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/was-run\n")
    program.chmod(0o755)
    git(repository, "config", key, str(program))
    (repository / "train.py").write_text("lr = 0.2\n")
    _, patch = read_git(repository)
    assert "+lr = 0.2" in patch
    assert not (tmp_path / "was-run").exists()
