"""Samples of a batch mixed with one another, and their classes with them: mixup and cutmix.

Which of the two a batch gets, how much is mixed and who with whom are functions of (seed, epoch, number of
the batch), drawn on the host: no generator is moved, and nothing waits for the device.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rootflow.data.randomness import hash_ints
from rootflow.errors import DataError

_METHOD, _SHARE, _PARTNER, _BOX_Y, _BOX_X = range(5, 10)
"""What a random number is for, as in augment.py, which has 0 to 4."""


class MixSamples:
    """Mixes each sample of a batch with another one; class indices (batch,) become shares (batch, class).

    The share that a sample keeps is drawn for the whole batch from Beta(alpha, alpha). Where both methods
    have an alpha above 0, each batch takes one of them, at even odds.

    Args:
        mixup: alpha of mixup, which blends numbers (Zhang et al. 2018, arXiv 1710.09412, section 2).
        cutmix: alpha of cutmix, which pastes a rectangle (Yun et al. 2019, arXiv 1905.04899, section 3.1).
        num_classes: of the targets.
        seed: of the mixing.

    Raises:
        DataError: the number of classes isn't known.
    """

    def __init__(self, *, mixup: float, cutmix: float, num_classes: int | None, seed: int) -> None:
        if num_classes is None:
            raise DataError(
                f"dataset.augment.mixup is {mixup} and cutmix {cutmix}, which mix classes; the targets of "
                "this data set are no classes. Set both to 0, or let the data set tell its num_classes."
            )
        self.mixup = mixup
        self.cutmix = cutmix
        self.num_classes = num_classes
        self.seed = seed
        self._is_range_checked = False

    def __call__(self, inputs: Any, targets: Any, *, epoch: int, batch: int) -> tuple[Tensor, Tensor]:
        """Return new inputs and the shares of the classes, float32 (batch, class).

        Raises:
            DataError: the targets aren't one class index for each sample, or the inputs can't be mixed.
        """
        self._check(inputs, targets)
        shift = 1 + self._below(max(1, len(inputs) - 1), _PARTNER, epoch, batch)
        if self._takes_cutmix(epoch, batch):
            inputs, kept = self._paste(inputs, shift, epoch, batch)
        else:
            kept = self._share(self.mixup, epoch, batch)
            inputs = torch.lerp(inputs.roll(shift, 0), inputs, kept)
        every_class = torch.arange(self.num_classes, device=targets.device)
        one_hot = (targets[:, None] == every_class).float()
        return inputs, torch.lerp(one_hot.roll(shift, 0), one_hot, kept)

    def _takes_cutmix(self, epoch: int, batch: int) -> bool:
        if self.mixup > 0 and self.cutmix > 0:
            return self._below(2, _METHOD, epoch, batch) == 1
        return self.cutmix > 0

    def _paste(self, images: Tensor, shift: int, epoch: int, batch: int) -> tuple[Tensor, float]:
        """Paste a rectangle of each partner; return what share of the pixels each image kept."""
        height, width = images.shape[2:]
        side_frac = math.sqrt(1 - self._share(self.cutmix, epoch, batch))
        top, bottom = _span(height, side_frac, self._below(height, _BOX_Y, epoch, batch))
        left, right = _span(width, side_frac, self._below(width, _BOX_X, epoch, batch))
        mixed = images.clone()
        mixed[:, :, top:bottom, left:right] = images[:, :, top:bottom, left:right].roll(shift, 0)
        return mixed, 1 - (bottom - top) * (right - left) / (height * width)

    def _share(self, alpha: float, epoch: int, batch: int) -> float:
        bits = hash_ints(self.seed, epoch, batch, _SHARE)
        # not default_rng: NumPy promises the same numbers in all its versions for RandomState alone
        return float(np.random.RandomState([bits % 2**32, bits >> 32]).beta(alpha, alpha))

    def _below(self, num_values: int, use: int, epoch: int, batch: int) -> int:
        return hash_ints(self.seed, epoch, batch, use) * num_values >> 64

    def _check(self, inputs: Any, targets: Any) -> None:
        if not isinstance(targets, Tensor) or targets.ndim != 1 or targets.is_floating_point():
            raise DataError(
                "dataset.augment.mixup and cutmix need batches (inputs, targets) with one class index for "
                f"each sample; these targets are {_shown(targets)}. Set both to 0."
            )
        is_number = isinstance(inputs, Tensor) and inputs.is_floating_point()
        if not is_number or (self.cutmix > 0 and inputs.ndim != 4):
            raise DataError(
                "dataset.augment.mixup needs inputs that are one tensor of numbers to calculate with, and "
                f"cutmix images (batch, channel, height, width); these are {_shown(inputs)}. Set both to 0."
            )
        if not self._is_range_checked:
            self._check_range(targets)
            self._is_range_checked = True

    def _check_range(self, targets: Tensor) -> None:
        """Look at the first batch only, which waits for the device; a task can't tell from shares."""
        lowest, highest = (int(value) for value in torch.aminmax(targets))
        if lowest < 0 or highest >= self.num_classes:
            raise DataError(
                f"the targets run from {lowest} to {highest}, but there are {self.num_classes} classes, 0 to "
                f"{self.num_classes - 1}. Number the classes from 0, or correct num_classes."
            )


def _span(size: int, side_frac: float, centre: int) -> tuple[int, int]:
    """Return where a side of the rectangle begins and ends; what lies outside of the image is cut off."""
    half = int(size * side_frac) // 2
    return max(0, centre - half), min(size, centre + half)


def _shown(value: Any) -> str:
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
