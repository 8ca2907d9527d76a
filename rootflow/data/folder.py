"""Folders of images, one a class, read when they are needed."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from rootflow.data.augment import Augment
from rootflow.data.splits import Split, Splits, split_dataset
from rootflow.errors import DataError, did_you_mean
from rootflow.limits import PositiveInt
from rootflow.registry import register

_ENDINGS = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


@register("dataset", "folder")
def folder(
    path: str, *, image_size: PositiveInt | None = None, split: Split = Split(), augment: Augment = Augment()
) -> Splits:
    """Images in one folder for each class; under train, val and test if those are there.

    Images become RGB. With ``image_size`` the middle square of each is scaled to it.

    Args:
        path: the folder that holds the class folders, or train, val and test
        image_size: pixels a side; null takes images as they are, which must then be of one size
        split: shares of the parts that have no folder
        augment: variation of the training images

    Raises:
        DataError: there are no images, or classes that training hasn't, or Pillow isn't installed.
    """
    if importlib.util.find_spec("PIL") is None:
        raise DataError(
            "dataset=folder reads images with Pillow, which is not installed. pip install rootflow[vision]"
        )
    root = Path(path).expanduser()
    if not root.is_dir():
        raise DataError(
            f"{root} is not a folder. Set dataset.path to the folder that holds the class folders."
        )
    has_parts = (root / "train").is_dir()
    train = ImageFolder(root / "train" if has_parts else root, image_size=image_size)
    parts: dict[str, Any] = {
        name: ImageFolder(root / name, image_size=image_size, classes=train.classes)
        for name in ("val", "test")
        if has_parts and (root / name).is_dir()
    }
    record = {"source": {str(root): {"num_train_images": len(train), "classes": list(train.classes)}}}
    return split_dataset(Splits(train=train, **parts, augment=augment, record=record), split=split)


class ImageFolder(Dataset[tuple[Tensor, int]]):
    """Images as uint8 (3, height, width), each with the number of its class folder in alphabetical order.

    Args:
        root: the folder that holds the class folders.
        image_size: pixels a side to which the middle square is scaled; None takes images as they are.
        classes: class folders in the order of their numbers; None takes those that are there.
    """

    def __init__(
        self, root: Path, *, image_size: int | None = None, classes: Sequence[str] | None = None
    ) -> None:
        here = sorted(
            folder.name for folder in root.iterdir() if folder.is_dir() and not folder.name.startswith(".")
        )
        self.classes = tuple(here if classes is None else classes)
        self.image_size = image_size
        unknown = [name for name in here if name not in self.classes]
        if unknown:
            raise DataError(
                f"{root} holds the class {unknown[0]!r}, which the training images haven't."
                f"{did_you_mean(unknown[0], self.classes)} Classes: {', '.join(self.classes)}."
            )
        found = [(file, number) for number, name in enumerate(self.classes) for file in _images(root / name)]
        if not found:
            raise DataError(
                f"{root} has no images in folders of one class each ({', '.join(sorted(_ENDINGS))})."
            )
        self.files = [file for file, _ in found]
        self.targets = [number for _, number in found]
        self._shape: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._fitting(self.files[index]), self.targets[index]

    def _fitting(self, file: Path) -> Tensor:
        """Read an image; without a set size it must be of the size of the first."""
        image = read_image(file, self.image_size)
        if self.image_size is None:
            self._shape = self._shape or tuple(read_image(self.files[0]).shape)
            if image.shape != self._shape:
                raise DataError(
                    f"{file} has {image.shape[2]} x {image.shape[1]} pixels and {self.files[0]} has "
                    f"{self._shape[2]} x {self._shape[1]}. Set dataset.image_size, to which all are scaled."
                )
        return image


def read_image(file: Path, image_size: int | None = None) -> Tensor:
    """Return an image as uint8 (3, height, width), its middle square scaled to ``image_size`` if given.

    Raises:
        DataError: the file is damaged, or no image.
    """
    from PIL import Image, ImageOps  # an optional dependency

    try:
        with Image.open(file) as opened:
            image = ImageOps.exif_transpose(opened).convert("RGB")
    except (
        OSError,
        ValueError,
        SyntaxError,
        Image.DecompressionBombError,
    ) as error:  # what Pillow's readers raise
        raise DataError(f"{file} can't be read as an image: {error}. Replace or delete it.") from error
    if image_size is not None:
        image = ImageOps.fit(image, (image_size, image_size))
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def _images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in _ENDINGS)
