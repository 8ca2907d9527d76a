"""Mixup and cutmix: targets that tell exactly what was mixed, and shares that follow their distribution."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rootflow.data.augment import Augment, Preprocess
from rootflow.data.mix import MixSamples
from rootflow.errors import DataError

CLASSES = torch.tensor([0, 3, 1, 1, 2, 4, 0, 2])


def mixing(
    *, mixup: float = 0.0, cutmix: float = 0.0, num_classes: int | None = 5, seed: int = 3
) -> MixSamples:
    return MixSamples(mixup=mixup, cutmix=cutmix, num_classes=num_classes, seed=seed)


def telling_images(classes: Tensor = CLASSES, size: int = 8) -> Tensor:
    """Images whose channel of their class is 1, so that its mean is the share of the class in a mix."""
    return F.one_hot(classes, 5).float()[:, :, None, None].expand(-1, -1, size, size).contiguous()


def test_mixup_blends_inputs_and_classes_by_the_same_share() -> None:
    images = telling_images()
    for batch in range(20):
        mixed, shares = mixing(mixup=0.5)(images, CLASSES, epoch=1, batch=batch)
        assert shares.dtype == torch.float32
        torch.testing.assert_close(mixed, shares[:, :, None, None].expand_as(mixed), rtol=0, atol=0)


def test_mixup_is_its_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(8, 6, generator=generator)
    mixed, shares = mixing(mixup=1.0)(inputs, CLASSES, epoch=0, batch=4)
    kept = float(shares[1, 3])
    assert 0 < kept < 1
    partners = [
        [
            shift
            for shift in range(8)
            if torch.allclose(mixed, kept * inputs + (1 - kept) * inputs.roll(shift, 0))
        ]
    ]
    assert len(partners[0]) == 1
    assert partners[0] != [0]
    one_hot = F.one_hot(CLASSES, 5).float()
    torch.testing.assert_close(shares, kept * one_hot + (1 - kept) * one_hot.roll(partners[0][0], 0))


def test_the_share_of_a_class_is_exactly_its_area_in_cutmix() -> None:
    images = telling_images(size=16)
    seen = set()
    for batch in range(50):
        mixed, shares = mixing(cutmix=1.0)(images, CLASSES, epoch=0, batch=batch)
        assert set(mixed.unique().tolist()) <= {0.0, 1.0}
        torch.testing.assert_close(mixed.mean((2, 3)), shares, rtol=0, atol=1e-6)
        seen.add(float(shares[1, 3]))
    assert len(seen) > 20


def test_cutmix_pastes_one_rectangle_at_one_place_for_the_whole_batch() -> None:
    images = torch.arange(8.0)[:, None, None, None].expand(-1, 3, 12, 10)
    for batch in range(30):
        mixed, _ = mixing(cutmix=1.0)(images, CLASSES, epoch=0, batch=batch)
        pasted = mixed != images
        assert torch.equal(pasted.all(0).all(0), pasted.any(0).any(0))
        rows, columns = pasted[0, 0].any(1), pasted[0, 0].any(0)
        assert torch.equal(pasted[0, 0], rows[:, None] & columns[None, :])
        assert int(rows.diff().count_nonzero()) <= 2
        assert int(columns.diff().count_nonzero()) <= 2


@pytest.mark.parametrize(("alpha", "variance"), [(0.2, 1 / 5.6), (1.0, 1 / 12), (8.0, 1 / 68)])
def test_shares_follow_their_beta_distribution(alpha: float, variance: float) -> None:
    """Beta(a, a) has mean 1/2 and variance 1 / (4 (2 a + 1))."""
    inputs, classes = torch.zeros(2, 1), torch.tensor([0, 1])
    mix = mixing(mixup=alpha)
    kept = torch.tensor([float(mix(inputs, classes, epoch=0, batch=b)[1][0, 0]) for b in range(4000)])
    assert kept.mean().item() == pytest.approx(0.5, abs=0.02)
    assert kept.var().item() == pytest.approx(variance, rel=0.07)


def test_with_both_each_batch_takes_one_at_even_odds() -> None:
    images = telling_images()
    both = mixing(mixup=1.0, cutmix=1.0)
    is_cutmix = [
        set(both(images, CLASSES, epoch=0, batch=batch)[0].unique().tolist()) <= {0.0, 1.0}
        for batch in range(400)
    ]
    assert 160 < sum(is_cutmix) < 240


def test_mixes_are_functions_of_seed_epoch_and_batch() -> None:
    images = telling_images()

    def mixed(seed: int, epoch: int, batch: int) -> list[Any]:
        return mixing(mixup=1.0, seed=seed)(images, CLASSES, epoch=epoch, batch=batch)[1].tolist()

    assert mixed(0, 1, 2) == mixed(0, 1, 2)
    assert len({str(mixed(s, e, b)) for s in range(3) for e in range(3) for b in range(3)}) == 27


def test_partners_vary_and_nobody_is_its_own() -> None:
    inputs = torch.arange(8.0)[:, None]
    shifts = set()
    for batch in range(100):
        mixed, shares = mixing(mixup=1.0)(inputs, CLASSES, epoch=0, batch=batch)
        kept = float(shares[1, 3])
        shifts.add(round(float((mixed[0, 0] - kept * 0) / (1 - kept))))
    assert shifts == set(range(1, 8))


def test_a_batch_of_one_stays_what_it_is() -> None:
    x, y = torch.rand(1, 1, 4, 4), torch.tensor([2])
    for mix in (mixing(mixup=1.0), mixing(cutmix=1.0)):
        mixed, shares = mix(x, y, epoch=0, batch=0)
        torch.testing.assert_close(mixed, x)
        assert shares.tolist() == [[0.0, 0.0, 1.0, 0.0, 0.0]]


def test_no_generator_and_no_input_is_changed() -> None:
    images, classes = telling_images(), CLASSES.clone()
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    for batch in range(4):
        mixing(mixup=1.0, cutmix=1.0)(images, classes, epoch=0, batch=batch)
    assert before == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    assert torch.equal(images, telling_images())
    assert torch.equal(classes, CLASSES)


def test_mixing_without_a_number_of_classes_is_refused() -> None:
    with pytest.raises(DataError, match=r"dataset.augment.mixup is 0.2 and cutmix 0.0, .* are no classes"):
        Preprocess(augment=Augment(mixup=0.2))


@pytest.mark.parametrize(
    ("inputs", "targets", "found"),
    [
        (torch.zeros(8, 3), torch.zeros(8), r"these targets are float32 \(8,\)"),
        (torch.zeros(8, 3), torch.zeros(8, 2).long(), r"these targets are int64 \(8, 2\)"),
        (torch.zeros(8, 3), None, "these targets are NoneType"),
        (torch.zeros(8, 3), (CLASSES, CLASSES), "these targets are tuple"),
        (torch.zeros(8, 3), CLASSES, r"these are float32 \(8, 3\)"),
        (torch.zeros(8, 3, 4, 4).long(), CLASSES, r"these are int64 \(8, 3, 4, 4\)"),
        ({"a": torch.zeros(8, 3, 4, 4)}, CLASSES, "these are dict"),
        (
            torch.zeros(8, 3, 4, 4),
            CLASSES + 1,
            "the targets run from 1 to 5, but there are 5 classes, 0 to 4",
        ),
    ],
)
def test_what_cannot_be_mixed_is_named(inputs: Any, targets: Any, found: str) -> None:
    with pytest.raises(DataError, match=found):
        mixing(mixup=0.2, cutmix=0.2)(inputs, targets, epoch=0, batch=0)


def test_a_table_can_be_blended() -> None:
    mixed, _ = mixing(mixup=0.2)(torch.rand(8, 3), CLASSES, epoch=0, batch=0)
    assert mixed.shape == (8, 3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("alphas", [{"mixup": 0.4}, {"cutmix": 1.0}])
def test_a_gpu_mixes_like_the_cpu(alphas: dict[str, float]) -> None:
    images = telling_images()
    for batch in range(5):
        mixed, shares = mixing(**alphas)(images, CLASSES, epoch=0, batch=batch)
        there = mixing(**alphas)(images.cuda(), CLASSES.cuda(), epoch=0, batch=batch)
        torch.testing.assert_close(there[0].cpu(), mixed, rtol=0, atol=1e-6)
        torch.testing.assert_close(there[1].cpu(), shares, rtol=0, atol=1e-6)
