"""Weights to files and back, and what plain PyTorch makes of them."""

from __future__ import annotations

import errno
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from rootflow.checkpoint import WeightKeeper, load_weights, save_weights
from rootflow.errors import CheckpointError
from tests.checkpoint.faults import failing_at, run_killed


def make_model() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


def test_a_saved_file_loads_in_a_process_without_rootflow(tmp_path: Path) -> None:
    model = make_model().to(memory_format=torch.channels_last)
    save_weights(tmp_path / "best.safetensors", model.state_dict(), {"step": 3, "val/loss": float("nan")})
    code = f"""
import sys, torch, safetensors.torch
sys.modules["rootflow"] = None
model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten(), torch.nn.Linear(4, 2))
model.load_state_dict(safetensors.torch.load_file({str(tmp_path / "best.safetensors")!r}))
print(float(sum(p.detach().double().sum() for p in model.parameters())))
"""
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert float(printed) == pytest.approx(
        float(sum(p.detach().double().sum() for p in model.parameters())), abs=1e-9
    )
    content = (tmp_path / "best.safetensors").read_bytes()
    assert json.loads((tmp_path / "best.json").read_text()) == {
        "step": 3,
        "val/loss": None,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def test_tied_weights_are_written_under_every_name(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    save_weights(tmp_path / "a.safetensors", model.state_dict(), {})
    other = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    load_weights(other, tmp_path / "a.safetensors")
    assert torch.equal(other[1].weight, model[0].weight)


def test_a_file_of_another_model_is_refused_and_nothing_is_loaded(tmp_path: Path) -> None:
    save_weights(tmp_path / "a.safetensors", nn.Linear(3, 4).state_dict(), {})
    model = nn.Linear(3, 5)
    before = model.weight.clone()
    with pytest.raises(CheckpointError, match=r"weight is \(4, 3\) in the file, \(5, 3\) in the model"):
        load_weights(model, tmp_path / "a.safetensors")
    assert torch.equal(model.weight, before)


@pytest.mark.parametrize("damage", ["missing", "truncated", "text", "one bit"])
@pytest.mark.parametrize("with_json", [True, False])
def test_a_damaged_file_is_an_error_of_ours(tmp_path: Path, damage: str, with_json: bool) -> None:
    path = tmp_path / "a.safetensors"
    save_weights(path, nn.Linear(30, 40).state_dict(), {})
    content = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(content[:-100])
    elif damage == "text":
        path.write_text("not a checkpoint")
    else:
        content[-1] ^= 1
        path.write_bytes(content)
    if not with_json:
        path.with_suffix(".json").unlink()
    model = nn.Linear(30, 40)
    before = model.weight.clone()
    if damage == "one bit" and not with_json:  # nothing knows better
        load_weights(model, path)
        return
    with pytest.raises(
        CheckpointError, match="is damaged" if with_json and damage != "missing" else "can't be read"
    ):
        load_weights(model, path)
    assert torch.equal(model.weight, before)


def test_a_json_that_is_none_says_how_to_go_on_without_it(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_weights(path, nn.Linear(3, 4).state_dict(), {})
    path.with_suffix(".json").write_text("{")
    with pytest.raises(
        CheckpointError, match=r"a\.json can't be read: .*Remove it to load a\.safetensors unverified"
    ):
        load_weights(nn.Linear(3, 4), path)


def test_a_json_of_somebody_else_is_left_out_of_it(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_weights(path, nn.Linear(3, 4).state_dict(), {})
    path.with_suffix(".json").write_text('["sha256", "bytes"]')
    load_weights(nn.Linear(3, 4), path)


@pytest.mark.parametrize("call", range(20))
def test_a_kill_while_weights_are_replaced_never_leaves_what_cannot_be_loaded(
    tmp_path: Path, call: int
) -> None:
    path = tmp_path / "best.safetensors"
    models = [nn.Linear(3, 4), nn.Linear(3, 4)]
    save_weights(path, models[0].state_dict(), {"step": 0})
    run_killed(lambda: save_weights(path, models[1].state_dict(), {"step": 1}), call)
    found = nn.Linear(3, 4)
    load_weights(found, path)
    assert any(torch.equal(found.weight, model.weight) for model in models)
    about = path.with_suffix(".json")
    if about.exists():
        step = json.loads(about.read_text())["step"]
        assert torch.equal(found.weight, models[step].weight)
    save_weights(path, models[1].state_dict(), {"step": 1})
    load_weights(found, path)


def test_a_full_disk_leaves_the_weights_that_were_there(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    model = nn.Linear(300, 400)
    save_weights(path, model.state_dict(), {"step": 0})
    with (
        failing_at(3, errno.ENOSPC),
        pytest.raises(CheckpointError, match=r"No space left on /.*: need 0\.5 MB in .*have"),
    ):
        save_weights(path, nn.Linear(300, 400).state_dict(), {"step": 1})
    found = nn.Linear(300, 400)
    load_weights(found, path)
    assert torch.equal(found.weight, model.weight)
    assert json.loads(path.with_suffix(".json").read_text())["step"] == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best.json", "best.safetensors"]


def test_what_waits_is_written_by_flush_and_read_before_it(tmp_path: Path) -> None:
    keeper = WeightKeeper(tmp_path / "checkpoints", every_s=1000)
    model = nn.Linear(3, 3)
    keeper.keep(("best",), model, {"step": 1})
    kept = model.weight.detach().clone()
    with torch.no_grad():
        model.weight.zero_()
    assert not (tmp_path / "checkpoints").exists()
    keeper.load("best", model)
    assert torch.equal(model.weight, kept)
    keeper.flush()
    other = nn.Linear(3, 3)
    keeper.load("best", other)
    assert torch.equal(other.weight, kept)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["best.json", "best.safetensors"]
