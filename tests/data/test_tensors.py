"""Arrays in files: what they are called, and what is refused."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from rootflow.data.facts import describe
from rootflow.data.splits import Split
from rootflow.data.tensors import tensors
from rootflow.errors import DataError

ALL = Split(val_frac=0, test_frac=0)
X, Y = np.random.default_rng(0).random((10, 3)), np.arange(10) % 2


def saved(folder: Path, kind: str, arrays: dict[str, Any]) -> str:
    path = folder / f"data.{kind}"
    if kind == "npz":
        np.savez(path, **arrays)
    elif kind == "safetensors":
        safetensors.torch.save_file({name: torch.as_tensor(array) for name, array in arrays.items()}, path)
    else:
        path.mkdir()
        for name, array in arrays.items():
            np.save(path / f"{name}.npy", array)
    return str(path)


def parts(part: Any) -> tuple[Tensor, ...]:
    assert isinstance(part, TensorDataset)
    return part.tensors


@pytest.mark.parametrize("kind", ["npz", "safetensors", "folder"])
@pytest.mark.parametrize("names", [("x", "y"), ("images_train", "labels_train"), ("inputs", "targets")])
def test_every_kind_of_file_gives_the_same(tmp_path: Path, kind: str, names: tuple[str, str]) -> None:
    splits = tensors(saved(tmp_path, kind, {names[0]: X, names[1]: Y}), split=ALL)
    inputs, targets = parts(splits.train)
    assert torch.equal(inputs, torch.from_numpy(X).float())
    assert torch.equal(targets, torch.from_numpy(Y).long())


def test_parts_in_the_file_are_kept_and_the_others_held_out(tmp_path: Path) -> None:
    splits = tensors(saved(tmp_path, "npz", {"x": X, "y": Y, "x_test": X[:3], "y_test": Y[:3]}))
    assert [len(parts(p)[0]) for p in (splits.train, splits.val, splits.test)] == [9, 1, 3]


def test_targets_are_optional_and_may_be_a_column(tmp_path: Path) -> None:
    assert len(parts(tensors(saved(tmp_path, "npz", {"x": X}), split=ALL).train)) == 1
    splits = tensors(saved(tmp_path, "npz", {"x": X, "y": X[:, :1]}), split=ALL)
    assert parts(splits.train)[1].shape == (10,)
    assert describe(splits).target == "number"


@pytest.mark.parametrize("shape", [(5, 8, 7), (5, 8, 7, 3), (5, 3, 8, 7), (5, 8, 7, 1)])
def test_uint8_arrays_are_images_with_the_channel_first(tmp_path: Path, shape: tuple[int, ...]) -> None:
    splits = tensors(saved(tmp_path, "npz", {"images": np.ones(shape, np.uint8), "labels": Y[:5]}), split=ALL)
    facts = describe(splits)
    assert facts.input_shape == (3 if 3 in shape else 1, 8, 7)
    assert facts.mean == pytest.approx([1 / 255] * (facts.in_channels or 0))


class Payload:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_pickles_are_refused_and_not_run(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    evil = np.array([Payload(touched)] * 10, dtype=object)
    for kind in ("npz", "folder"):
        with pytest.raises(DataError, match="can't be read: Object arrays cannot be loaded"):
            tensors(saved(tmp_path, kind, {"x": evil, "y": Y}))
    (tmp_path / "raw.npy").write_bytes(pickle.dumps(Payload(touched)))
    with pytest.raises(DataError, match="can't be read"):
        tensors(str(tmp_path / "raw.npy"))
    assert not touched.exists()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": X, "y": Y[:4]}, "has 10 train inputs and 4 targets"),
        ({"foo": X, "y": Y}, "holds foo, y; the inputs must be called one of x, inputs, images"),
        ({"x": X, "y": np.array(["a"] * 10)}, "y in .* has the type <U1; rootflow takes numbers"),
    ],
)
def test_arrays_that_do_not_fit_say_why(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        tensors(saved(tmp_path, "npz", arrays))


@pytest.mark.parametrize("name", ["a.npz", "a.npy", "a.safetensors", "a.pt"])
def test_files_that_are_missing_or_damaged_are_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=f"{name} does not exist"):
        tensors(str(tmp_path / name))
    (tmp_path / name).write_bytes(b"PK\3\4 not really")
    with pytest.raises(DataError, match=name):
        tensors(str(tmp_path / name))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"holds no \.npy files"):
        tensors(str(tmp_path / "empty"))
