"""The small convolutional network: image sizes, channels, and that it learns."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rootflow.models.convnet import ConvNet


@pytest.mark.parametrize("size", [(8, 8), (9, 15), (28, 28), (32, 32), (65, 40)])
def test_images_of_any_size_give_logits_by_the_same_weights(size: tuple[int, int]) -> None:
    assert ConvNet(1, 10, width=4)(torch.randn(2, 1, *size)).shape == (2, 10)


def test_the_channels_double_from_one_convolution_to_the_next() -> None:
    convolutions = [m for m in ConvNet(3, 10, width=8, depth=4).modules() if isinstance(m, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels) for c in convolutions] == [(3, 8), (8, 16), (16, 32), (32, 64)]


def test_each_block_halves_the_sides() -> None:
    model = ConvNet(1, 10, width=4, depth=3)
    assert model.blocks(torch.randn(2, 1, 28, 28)).shape == (2, 16, 3, 3)
    assert model.blocks(torch.randn(2, 1, 8, 8)).shape == (2, 16, 1, 1)


def test_the_number_of_weights_is_that_of_its_layers() -> None:
    weights = 9 * 32 + 9 * 32 * 64 + 9 * 64 * 128 + 2 * (32 + 64 + 128) + (9 * 128 + 1) * 10
    assert sum(p.numel() for p in ConvNet(1, 10).parameters()) == weights


def test_dropout_stands_before_the_head() -> None:
    model = ConvNet(1, 10, width=4, dropout=1.0)
    assert torch.equal(model(torch.randn(2, 1, 8, 8)), model.head.bias.expand(2, -1))


def test_it_tells_where_in_the_image_something_is() -> None:
    torch.manual_seed(0)
    targets = torch.arange(64) % 2
    images = torch.zeros(64, 1, 16, 16)
    images[targets == 0, :, :4], images[targets == 1, :, -4:] = 1.0, 1.0
    images += 0.1 * torch.randn_like(images)
    model = ConvNet(1, 2, width=4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(20):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), targets).backward()
        optimizer.step()
    model.eval()
    assert (model(images).argmax(1) == targets).all()
