"""Preprocessing and augmentation, against the plain way of doing each."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rootflow.data.augment import Augment, Preprocess
from rootflow.data.randomness import hash_ints
from rootflow.errors import DataError

IMAGES = torch.randint(0, 256, (64, 3, 12, 10), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
INDEX = torch.arange(1000, 1064)


def augmented(augment: Augment, *, epoch: int = 0, seed: int = 0, images: Tensor = IMAGES) -> Tensor:
    return Preprocess(augment=augment, seed=seed)(images, index=INDEX[: len(images)], epoch=epoch)


def is_flipped(augment: Augment, epoch: int) -> list[bool]:
    images = augmented(augment, epoch=epoch)
    plain = IMAGES / 255
    flipped = [torch.equal(image, before.flip(-1)) for image, before in zip(images, plain, strict=True)]
    assert all(f != torch.equal(i, b) for f, i, b in zip(flipped, images, plain, strict=True))
    return flipped


def test_uint8_images_are_normalised_channel_by_channel() -> None:
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.1)
    found = Preprocess(mean, std)(IMAGES, index=INDEX, epoch=0)
    wanted = (IMAGES / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    assert found.dtype == torch.float32


def test_features_are_normalised_one_by_one_also_far_from_zero() -> None:
    table = torch.tensor([[1990.0, 1.0], [1991.0, 3.0]], dtype=torch.float64)
    found = Preprocess((1990.5, 2.0), (0.5, 1.0))(table, index=INDEX[:2], epoch=0)
    assert found.tolist() == [[-1.0, -1.0], [1.0, 1.0]]
    assert found.dtype == torch.float32


def test_without_a_mean_only_the_type_changes() -> None:
    assert torch.equal(Preprocess()(IMAGES, index=INDEX, epoch=0), IMAGES / 255)
    tokens = torch.arange(8).view(2, 4)
    assert Preprocess((1.0,), (2.0,))(tokens, index=INDEX[:2], epoch=0) is tokens


def test_the_inputs_are_not_changed_in_place() -> None:
    table, images = torch.ones(2, 3), IMAGES.clone()
    Preprocess((0.5,), (2.0,))(table, index=INDEX[:2], epoch=0)
    augmented(Augment(flip="random", translate=2, cutout=4), images=images)
    assert torch.equal(table, torch.ones(2, 3))
    assert torch.equal(images, IMAGES)


def test_a_random_flip_mirrors_about_half_of_the_images_anew_each_epoch() -> None:
    flips = [is_flipped(Augment(flip="random"), epoch) for epoch in range(20)]
    assert 0.4 < sum(map(sum, flips)) / (20 * 64) < 0.6
    assert len(set(map(tuple, flips))) == 20


def test_an_alternating_flip_is_random_once_and_then_the_other_way_round_each_epoch() -> None:
    flips = [is_flipped(Augment(flip="alternating"), epoch) for epoch in range(4)]
    assert 16 < sum(flips[0]) < 48
    assert flips[1] == [not flip for flip in flips[0]]
    assert flips[2:] == flips[:2]


def test_translation_is_a_crop_of_the_reflection_padded_image() -> None:
    found = augmented(Augment(translate=2), epoch=5)
    padded = F.pad(IMAGES / 255, (2, 2, 2, 2), mode="reflect")
    offsets = set()
    for image, source in zip(found, padded, strict=True):
        matches = [
            (y, x)
            for y in range(5)
            for x in range(5)
            if torch.equal(image, source[:, y : y + 12, x : x + 10])
        ]
        assert len(matches) == 1
        offsets.add(matches[0])
    assert len(offsets) > 15


def test_the_offset_is_that_of_the_hash() -> None:
    found = augmented(Augment(translate=3), seed=7, epoch=2)
    padded = F.pad(IMAGES / 255, (3, 3, 3, 3), mode="reflect")
    for row, index in enumerate(INDEX.tolist()):
        y, x = ((hash_ints(7, 2, index, use) >> 32) * 7 >> 32 for use in (1, 2))
        assert torch.equal(found[row], padded[row, :, y : y + 12, x : x + 10])


def test_cutout_blanks_one_square_that_may_reach_over_the_border() -> None:
    found = augmented(Augment(cutout=4), images=torch.full_like(IMAGES, 255))
    blank = found == 0
    assert torch.equal(blank.any(1), blank.all(1))
    areas = blank[:, 0].flatten(1).sum(1)
    assert int(areas.max()) == 16
    assert int(areas.min()) >= 4
    for rows, columns in zip(blank[:, 0].any(2), blank[:, 0].any(1), strict=True):
        assert rows.diff().count_nonzero() <= 2
        assert columns.diff().count_nonzero() <= 2


def test_blanked_pixels_are_the_mean_after_normalising() -> None:
    preprocess = Preprocess((0.5,) * 3, (0.25,) * 3, augment=Augment(cutout=4))
    images = preprocess(torch.full_like(IMAGES, 255), index=INDEX, epoch=0)
    assert sorted(images.unique().tolist()) == [0.0, 2.0]


@pytest.mark.parametrize(
    "augment", [Augment(flip="alternating", translate=4, cutout=6), Augment(flip="random")]
)
def test_an_image_is_treated_alike_in_any_batch(augment: Augment) -> None:
    whole = augmented(augment, epoch=3)
    order = torch.randperm(64)
    preprocess = Preprocess(augment=augment)
    parts = [preprocess(IMAGES[o], index=INDEX[o], epoch=3) for o in order.split(7)]
    assert torch.equal(torch.cat(parts), whole[order])


def test_seed_and_epoch_change_the_augmentation() -> None:
    augment = Augment(flip="random", translate=2)
    first = augmented(augment)
    assert torch.equal(first, augmented(augment))
    assert not torch.equal(first, augmented(augment, seed=1))
    assert not torch.equal(first, augmented(augment, epoch=1))


def test_settings_that_do_not_fit_the_inputs_are_refused() -> None:
    with pytest.raises(DataError, match=r"these inputs have \(4, 7\)"):
        Preprocess(augment=Augment(flip="random"))(torch.zeros(4, 7), index=INDEX[:4], epoch=0)
    with pytest.raises(DataError, match=r"translate is 10; images of 12 x 10 pixels can be moved by 9"):
        augmented(Augment(translate=10))
    augmented(Augment(translate=9))


def test_augmentation_that_does_nothing_is_allowed_for_any_inputs() -> None:
    Preprocess(augment=Augment())(torch.zeros(4, 7), index=INDEX[:4], epoch=0)


def test_only_what_varies_from_epoch_to_epoch_is_not_fixed() -> None:
    def preprocess(augment: Augment | None) -> Preprocess:
        return Preprocess(augment=augment, num_classes=3)

    assert [preprocess(a).is_fixed for a in (None, Augment(), Augment(mixup=0.1))] == [True] * 3
    varied = Augment(flip="random"), Augment(translate=1), Augment(cutout=1)
    assert [preprocess(a).is_fixed for a in varied] == [False] * 3
    mixes = [preprocess(a).mix is not None for a in (Augment(), Augment(mixup=0.1), Augment(cutmix=0.1))]
    assert mixes == [False, True, True]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_gpu_augments_like_the_cpu() -> None:
    augment = Augment(flip="alternating", translate=4, cutout=5)
    on_gpu = Preprocess(augment=augment)(IMAGES.cuda(), index=INDEX, epoch=3)
    torch.testing.assert_close(on_gpu.cpu(), augmented(augment, epoch=3), rtol=0, atol=1e-7)
