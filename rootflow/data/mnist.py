"""MNIST and Fashion-MNIST from their publishers' idx files, gzipped or not.

The idx format: two zero bytes, the type of the numbers, the number of dimensions, each dimension as a
big-endian int32, then the numbers (LeCun, Cortes & Burges, "The MNIST database of handwritten digits").
"""

from __future__ import annotations

import gzip
import hashlib
import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import TensorDataset

from rootflow.data.augment import Augment
from rootflow.data.download import Source, default_root, fetch
from rootflow.data.splits import Split, Splits, split_dataset
from rootflow.errors import DataError
from rootflow.registry import register

_UINT8 = 0x08
_FILES = {
    "train-images-idx3-ubyte": (60_000, 28, 28),
    "train-labels-idx1-ubyte": (60_000,),
    "t10k-images-idx3-ubyte": (10_000, 28, 28),
    "t10k-labels-idx1-ubyte": (10_000,),
}
"""Shapes of the four files of either set."""


@dataclass(frozen=True)
class Edition:
    """One of the two data sets, as its publisher laid it out."""

    folder: str
    url: str
    checks: tuple[tuple[int, str], ...]
    """Bytes and sha256 of the gzipped files in the order of `_FILES`, from TensorFlow Datasets."""
    class_names: tuple[str, ...]

    def source(self, name: str) -> Source:
        """Return where the gzipped file of that name comes from."""
        num_bytes, sha256 = self.checks[[*_FILES].index(name)]
        return Source(f"{self.url}/{name}.gz", sha256, num_bytes)


_MNIST = Edition(
    folder="mnist",
    url="https://ossci-datasets.s3.amazonaws.com/mnist",
    checks=(
        (9_912_422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
        (28_881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
        (1_648_877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
        (4_542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
    ),
    class_names=tuple("0123456789"),
)
_FASHION_MNIST = Edition(
    folder="fashion-mnist",
    # the publisher's repository: his file server, which the sums were taken from, speaks http only
    url="https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
    checks=(
        (26_421_880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
        (29_515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
        (4_422_102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
        (5_148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
    ),
    class_names=(
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
)


@register("dataset", "mnist")
def mnist(
    *,
    root: str | None = None,
    download: bool = True,
    split: Split = Split(),
    augment: Augment = Augment(translate=2),
) -> Splits:
    """MNIST: 70,000 handwritten digits of 28 x 28 pixels.

    Args:
        root: folder of the data sets, with mnist in it; null for the default
        download: get it if it isn't there (12 MB)
        split: share of validation; the test set is the publishers'
        augment: variation of the training images

    Raises:
        DataError: the files are missing and can't be had, or are damaged.
    """
    return split_dataset(replace(_load(_MNIST, root, download=download), augment=augment), split=split)


@register("dataset", "fashion_mnist")
def fashion_mnist(
    *,
    root: str | None = None,
    download: bool = True,
    split: Split = Split(),
    augment: Augment = Augment(flip="alternating", translate=2),
) -> Splits:
    """Fashion-MNIST: 70,000 pictures of clothes, 28 x 28 pixels in 10 classes.

    Args:
        root: folder of the data sets, with fashion-mnist in it; null for the default
        download: get it if it isn't there (31 MB)
        split: share of validation; the test set is the publisher's
        augment: variation of the training images

    Raises:
        DataError: the files are missing and can't be had, or are damaged.
    """
    return split_dataset(
        replace(_load(_FASHION_MNIST, root, download=download), augment=augment), split=split
    )


def _load(edition: Edition, root: str | None, *, download: bool) -> Splits:
    folder = (Path(root).expanduser() if root is not None else default_root()) / edition.folder
    arrays, record = [], {}
    for name, shape in _FILES.items():
        path = _find_file(folder, edition.source(name), download=download)
        arrays.append(torch.from_numpy(read_idx(path, shape)))
        record[path.name] = {"num_bytes": path.stat().st_size, "sha256": _sha256(path)}
    train_images, train_labels, test_images, test_labels = arrays
    return Splits(
        train=TensorDataset(train_images.unsqueeze(1), train_labels.long()),  # (sample, 1, height, width)
        test=TensorDataset(test_images.unsqueeze(1), test_labels.long()),
        num_classes=len(edition.class_names),
        class_names=edition.class_names,
        record={"source": record},
    )


def _find_file(folder: Path, source: Source, *, download: bool) -> Path:
    for path in (folder / source.name.removesuffix(".gz"), folder / source.name):
        if path.is_file():
            return path
    if download:
        return fetch(source, folder)
    raise DataError(
        f"{folder / source.name} does not exist. Set dataset.download=true, or put {source.url} there, or "
        "set dataset.root to the folder that holds it."
    )


def read_idx(path: Path, shape: Sequence[int]) -> NDArray[np.uint8]:
    """Read an idx file of uint8, gzipped if its name ends in .gz.

    Raises:
        DataError: it isn't one, holds another shape than ``shape``, or ends too early.
    """
    header = struct.pack(f">HBB{len(shape)}I", 0, _UINT8, len(shape), *shape)
    expected = len(header) + math.prod(shape)
    what_to_do = "Delete it to download it anew, or replace it."
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read(expected + 1)  # one more byte shows that there is too much
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} is damaged: {error}. {what_to_do}") from error
    if content[: len(header)] != header[: len(content)]:
        raise DataError(
            f"{path} does not begin like an idx file of uint8 with shape {tuple(shape)}: "
            f"{content[: len(header)].hex(' ')} in place of {header.hex(' ')}. {what_to_do}"
        )
    if len(content) != expected:
        size = f"ends after {len(content):,} of" if len(content) < expected else "has more than"
        raise DataError(f"{path} {size} {expected:,} bytes. {what_to_do}")
    return np.frombuffer(bytearray(content), np.uint8, offset=len(header)).reshape(shape)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
