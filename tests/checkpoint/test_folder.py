"""A folder of checkpoints: what stays, what is loaded, and what is never touched."""

from __future__ import annotations

import logging
import os
import random
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rootflow.checkpoint import Checkpoint, Checkpoints
from rootflow.errors import CheckpointError, ConfigError


def make_state(step: int) -> dict[str, Any]:
    return {
        "model": {"0.weight": torch.full((3, 4), float(step)), "0.bias": torch.arange(3) + step},
        "optimizer": {"state": {0: {"exp_avg": torch.full((2,), -float(step))}}, "betas": (0.9, 0.999)},
        "step": step,
        "generators": {"python": random.Random(step).getstate()},
    }


def is_exact(found: Checkpoint, step: int) -> bool:
    expected, state = make_state(step), found.state
    return (
        found.step == step
        and list(state) == list(expected)
        and all(torch.equal(state["model"][name], tensor) for name, tensor in expected["model"].items())
        and torch.equal(
            state["optimizer"]["state"][0]["exp_avg"], expected["optimizer"]["state"][0]["exp_avg"]
        )
        and state["optimizer"]["betas"] == (0.9, 0.999)
        and (state["step"], state["generators"]) == (step, expected["generators"])
    )


def load(folder: Path, label: str | None = None) -> Checkpoint:
    found = Checkpoints(folder).load(label)
    assert found is not None
    return found


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def flip(path: Path, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8 % len(content)] ^= 1 << bit % 8
    path.write_bytes(content)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "made" / "by it")
    assert checkpoints.load() is None
    path = checkpoints.save(400, make_state(400))
    assert path == tmp_path / "made" / "by it" / "step-00000400"
    found = load(checkpoints.folder)
    assert is_exact(found, 400)
    assert (found.path, found.label, found.rejected) == (path, None, ())
    assert names(path) == ["manifest.json", "model.safetensors", "optimizer.safetensors", "state.json"]


def test_a_loop_of_ones_own_goes_on_where_it_was(tmp_path: Path) -> None:
    def train(num_steps: int, checkpoints: Checkpoints) -> nn.Module:
        torch.manual_seed(1)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))
        model = model.to(memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(model.parameters())
        start = 0
        if found := checkpoints.load():
            model.load_state_dict(found.state["model"])
            optimizer.load_state_dict(found.state["optimizer"])
            torch.set_rng_state(found.state["generator"])
            start = found.step
        for step in range(start, num_steps):
            optimizer.zero_grad()
            model(torch.randn(5, 3, 4, 4)).square().mean().backward()
            optimizer.step()
            checkpoints.save(step + 1, {
                "model": model.state_dict(), "optimizer": optimizer.state_dict(), "generator": torch.get_rng_state(),
            })  # fmt: skip
        return model

    straight = train(6, Checkpoints(tmp_path / "straight"))
    train(3, Checkpoints(tmp_path / "in two"))
    in_two = train(6, Checkpoints(tmp_path / "in two"))
    for ours, theirs in zip(straight.state_dict().values(), in_two.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)


def test_the_model_of_a_checkpoint_loads_without_rootflow(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    path = Checkpoints(tmp_path).save(1, {"model": model.state_dict()})
    code = f"""
import sys, torch, safetensors.torch
sys.modules["rootflow"] = None
model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
model.load_state_dict(safetensors.torch.load_file({str(path / "model.safetensors")!r}))
print(model[0].weight.flatten().tolist())
"""
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert printed.strip() == str(model[0].weight.flatten().tolist())


def test_checkpoints_need_neither_hydra_nor_wandb() -> None:
    code = "import sys, rootflow.checkpoint; print({'hydra', 'omegaconf', 'wandb', 'yaml', 'rich'} & set(sys.modules))"
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert printed.strip() == "set()"


@pytest.mark.parametrize(
    ("keep", "saves", "left"),
    [
        (2, [1], [1]),
        (2, [1, 2], [1, 2]),
        (2, [1, 2, 3], [2, 3]),
        (3, [1, 2, 3, 4, 5], [3, 4, 5]),
        (2, [(1, "a"), 2, 3, 4], [1, 3, 4]),
        (2, [1, (2, "a"), 3, (4, "a"), 5, 6, 7], [4, 6, 7]),
        (2, [(1, "a"), (2, "b"), 3, 4, (5, "a")], [2, 4, 5]),
        (2, [(1, "a"), (2, "b"), (3, "c"), (4, "d")], [1, 2, 3, 4]),
        (2, [10, 20, 30, 11, 12], [11, 12]),
        (2, [10, 20, 30, 11], [11, 30]),
        (2, [1, 2, 2, 2], [1, 2]),
        (2, [(1, "a"), 2, 3, (1, "a")], [1, 3]),
        (2, [1, 2, (1, "a"), 3, 4], [1, 3, 4]),
    ],
    ids=str,
)
def test_the_newest_saves_stay_and_those_with_a_label(
    tmp_path: Path, keep: int, saves: list[int | tuple[int, str]], left: list[int]
) -> None:
    checkpoints = Checkpoints(tmp_path, keep=keep)
    for save in saves:
        step, label = save if isinstance(save, tuple) else (save, None)
        checkpoints.save(step, make_state(step), label=label)
    assert names(tmp_path) == [f"step-{step:08d}" for step in left]
    assert sorted(checkpoints.steps()) == left
    last = saves[-1][0] if isinstance(saves[-1], tuple) else saves[-1]
    assert checkpoints.steps()[-1] == last
    assert is_exact(load(tmp_path), last)
    for step in left:
        assert (tmp_path / f"step-{step:08d}" / "model.safetensors").is_file()


def test_the_newest_is_the_one_saved_last_also_when_a_training_went_back(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in (100, 200, 300):
        checkpoints.save(step, make_state(step))
    Checkpoints(tmp_path).save(150, make_state(150))
    assert is_exact(load(tmp_path), 150)


def test_a_label_names_the_last_that_was_given_it(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.load("stable") is None
    checkpoints.save(1, make_state(1), label="stable")
    checkpoints.save(2, make_state(2))
    assert is_exact(load(tmp_path, "stable"), 1)
    assert load(tmp_path, "stable").label == "stable"
    checkpoints.save(3, make_state(3), label="stable")
    assert is_exact(load(tmp_path, "stable"), 3)
    assert checkpoints.load("best") is None


def test_a_step_saved_again_is_replaced(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(5, {"a": torch.zeros(2)})
    checkpoints.save(5, {"a": torch.ones(2)})
    assert names(tmp_path) == ["step-00000005"]
    assert load(tmp_path).state["a"].tolist() == [1, 1]


def test_a_labelled_one_outlives_a_save_of_its_step_without_the_label(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(5, {"a": 1}, label="stable")
    for step in (5, 5, 6, 7, 8):
        checkpoints.save(step, {"a": 2})
    assert load(tmp_path, "stable").state == {"a": 1}
    checkpoints.save(9, {"a": 3}, label="stable")
    assert names(tmp_path) == ["step-00000008", "step-00000009"]


def test_the_state_of_the_caller_is_not_held_and_not_shared(tmp_path: Path) -> None:
    import weakref

    tensor = torch.zeros(3)
    gone = weakref.ref(tensor)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, {"a": tensor, "again": [tensor]})
    tensor.fill_(7)
    assert load(tmp_path).state["a"].tolist() == [0, 0, 0]
    del tensor
    assert gone() is None


def test_keys_of_all_kinds_become_files_of_their_own(tmp_path: Path) -> None:
    state = {key: torch.full((1,), float(i)) for i, key in enumerate(
        ["model", "Model", "val/loss", "../../evil", "", ".", "state", "manifest", "tensors-1", "é", "a" * 300, "$tensor"]
    )}  # fmt: skip
    path = Checkpoints(tmp_path).save(1, state)
    found = load(tmp_path).state
    assert list(found) == list(state)
    assert [found[key].tolist() for key in found] == [[float(i)] for i in range(len(state))]
    assert len({name.lower() for name in names(path)}) == len(state) + 2
    assert names(tmp_path) == ["step-00000001"]


def test_a_state_without_tensors_and_an_empty_one_are_states(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(0, {})
    assert load(tmp_path).state == {}
    checkpoints.save(1, {"a": [1, 2]})
    assert load(tmp_path).state == {"a": [1, 2]}


@pytest.mark.parametrize("keep", [1, 0, -1])
def test_fewer_than_two_is_refused(tmp_path: Path, keep: int) -> None:
    with pytest.raises(ConfigError, match=f"keep is {keep}; at least 2 must stay"):
        Checkpoints(tmp_path, keep=keep)


@pytest.mark.parametrize(("step", "label", "said"), [(-1, None, "step is -1"), (10**18, None, "at most 18 digits"),
    (1, "", "label is ''"), (1, "../x", "label is '../x'"), (1, "a\nb", "label is")])  # fmt: skip
def test_a_step_or_label_that_is_none_is_refused(
    tmp_path: Path, step: int, label: str | None, said: str
) -> None:
    with pytest.raises(CheckpointError, match=said):
        Checkpoints(tmp_path).save(step, {}, label=label)


def test_a_state_that_cannot_be_kept_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, make_state(1))
    with pytest.raises(
        CheckpointError, match=r"hooks\.path is a pathlib\.\w+, which a checkpoint can't hold"
    ):
        checkpoints.save(2, {"model": {"w": torch.ones(2)}, "hooks": {"path": tmp_path}})
    with pytest.raises(CheckpointError, match="has the key 3; its outermost keys must be text"):
        checkpoints.save(2, {3: 1})  # type: ignore[dict-item]
    assert names(tmp_path) == ["step-00000001"]


def test_plain_values_beyond_what_is_read_back_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"are 70,\d+,\d+ bytes of JSON, more than 67,108,864"):
        Checkpoints(tmp_path).save(1, {"text": "a" * 70_000_000})


def test_everything_that_is_not_ours_survives(tmp_path: Path) -> None:
    kept = ["best.safetensors", "best.json", "last.safetensors", "notes.txt", ".tmp", ".del-x", "step-5", "step-000000010.txt",
            ".tmp-0-step-00000001@x", "step-00000777.bak", ".rejected-step-00000001"]  # fmt: skip
    for name in kept:
        (tmp_path / name).write_text("mine")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("mine")
    for name in ("step-00000900", ".del-step-00000900", ".tmp-1-step-00000900@x", ".replaced-step-00000900"):
        (tmp_path / name).symlink_to(elsewhere)
    before = names(tmp_path)
    checkpoints = Checkpoints(tmp_path)
    for step in range(5):
        checkpoints.save(step, make_state(step))
    assert is_exact(load(tmp_path), 4)
    assert names(tmp_path) == sorted([*before, "step-00000003", "step-00000004"])
    assert all((tmp_path / name).read_text() == "mine" for name in kept)
    assert names(elsewhere) == ["precious"]


@pytest.mark.parametrize("thing", ["file", "link", "empty folder"])
def test_a_thing_that_has_the_name_of_a_step_is_moved_aside(tmp_path: Path, thing: str) -> None:
    path = tmp_path / "step-00000003"
    if thing == "file":
        path.write_text("mine")
    elif thing == "link":
        path.symlink_to("/nowhere")
    else:
        path.mkdir()
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(3, make_state(3))
    assert is_exact(load(tmp_path), 3)
    assert names(tmp_path) == [".rejected-step-00000003", "step-00000003"]


DAMAGE = {
    "a flipped bit in a tensor": (
        lambda path: flip(path / "model.safetensors", -3),
        "model.safetensors is not what was written",
    ),
    "a flipped bit in the state": (
        lambda path: flip(path / "state.json", 100),
        "state.json is not what was written",
    ),
    "a torn file": (
        lambda path: os.truncate(path / "model.safetensors", 20),
        "model.safetensors has 20 bytes, 240 were",
    ),
    "an empty file": (lambda path: os.truncate(path / "state.json", 0), "state.json has 0 bytes"),
    "a missing file": (
        lambda path: (path / "optimizer.safetensors").unlink(),
        "optimizer.safetensors is missing",
    ),
    "a missing manifest": (lambda path: (path / "manifest.json").unlink(), "manifest.json is missing"),
    "a torn manifest": (lambda path: os.truncate(path / "manifest.json", 50), "manifest.json is no manifest"),
    "a manifest of a list": (
        lambda path: (path / "manifest.json").write_text("[1]"),
        "manifest.json is no manifest",
    ),
    "a huge manifest": (
        lambda path: os.truncate(path / "manifest.json", 10**10),
        "manifest.json is too long",
    ),
    "a deep manifest": (
        lambda path: (path / "manifest.json").write_text("[" * 10**5),
        "manifest.json is no manifest",
    ),
    "a label made up": (
        lambda path: edit(path / "manifest.json", '"label": null', '"label": "stable"'),
        "manifest.json is not what was written",
    ),
    "another step's name": (
        lambda path: path.rename(path.with_name("step-00000009")),
        "its manifest is of step 3",
    ),
    "a link out": (
        lambda path: (
            (path / "state.json").rename(path.parent / "x"),
            (path / "state.json").symlink_to("../x"),
        ),
        "state.json is a symbolic link",
    ),
    "a pipe": (
        lambda path: ((path / "state.json").unlink(), os.mkfifo(path / "state.json")),
        "state.json is no regular file",
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_one_is_named_and_moved_aside_and_the_one_before_it_is_loaded(
    tmp_path: Path, kind: str
) -> None:
    damage, reason = DAMAGE[kind]
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(2, make_state(2))
    path = checkpoints.save(3, make_state(3))
    damage(path)
    found = checkpoints.load()
    assert found is not None
    assert is_exact(found, 2)
    assert len(found.rejected) == 1
    assert "step-0000000" in found.rejected[0]
    assert f"is damaged: {reason}" in found.rejected[0]
    assert "It is now .rejected-step-0000000" in found.rejected[0]
    assert len([name for name in names(tmp_path) if name.startswith(".rejected-step-")]) == 1
    assert load(tmp_path).rejected == ()


def test_a_reader_of_anothers_folder_moves_nothing_and_takes_the_closest_step(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=4)
    assert checkpoints.read() is None
    for step in (10, 20, 30, 40):
        checkpoints.save(step, make_state(step))
    for near, step in ((None, 40), (40, 40), (27, 30), (12, 10), (0, 10), (25, 30)):
        found = checkpoints.read(near=near)
        assert found is not None
        assert is_exact(found, step)
        assert found.rejected == ()
    for step in (30, 40):
        flip(tmp_path / f"step-000000{step}" / "model.safetensors")
    before = names(tmp_path)
    for near in (None, 33):
        found = checkpoints.read(near=near)
        assert found is not None
        assert is_exact(found, 20)
        assert len(found.rejected) == 2
        assert all("is damaged: " in sentence and "moved" not in sentence for sentence in found.rejected)
    for step in (10, 20):
        flip(tmp_path / f"step-000000{step}" / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"no checkpoint in .* that is whole"):
        checkpoints.read(near=10)
    assert names(tmp_path) == before


def test_if_all_are_damaged_they_stay_and_are_listed_every_time(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for path in [checkpoints.save(step, make_state(step), label="stable") for step in (1, 2)]:
        flip(path / "model.safetensors", -1)
    for label in (None, "stable", "stable"):
        with pytest.raises(CheckpointError) as caught:
            Checkpoints(tmp_path).load(label)
        assert str(caught.value).count("model.safetensors is not what was written") == 2
    assert names(tmp_path) == ["step-00000001", "step-00000002"]


def test_a_damaged_one_does_not_count_as_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2):
        checkpoints.save(step, make_state(step))
    flip(tmp_path / "step-00000002" / "model.safetensors", -1)
    with caplog.at_level(logging.WARNING):
        checkpoints.save(3, make_state(3))
    assert names(tmp_path) == [".rejected-step-00000002", "step-00000001", "step-00000003"]
    assert "step-00000002 is damaged: model.safetensors is not what was written" in caplog.text
    checkpoints.save(4, make_state(4))
    assert names(tmp_path) == [".rejected-step-00000002", "step-00000003", "step-00000004"]


def test_a_process_that_starts_verifies_what_it_relies_on(tmp_path: Path) -> None:
    for step in (1, 2):
        Checkpoints(tmp_path).save(step, make_state(step))
    flip(tmp_path / "step-00000002" / "model.safetensors", -1)
    Checkpoints(tmp_path).save(3, make_state(3))
    assert names(tmp_path) == [".rejected-step-00000002", "step-00000001", "step-00000003"]


def test_a_bit_that_the_disk_lost_is_found_although_no_file_looks_changed(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2):
        path = checkpoints.save(step, make_state(step)) / "model.safetensors"
    before = path.stat()
    flip(path, -1)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    found = checkpoints.load()
    assert found is not None
    assert is_exact(found, 1)


def test_rejected_ones_are_never_removed_or_overwritten(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, make_state(1))
    for _ in range(3):
        flip(checkpoints.save(2, make_state(2)) / "model.safetensors", -1)
        assert is_exact(load(tmp_path), 1)
    assert names(tmp_path) == [
        ".rejected-step-00000002",
        ".rejected-step-00000002-2",
        ".rejected-step-00000002-3",
        "step-00000001",
    ]


def test_every_flipped_bit_and_every_cut_is_found(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "c")
    checkpoints.save(1, make_state(1))
    path = checkpoints.save(2, make_state(2))
    files = sorted(path.iterdir())
    sizes = [file.stat().st_size for file in files]
    draw, num_harmless = random.Random(0), 0
    for case in range(600):
        file = draw.choices(files, sizes if case % 2 else None)[0]
        content = file.read_bytes()
        if case < 400:
            flip(file, draw.randrange(len(content) * 8))
        else:
            os.truncate(file, draw.randrange(len(content)))
        found = checkpoints.load()
        assert found is not None
        if found.rejected:
            assert is_exact(found, 1)
            (tmp_path / "c" / ".rejected-step-00000002").rename(path)
        else:  # white space of the manifest
            assert is_exact(found, 2)
            assert file.name == "manifest.json"
            num_harmless += 1
        file.write_bytes(content)
    assert num_harmless < 10


def test_a_later_format_is_told_and_not_taken_for_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as later:
        later.setattr("rootflow.checkpoint.manifest._FORMAT", 2)
        Checkpoints(tmp_path).save(1, make_state(1))
    for use in (Checkpoints(tmp_path).load, lambda: Checkpoints(tmp_path).save(2, {})):
        with pytest.raises(
            CheckpointError, match=r"step-00000001 has format 2, this rootflow reads 1. Use a later one"
        ):
            use()
    assert names(tmp_path) == ["step-00000001"]


@pytest.mark.parametrize("name", ["../best.safetensors", "/etc/passwd", "a/b", "..", "", ".hidden"])
def test_a_manifest_that_names_files_elsewhere_is_damage(tmp_path: Path, name: str) -> None:
    from rootflow.checkpoint.manifest import Manifest, write_manifest
    from rootflow.files import Digest

    path = tmp_path / "step-00000001"
    path.mkdir()
    write_manifest(path, Manifest(1, None, 1, {name: Digest(0, "0")}))
    with pytest.raises(CheckpointError, match="can't be a file of it"):
        Checkpoints(tmp_path).load()


@pytest.mark.parametrize("text", ["[]", '{"a": 3}', '{"a": {"file": "../../x", "value": 1}}', "[" * 10**5,
    '{"a": {"file": "manifest.json", "value": 1}}', '{"a": {"file": null, "value": {"$tensor": "x"}}}',
    '{"a": {"file": "state.json", "value": 1}}'])  # fmt: skip
def test_a_state_that_somebody_made_up_is_damage(tmp_path: Path, text: str) -> None:
    from rootflow.checkpoint.manifest import Manifest, write_manifest
    from rootflow.files import write_synced

    path = tmp_path / "step-00000001"
    path.mkdir()
    written = write_synced(path / "state.json", [text.encode()])
    write_manifest(path, Manifest(1, None, 1, {"state.json": written}))
    with pytest.raises(
        CheckpointError, match=r"step-00000001: .*(is no state|is not in the manifest|can't be read)"
    ):
        Checkpoints(tmp_path).load()


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_what_dead_processes_left_is_removed_and_what_may_be_alive_is_not(tmp_path: Path) -> None:
    host, dead = socket.gethostname(), dead_pid()
    gone = [
        f".tmp-{dead}-step-00000007@{host}",
        f".tmp-{os.getpid()}-step-00000007@{host}",
        ".del-step-00000001",
    ]
    stay = [
        f".tmp-{os.getppid()}-step-00000007@{host}",
        f".tmp-{dead}-step-00000007@elsewhere",
        ".tmp-9999999999-step-00000007@" + host,
    ]
    for name in gone + stay:
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_text("torn")
    Checkpoints(tmp_path).save(1, make_state(1))
    assert names(tmp_path) == sorted([*stay, "step-00000001"])


def test_what_cannot_be_removed_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoints = Checkpoints(tmp_path)
    path = checkpoints.save(1, make_state(1))
    (path / "made by somebody").mkdir()
    with caplog.at_level(logging.WARNING):
        for step in (2, 3):
            checkpoints.save(step, make_state(step))
    assert is_exact(load(tmp_path), 3)
    assert ".del-step-00000001 can't be removed" in caplog.text
    assert (tmp_path / ".del-step-00000001" / "made by somebody").is_dir()


def test_a_folder_that_may_only_be_read_can_be_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2):
        checkpoints.save(step, make_state(step))
    flip(tmp_path / "step-00000002" / "model.safetensors", -1)

    def refuse(*paths: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "rename", refuse)  # tests may run as root, who may write anywhere
    found = load(tmp_path)
    assert is_exact(found, 1)
    assert "It can't be moved aside: [Errno 13] Permission denied" in found.rejected[0]


def test_no_permission_to_read_is_told_and_not_taken_for_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Checkpoints(tmp_path).save(1, make_state(1))
    real = os.open

    def refuse(path: Any, *args: Any) -> int:
        if str(path).endswith("model.safetensors"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *args)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(CheckpointError, match=r"can't be read: .*Permission denied"):
        Checkpoints(tmp_path).load()
    assert names(tmp_path) == ["step-00000001"]


@pytest.mark.parametrize("name", ["manifest.json", "model.safetensors"])
def test_one_that_the_disk_does_not_give_back_is_left_out_and_left_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for step in (1, 2):
        Checkpoints(tmp_path).save(step, make_state(step))
    real = os.open

    def fail(path: Any, *args: Any) -> int:
        if str(path).endswith(f"step-00000002/{name}"):
            raise OSError(5, "Input/output error", str(path))
        return real(path, *args)

    with monkeypatch.context() as broken:
        broken.setattr(os, "open", fail)
        found = load(tmp_path)
        assert is_exact(found, 1)
        assert f"step-00000002 is left out: {name} can't be read from the disk" in found.rejected[0]
        Checkpoints(tmp_path).save(3, make_state(3))
        Checkpoints(tmp_path).save(4, make_state(4))
    # without its manifest nobody knows whether it is an old one without a label
    assert ("step-00000002" in names(tmp_path)) == (name == "manifest.json")
    assert [name for name in names(tmp_path) if name != "step-00000002"] == ["step-00000003", "step-00000004"]
    assert is_exact(load(tmp_path), 4)


def test_a_clock_that_was_set_back_does_not_make_old_ones_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in (30, 20):
        checkpoints.save(step, make_state(step))
    monkeypatch.setattr("time.time_ns", lambda: 5)
    checkpoints.save(10, make_state(10))
    assert is_exact(load(tmp_path), 10)
    assert checkpoints.steps() == [20, 10]


def test_a_reader_never_meets_damage_while_a_writer_replaces_and_removes(tmp_path: Path) -> None:
    Checkpoints(tmp_path).save(1, make_state(1))
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from rootflow.checkpoint import Checkpoints
from tests.checkpoint.test_folder import make_state
checkpoints = Checkpoints({str(tmp_path)!r})
print("ready", flush=True)
for index in range(60):
    step = 2 + index % 3  # each step again and again
    checkpoints.save(step, make_state(step))
"""
    num_loads = 0
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        while writer.poll() is None:
            found = load(tmp_path)
            assert is_exact(found, found.step)
            assert found.rejected == ()
            num_loads += 1
    assert writer.returncode == 0
    assert num_loads > 0
    assert not [name for name in names(tmp_path) if not name.startswith("step-")]


def test_a_copied_folder_is_as_good(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "a")
    for step in (1, 2):
        checkpoints.save(step, make_state(step), label="stable" if step == 1 else None)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert is_exact(load(tmp_path / "b"), 2)
    assert is_exact(load(tmp_path / "b", "stable"), 1)


def test_saving_beside_forked_children_is_no_trouble(tmp_path: Path) -> None:
    import torch.utils.data

    data = torch.utils.data.TensorDataset(torch.arange(8.0))
    batches = iter(
        torch.utils.data.DataLoader(data, batch_size=2, num_workers=1, multiprocessing_context="fork")
    )
    checkpoints = Checkpoints(tmp_path)
    for step, (batch,) in enumerate(batches):
        checkpoints.save(step, {"batch": batch})
    assert load(tmp_path).state["batch"].tolist() == [6, 7]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_tensors_of_a_gpu_come_back_on_the_host(tmp_path: Path) -> None:
    weight = torch.randn(2, 3, 4, 4, device="cuda").to(memory_format=torch.channels_last)
    Checkpoints(tmp_path).save(1, {"model": {"w": weight}, "rng": torch.cuda.get_rng_state_all()})
    found = load(tmp_path).state["model"]["w"]
    assert found.device.type == "cpu"
    assert found.stride() == weight.stride()
    assert torch.equal(found, weight.cpu())
