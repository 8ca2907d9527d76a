"""Arrays that lie ready in files: NumPy's .npz and .npy, and .safetensors. Pickles in them are refused."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from rootflow.data.augment import Augment
from rootflow.data.splits import Split, Splits, split_dataset
from rootflow.errors import DataError
from rootflow.registry import register

_INPUT_NAMES = ("x", "inputs", "images")
_TARGET_NAMES = ("y", "targets", "labels")
_ENDINGS = {"train": ("", "_train"), "val": ("_val",), "test": ("_test",)}


@register("dataset", "tensors")
def tensors(path: str, *, split: Split = Split(), augment: Augment = Augment()) -> Splits:
    """Arrays from a .npz or .safetensors file, or a folder of .npy files.

    Inputs are called x, inputs or images; targets, which may be missing, y, targets or labels. With the
    ending _val or _test they are those parts; the ending _train may be left out. Whole-number targets
    are classes, others are numbers. uint8 inputs are images: (sample, height, width) gets a channel, and
    (sample, height, width, 1 or 3) is turned to (sample, channel, height, width).

    Args:
        path: the file, or the folder
        split: shares of the parts that aren't in the file
        augment: variation of the training inputs, if they are images

    Raises:
        DataError: the file is missing or damaged, or its arrays don't fit together.
    """
    file = Path(path).expanduser()
    arrays = _read(file)
    found = {name: _find_part(file, arrays, name) for name in _ENDINGS}
    parts: dict[str, Any] = {name: part for name, part in found.items() if part is not None}
    if "train" not in parts:
        raise DataError(
            f"{file} holds {', '.join(sorted(arrays)) or 'nothing'}; the inputs must be called one of "
            f"{', '.join(_INPUT_NAMES)}."
        )
    record = {"source": {file.name: {name: [str(a.dtype), *a.shape] for name, a in arrays.items()}}}
    return split_dataset(Splits(**parts, augment=augment, record=record), split=split)


def _read(path: Path) -> Mapping[str, Tensor]:
    """Read every array, as a tensor in one of the types that models take."""
    files = sorted(path.glob("*.npy")) if path.is_dir() else [path]
    if not path.exists() or not files:
        raise DataError(
            f"{path} {'holds no .npy files' if path.exists() else 'does not exist'}. Set dataset.path."
        )
    found: dict[str, Any] = {}
    try:
        for file in files:
            if file.suffix == ".safetensors":
                found |= safetensors.torch.load_file(file)
            elif file.suffix in (".npz", ".npy"):
                with file.open("rb") as opened:  # numpy leaves a damaged file open
                    loaded = np.load(opened, allow_pickle=False)
                    found |= {file.stem: loaded} if isinstance(loaded, np.ndarray) else dict(loaded)
            else:
                raise DataError(f"{file} is not a .npz, .npy or .safetensors file.")
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, safetensors.SafetensorError) as error:
        raise DataError(f"{path} can't be read: {error}") from error
    return {name: _as_tensor(path, name, array) for name, array in found.items()}


def _as_tensor(path: Path, name: str, array: Any) -> Tensor:
    try:
        tensor = array if isinstance(array, Tensor) else torch.from_numpy(np.ascontiguousarray(array))
    except TypeError as error:
        raise DataError(f"{name} in {path} has the type {array.dtype}; rootflow takes numbers.") from error
    if tensor.dtype == torch.uint8:
        return tensor
    return tensor.float() if tensor.is_floating_point() else tensor.long()


def _find_part(path: Path, arrays: Mapping[str, Tensor], part: str) -> TensorDataset | None:
    inputs, targets = (
        next((arrays[n + e] for n in names for e in _ENDINGS[part] if n + e in arrays), None)
        for names in (_INPUT_NAMES, _TARGET_NAMES)
    )
    if inputs is None:
        return None
    if targets is None:
        return TensorDataset(_as_images(inputs))
    if len(inputs) != len(targets):
        raise DataError(
            f"{path} has {len(inputs)} {part} inputs and {len(targets)} targets; every sample needs one of "
            "each."
        )
    targets = targets.squeeze(1) if targets.ndim == 2 and targets.shape[1] == 1 else targets
    return TensorDataset(_as_images(inputs), targets if targets.is_floating_point() else targets.long())


def _as_images(inputs: Tensor) -> Tensor:
    if inputs.dtype == torch.uint8 and inputs.ndim == 3:
        return inputs.unsqueeze(1)
    is_channels_last = inputs.ndim == 4 and inputs.shape[3] in (1, 3) and inputs.shape[1] not in (1, 3)
    return (
        inputs.permute(0, 3, 1, 2).contiguous()
        if inputs.dtype == torch.uint8 and is_channels_last
        else inputs
    )
