"""Residual networks against the published numbers of weights, and their start as shallow networks."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn

from rootflow.errors import ConfigError
from rootflow.models.resnet import ResNet


def num_weights(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@functools.cache
def build(depth: int, width: int | None = None) -> ResNet:
    return ResNet(3, 10, depth=depth, width=width)  # type: ignore[arg-type]


@pytest.mark.parametrize(("depth", "published"), [(18, 11_173_962), (34, 21_282_122), (50, 23_520_842)])
def test_four_stages_have_the_weights_of_the_known_cifar_networks(depth: int, published: int) -> None:
    # github.com/kuangliu/pytorch-cifar, models/resnet.py
    assert num_weights(build(depth)) == published


@pytest.mark.parametrize(
    ("depth", "published"),
    [(20, 269_722), (32, 464_154), (44, 658_586), (56, 853_018), (110, 1_727_962)],
)
def test_three_stages_have_the_weights_of_the_paper_and_two_projections(depth: int, published: int) -> None:
    # He et al. 2016, table 6: 0.27, 0.46, 0.66, 0.85, 1.7 million, without projections (option A);
    # the exact counts are those of github.com/akamaster/pytorch_resnet_cifar10.
    projections = (16 * 32 + 2 * 32) + (32 * 64 + 2 * 64)
    assert num_weights(build(depth)) == published + projections


@pytest.mark.parametrize("depth", [18, 20, 32, 34, 44, 50, 56, 110])
def test_the_depth_is_the_number_of_layers_with_weights(depth: int) -> None:
    model = build(depth)
    layers = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear) and "shortcut" not in name
    ]
    assert len(layers) == depth


@pytest.mark.parametrize("side", [1, 2, 7, 8, 28, 33])
@pytest.mark.parametrize("depth", [18, 20, 50])
def test_images_of_any_size_give_logits(side: int, depth: int) -> None:
    model = ResNet(2, 7, depth=depth, width=4)  # type: ignore[arg-type]
    assert model(torch.randn(3, 2, side, side + 1)).shape == (3, 7)


def test_the_sides_are_halved_from_stage_to_stage() -> None:
    model = ResNet(3, 10, width=4)
    features, sides = model.stem(torch.randn(2, 3, 32, 32)), []
    for stage in model.stages:
        features = stage(features)
        sides.append(tuple(features.shape[1:]))
    assert sides == [(4, 32, 32), (8, 16, 16), (16, 8, 8), (32, 4, 4)]


@pytest.mark.parametrize("depth", [18, 50])
def test_every_block_starts_as_its_shortcut(depth: int) -> None:
    model = ResNet(3, 10, depth=depth, width=4)  # type: ignore[arg-type]
    features = model.stem(torch.randn(2, 3, 8, 8))
    for block in (block for stage in model.stages for block in stage):
        expected = torch.relu(block.shortcut(features))
        features = block(features)
        assert torch.equal(features, expected)


def test_convolutions_start_with_the_variance_of_he() -> None:
    # He et al. 2015, arXiv 1502.01852, equation 14: 2 / (kernel size * channels out)
    weight = build(18).stages[3][0].conv1.weight
    assert weight.std().item() == pytest.approx((2 / (9 * 512)) ** 0.5, rel=0.01)


def test_width_scales_the_channels() -> None:
    assert build(20, width=8).head.in_features == 32
    assert build(18).head.in_features == 512
    assert build(20).head.in_features == 64


def test_dropout_stands_before_the_head() -> None:
    model = ResNet(3, 10, depth=20, width=4, dropout=1.0)
    assert torch.equal(model(torch.randn(2, 3, 8, 8)), model.head.bias.expand(2, -1))


def test_a_depth_that_the_paper_does_not_have_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"model.depth is 19.* one of 18, 20, 32, 34, 44, 50, 56, 110\."):
        ResNet(3, 10, depth=19)  # type: ignore[arg-type]


def test_the_names_of_its_weights_need_no_wrapper() -> None:
    names = list(build(20).state_dict())
    assert names[0] == "stem.0.weight"
    assert "stages.1.0.shortcut.conv.weight" in names
    assert "stages.0.0.shortcut.conv.weight" not in names
    assert names[-2:] == ["head.weight", "head.bias"]
