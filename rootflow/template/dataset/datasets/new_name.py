"""Two spirals that wind around each other: computed, so nothing is downloaded."""

from __future__ import annotations

import math

import torch
from rootflow import register
from rootflow.limits import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch.utils.data import TensorDataset


@register
def new_name(
    *,
    num_samples: PositiveInt = 2000,
    num_turns: PositiveFloat = 1.5,
    noise: NonNegativeFloat = 0.02,
    seed: NonNegativeInt = 0,
) -> TensorDataset:
    """Points on two spirals, each about half of them; the class is which spiral.

    Args:
        num_samples: points on both spirals
        num_turns: times that a spiral winds around the middle, out to a radius of 1
        noise: standard deviation of x and y about the spiral
        seed: of the points; not the run's seed, so that all runs have the same data
    """
    # A generator of its own: the data is the same whatever drew random numbers before.
    generator = torch.Generator().manual_seed(seed)
    classes = torch.randint(2, (num_samples,), generator=generator)
    # The root, because further out there is more spiral to cover.
    radius = torch.rand(num_samples, generator=generator).sqrt()
    angle = 2 * math.pi * num_turns * radius + math.pi * classes
    directions = torch.stack([angle.cos(), angle.sin()], dim=1)  # (sample, 2)
    points = radius[:, None] * directions
    points += noise * torch.randn(points.shape, generator=generator)
    # Any data set with len() and indexing will do. rootflow holds out what to validate
    # and test on; return (train, val, test) to do that yourself.
    return TensorDataset(points, classes)
