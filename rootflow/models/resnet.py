"""Residual networks for small images: He et al. 2016, "Deep Residual Learning", arXiv 1512.03385.

Both families of the paper, in the form for images of 32 x 32: a 3x3 stem and no max-pooling.
Differences from section 4.2: the shortcuts that change shape are 1x1 projections (option B) in both
families, 2,752 weights more than the paper's at width 16; and the last batch norm of a block starts
at zero, so that a block starts as its shortcut (Goyal et al. 2017, arXiv 1706.02677, section 5.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from rootflow.errors import ConfigError
from rootflow.limits import Fraction, PositiveInt
from rootflow.registry import register


class _Shortcut(nn.Sequential):
    """The identity, or a 1x1 projection where the shape changes; state keys only in that case."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        if stride != 1 or channels_in != channels_out:
            self.conv = nn.Conv2d(channels_in, channels_out, 1, stride=stride, bias=False)
            self.norm = nn.BatchNorm2d(channels_out)


class _BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    expansion = 1

    def __init__(self, channels_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, width, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.shortcut = _Shortcut(channels_in, width, stride)
        self.relu = nn.ReLU(inplace=True)
        nn.init.zeros_(self.norm2.weight)

    def forward(self, inputs: Tensor) -> Tensor:
        residual = self.relu(self.norm1(self.conv1(inputs)))
        residual = self.norm2(self.conv2(residual))
        outputs: Tensor = self.relu(residual + self.shortcut(inputs))
        return outputs


class _Bottleneck(nn.Module):
    """A 3x3 convolution between two 1x1 ones, beside a shortcut; four times as wide outside."""

    expansion = 4

    def __init__(self, channels_in: int, width: int, stride: int) -> None:
        super().__init__()
        channels_out = width * self.expansion
        self.conv1 = nn.Conv2d(channels_in, width, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, channels_out, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(channels_out)
        self.shortcut = _Shortcut(channels_in, channels_out, stride)
        self.relu = nn.ReLU(inplace=True)
        nn.init.zeros_(self.norm3.weight)

    def forward(self, inputs: Tensor) -> Tensor:
        residual = self.relu(self.norm1(self.conv1(inputs)))
        residual = self.relu(self.norm2(self.conv2(residual)))
        residual = self.norm3(self.conv3(residual))
        outputs: Tensor = self.relu(residual + self.shortcut(inputs))
        return outputs


@dataclass(frozen=True)
class _Architecture:
    block: type[_BasicBlock] | type[_Bottleneck]
    num_blocks: tuple[int, ...]
    """Blocks of each stage."""
    width: int
    """Channels of the first stage; they double from stage to stage."""


_ARCHITECTURES = {
    18: _Architecture(_BasicBlock, (2, 2, 2, 2), 64),  # table 1
    34: _Architecture(_BasicBlock, (3, 4, 6, 3), 64),
    50: _Architecture(_Bottleneck, (3, 4, 6, 3), 64),
    **{6 * n + 2: _Architecture(_BasicBlock, (n, n, n), 16) for n in (3, 5, 7, 9, 18)},  # section 4.2
}


@register("model", "resnet")
class ResNet(nn.Module):
    """Residual network for small images (He et al. 2016), with a 3x3 stem.

    Takes (batch, in_channels, height, width) of any size; gives logits (batch, num_classes).

    Args:
        in_channels: channels of the image
        num_classes: outputs
        depth: layers with weights; 18, 34, 50 have four stages, the others three narrow ones
        width: channels of the first stage; null for the paper's, 64 with four stages and 16 with three
        dropout: share of the pooled features dropped while training

    Raises:
        ConfigError: the paper has no network of that depth.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        depth: Literal[18, 20, 32, 34, 44, 50, 56, 110] = 18,
        width: PositiveInt | None = None,
        dropout: Fraction = 0.0,
    ) -> None:
        super().__init__()
        if depth not in _ARCHITECTURES:
            raise ConfigError(
                f"model.depth is {depth}, which is no residual network of the paper; "
                f"it must be one of {', '.join(map(str, sorted(_ARCHITECTURES)))}."
            )
        architecture = _ARCHITECTURES[depth]
        channels = width or architecture.width
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
        )
        self.stages = _stages(architecture, channels)
        self.dropout = nn.Dropout(dropout)
        last = channels * 2 ** (len(architecture.num_blocks) - 1) * architecture.block.expansion
        self.head = nn.Linear(last, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (batch, num_classes)."""
        features = self.stages(self.stem(images)).mean(dim=(2, 3))  # (batch, channels of the last stage)
        logits: Tensor = self.head(self.dropout(features))
        return logits


def _stages(architecture: _Architecture, width: int) -> nn.Sequential:
    """Return the stages; the first block of each but the first halves the sides."""
    channels, stages = width, []
    for stage, num_blocks in enumerate(architecture.num_blocks):
        blocks = []
        for index in range(num_blocks):
            stride = 2 if stage > 0 and index == 0 else 1
            blocks.append(architecture.block(channels, width * 2**stage, stride))
            channels = width * 2**stage * architecture.block.expansion
        stages.append(nn.Sequential(*blocks))
    return nn.Sequential(*stages)
