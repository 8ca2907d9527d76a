"""Handwritten digits, 8 x 8 pixels: 1,797 of them, offline, loaded in milliseconds."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import TensorDataset

from rootflow.data.splits import Split, Splits, split_dataset
from rootflow.errors import DataError
from rootflow.registry import register

_FULL_SCALE = 16
_NUM_COLUMNS = 8 * 8 + 1


@register("dataset", "digits")
def digits(*, split: Split = Split()) -> Splits:
    """Handwritten digits of 8 x 8 pixels, the ones that scikit-learn carries (1,797 samples).

    They are a part of Alpaydin & Kaynak 1998, "Optical Recognition of Handwritten Digits" (UCI).

    Args:
        split: shares of validation and test

    Raises:
        DataError: scikit-learn, whose data file is read, isn't installed.
    """
    path = _find_file()
    text = gzip.decompress(path.read_bytes())
    # one pass over the numbers; numpy.loadtxt takes ten times as long
    table = np.fromstring(text.replace(b"\n", b",").rstrip(b",").decode("ascii"), dtype=np.float32, sep=",")
    table = table.reshape(-1, _NUM_COLUMNS)
    # float32 of 0..1 and not uint8, which stands for 0..255 everywhere else
    images = torch.from_numpy(table[:, :-1] / _FULL_SCALE).view(
        -1, 1, 8, 8
    )  # (sample, channel, height, width)
    labels = torch.from_numpy(table[:, -1].astype(np.int64))
    splits = Splits(
        train=TensorDataset(images, labels),
        num_classes=10,
        class_names=tuple("0123456789"),
        record={"source": {path.name: {"num_bytes": len(text), "sha256": hashlib.sha256(text).hexdigest()}}},
    )
    return split_dataset(splits, split=split)


def _find_file() -> Path:
    spec = importlib.util.find_spec("sklearn")  # importing scikit-learn takes a second
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if path.is_file():
            return path
    raise DataError(
        "dataset=digits reads a file of scikit-learn, which is not installed. pip install scikit-learn"
    )
