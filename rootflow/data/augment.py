"""What happens to a batch of inputs between memory and model, on the device, in one go.

Each sample's randomness is a function of (seed, epoch, index), so the same image is flipped and moved
alike whatever the batch size, the workers or the device, and after a resume. The methods are those of
airbench (Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", arXiv 2404.00498, section 3).
Mixing samples with one another is in mix.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from rootflow.data.mix import MixSamples
from rootflow.data.randomness import draw, hash_tensors
from rootflow.errors import DataError
from rootflow.limits import NonNegativeFloat, NonNegativeInt

_FLIP, _MOVE_Y, _MOVE_X, _CUT_Y, _CUT_X = range(5)
"""What a random number is for: the last counter of its hash, so that uses are independent."""


@dataclass(frozen=True, kw_only=True)
class Augment:
    """How training images are varied."""

    flip: Literal["none", "random", "alternating"] = "none"
    """mirror left to right: at random, or at random at first and then every other epoch"""

    translate: NonNegativeInt = 0
    """pixels by which an image is moved at most, each way; the border reflects"""

    cutout: NonNegativeInt = 0
    """side of the square that is blanked, in pixels"""

    mixup: NonNegativeFloat = 0.0
    """blend each sample with another and their classes with them, by shares from Beta(mixup, mixup)"""

    cutmix: NonNegativeFloat = 0.0
    """paste a rectangle of another image, its share from Beta(cutmix, cutmix); with mixup: either of them"""

    @property
    def moves_pixels(self) -> bool:
        """Whether images are varied one by one."""
        return self.flip != "none" or self.translate > 0 or self.cutout > 0


class Preprocess:
    """Brings inputs to what a model takes: float32, normalised, and in training augmented.

    Args:
        mean: of each channel of images, each feature of a table, or one for everything; None leaves
            the inputs' scale alone.
        std: likewise, and not 0.
        augment: for training images (batch, channel, height, width); None for evaluation.
        seed: of the augmentation.
        num_classes: of the targets; needed to mix them.

    Raises:
        DataError: classes are to be mixed, and their number isn't given.
    """

    def __init__(
        self,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        *,
        augment: Augment | None = None,
        seed: int = 0,
        num_classes: int | None = None,
    ) -> None:
        self.mean = mean
        self.std = std
        self.augment = augment if augment is not None and augment.moves_pixels else None
        self.seed = seed
        self.mix = (
            MixSamples(mixup=augment.mixup, cutmix=augment.cutmix, num_classes=num_classes, seed=seed)
            if augment is not None and (augment.mixup > 0 or augment.cutmix > 0)
            else None
        )
        self._constants: dict[tuple[torch.device, bool, bool], tuple[Tensor, Tensor]] = {}

    @property
    def is_fixed(self) -> bool:
        """Whether a sample comes out the same in every epoch, but for mixing."""
        return self.augment is None

    def __call__(self, inputs: Tensor, *, index: Tensor, epoch: int) -> Tensor:
        """Return the inputs of a batch, ready for the model, on the device on which they are.

        Args:
            inputs: uint8 is taken as 0..255 for 0..1; other whole numbers, such as tokens, stay as
                they are.
            index: position of each sample in its data set.
            epoch: the pass over the data that the batch is of.

        Raises:
            DataError: there is augmentation to do, and the inputs aren't images.
        """
        if self.augment is None:
            return self._normalize(inputs)
        _check_images(inputs, self.augment)
        index = index.to(inputs.device, non_blocking=True)
        inputs = self._normalize(self._move(inputs, self.augment, index, epoch))
        return self._cut(inputs, self.augment.cutout, index, epoch) if self.augment.cutout else inputs

    def _normalize(self, inputs: Tensor) -> Tensor:
        is_uint8 = inputs.dtype == torch.uint8
        if not is_uint8 and not inputs.is_floating_point():
            return inputs
        if self.mean is None or self.std is None:
            return inputs.float().div_(255) if is_uint8 else inputs.float()
        kind = inputs.device, is_uint8, inputs.ndim == 4
        if kind not in self._constants:
            per_channel = (-1, 1, 1) if inputs.ndim == 4 else (-1,)
            mean, std = (
                torch.tensor(values, device=inputs.device).view(per_channel) * (255 if is_uint8 else 1)
                for values in (self.mean, self.std)
            )
            self._constants[kind] = mean, std
        mean, std = self._constants[kind]
        return inputs.float().sub(mean).div_(std)

    def _move(self, images: Tensor, augment: Augment, index: Tensor, epoch: int) -> Tensor:
        """Mirror and translate in one gather, while images are still small (uint8)."""
        num_images, num_channels, height, width = images.shape
        rows = torch.arange(height, device=images.device).expand(num_images, -1)
        columns = torch.arange(width, device=images.device).expand(num_images, -1)
        if augment.translate:
            rows = rows + self._offset(augment.translate, index, epoch, _MOVE_Y)
            columns = columns + self._offset(augment.translate, index, epoch, _MOVE_X)
        rows, columns = _reflected(rows, height), _reflected(columns, width)
        if augment.flip != "none":
            is_flipped = self._flips(augment.flip, index, epoch)[:, None]
            columns = torch.where(is_flipped, width - 1 - columns, columns)
        source = (rows[:, :, None] * width + columns[:, None, :]).view(num_images, 1, -1)
        pixels = images.flatten(2).gather(2, source.expand(-1, num_channels, -1))  # (batch, channel, h * w)
        return pixels.view(images.shape)

    def _flips(self, flip: str, index: Tensor, epoch: int) -> Tensor:
        if flip == "random":
            return hash_tensors(self.seed, epoch, index, _FLIP) & 1 == 1
        # at random once, then the other way round each epoch: every two epochs show both sides
        return (hash_tensors(self.seed, 0, index, _FLIP) + epoch) & 1 == 1

    def _offset(self, most: int, index: Tensor, epoch: int, use: int) -> Tensor:
        bits = hash_tensors(self.seed, epoch, index, use)
        return draw(bits, 2 * most + 1)[:, None] - most

    def _cut(self, images: Tensor, side: int, index: Tensor, epoch: int) -> Tensor:
        """Blank a square around a random pixel; at the border a part of it lies outside."""
        height, width = images.shape[2:]
        inside = []
        for size, use in ((height, _CUT_Y), (width, _CUT_X)):
            start = draw(hash_tensors(self.seed, epoch, index, use), size)[:, None] - side // 2
            position = torch.arange(size, device=images.device) - start
            inside.append((position >= 0) & (position < side))
        return images.masked_fill_((inside[0][:, :, None] & inside[1][:, None, :])[:, None], 0.0)


def _reflected(positions: Tensor, size: int) -> Tensor:
    """Mirror positions outside of 0 .. size - 1 back in, as reflection padding does."""
    return size - 1 - (size - 1 - positions.abs()).abs()


def _check_images(inputs: Tensor, augment: Augment) -> None:
    shape = tuple(inputs.shape)
    if len(shape) != 4:
        raise DataError(
            f"dataset.augment needs images of shape (batch, channel, height, width); these inputs have "
            f"{shape}. Set dataset.augment.flip=none, translate=0 and cutout=0."
        )
    if augment.translate >= min(shape[2:]):
        raise DataError(
            f"dataset.augment.translate is {augment.translate}; images of {shape[2]} x {shape[3]} "
            f"pixels can be moved by {min(shape[2:]) - 1} at most."
        )
