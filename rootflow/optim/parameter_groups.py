"""Which parameters weight decay is for."""

from __future__ import annotations

from typing import Any

from torch import nn

_SPARED = (nn.Embedding, nn.EmbeddingBag, nn.LayerNorm, nn.RMSNorm)
"""Modules whose parameters may have several dimensions and yet aren't decayed."""


def parameter_groups(model: nn.Module, *, weight_decay: float) -> list[dict[str, Any]]:
    """Return the groups that a torch optimizer takes: decayed weights, then all the rest.

    Decay is for matrices and kernels, parameters of more than one dimension. Biases, scalars, norms
    and embeddings are in the other group, with decay 0. (In the ResNet-50 recipe of torchvision,
    sparing the norms and tuning the decay is worth 0.5 points on ImageNet.) Frozen parameters are left
    out, a parameter shared by two modules comes once, and a group without parameters isn't there.
    """
    spared = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, _SPARED)
        for parameter in module.parameters(recurse=False)
    }
    trainable = [p for p in model.parameters() if p.requires_grad]
    decayed = [p for p in trainable if p.ndim > 1 and id(p) not in spared]
    others = [p for p in trainable if p.ndim <= 1 or id(p) in spared]
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
