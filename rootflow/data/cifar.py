"""CIFAR-10 and CIFAR-100 from their publisher's binary files; never from the pickles.

Each record is one or two label bytes and 3,072 pixels, channel by channel (Krizhevsky 2009, "Learning
Multiple Layers of Features from Tiny Images", https://www.cs.toronto.edu/~kriz/cifar.html).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import TensorDataset

from rootflow.data.augment import Augment
from rootflow.data.download import Source, default_root, fetch_archive
from rootflow.data.splits import Split, Splits, split_dataset
from rootflow.errors import DataError
from rootflow.registry import register

_SHAPE = (3, 32, 32)
_NUM_PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class Edition:
    """One of the two data sets, as its publisher laid it out."""

    source: Source
    folder: str
    train: Mapping[str, int]
    """Records of each file."""
    test: Mapping[str, int]
    class_names: str
    """The file that lists them, one a line."""
    num_label_bytes: int = 1
    """The last one counts."""


# sizes and sha256 of the archives as TensorFlow Datasets records them (its url_checksums folder)
_CIFAR10 = Edition(
    Source(
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        170_052_171,
    ),
    folder="cifar-10-batches-bin",
    train={f"data_batch_{number}.bin": 10_000 for number in range(1, 6)},
    test={"test_batch.bin": 10_000},
    class_names="batches.meta.txt",
)
_CIFAR100 = Edition(
    Source(
        "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
        "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        168_513_733,
    ),
    folder="cifar-100-binary",
    train={"train.bin": 50_000},
    test={"test.bin": 10_000},
    class_names="fine_label_names.txt",
    num_label_bytes=2,  # coarse, then fine
)


@register("dataset", "cifar10")
def cifar10(
    *,
    root: str | None = None,
    download: bool = True,
    split: Split = Split(),
    augment: Augment = Augment(flip="alternating", translate=4),
) -> Splits:
    """CIFAR-10: 60,000 photos of 32 x 32 pixels in 10 classes.

    Args:
        root: folder of the data sets, with cifar-10-batches-bin in it; null for the default
        download: get it from the publisher if it isn't there (170 MB)
        split: share of validation; the test set is the publisher's
        augment: variation of the training images

    Raises:
        DataError: the files are missing and can't be had, or are damaged.
    """
    folder = find_folder(_CIFAR10, root, download=download)
    return split_dataset(replace(load(_CIFAR10, folder), augment=augment), split=split)


@register("dataset", "cifar100")
def cifar100(
    *,
    root: str | None = None,
    download: bool = True,
    split: Split = Split(),
    augment: Augment = Augment(flip="alternating", translate=4),
) -> Splits:
    """CIFAR-100: 60,000 photos of 32 x 32 pixels in 100 classes (the fine labels).

    Args:
        root: folder of the data sets, with cifar-100-binary in it; null for the default
        download: get it from the publisher if it isn't there (169 MB)
        split: share of validation; the test set is the publisher's
        augment: variation of the training images

    Raises:
        DataError: the files are missing and can't be had, or are damaged.
    """
    folder = find_folder(_CIFAR100, root, download=download)
    return split_dataset(replace(load(_CIFAR100, folder), augment=augment), split=split)


def find_folder(edition: Edition, root: str | None, *, download: bool) -> Path:
    """Return the folder with an edition's files, downloaded if it isn't there and may be.

    Raises:
        DataError: it isn't there.
    """
    parent = Path(root).expanduser() if root is not None else default_root()
    folder = parent / edition.folder
    if folder.is_dir():
        return folder
    if not download:
        raise DataError(
            f"{folder} does not exist. Set dataset.download=true, or unpack {edition.source.url} into "
            f"{parent}, or set dataset.root to the folder that holds it."
        )
    return fetch_archive(edition.source, parent, folder=edition.folder)


def load(edition: Edition, folder: Path) -> Splits:
    """Read the two sets of images of an edition, without holding anything out.

    Raises:
        DataError: a file is missing or has another size than it should.
    """
    names = (_checked(folder / edition.class_names).read_text(encoding="utf-8")).split("\n")
    class_names = tuple(name.strip() for name in names if name.strip())
    train = _read_records(folder, edition.train, edition.num_label_bytes)
    test = _read_records(folder, edition.test, edition.num_label_bytes)
    sizes = {name: {"num_bytes": (folder / name).stat().st_size} for name in (*edition.train, *edition.test)}
    return Splits(
        train=train,
        test=test,
        num_classes=len(class_names),
        class_names=class_names,
        record={"source": sizes},
    )


def _read_records(folder: Path, files: Mapping[str, int], num_label_bytes: int) -> TensorDataset:
    record_bytes = num_label_bytes + _NUM_PIXELS
    total = sum(files.values())
    images, labels = np.empty((total, _NUM_PIXELS), np.uint8), np.empty(total, np.int64)
    start = 0
    for name, num_records in files.items():
        path = _checked(folder / name, num_records * record_bytes)
        records = np.fromfile(path, np.uint8).reshape(num_records, record_bytes)
        labels[start : start + num_records] = records[:, num_label_bytes - 1]
        images[start : start + num_records] = records[:, num_label_bytes:]
        start += num_records
    return TensorDataset(torch.from_numpy(images).view(-1, *_SHAPE), torch.from_numpy(labels))


def _checked(path: Path, expected: int | None = None) -> Path:
    what_to_do = f"Delete {path.parent} to download it anew, or unpack the publisher's archive there."
    if not path.is_file():
        raise DataError(f"{path} is missing. {what_to_do}")
    if expected is not None and path.stat().st_size != expected:
        raise DataError(
            f"{path} has {path.stat().st_size:,} bytes and should have {expected:,}. {what_to_do}"
        )
    return path
