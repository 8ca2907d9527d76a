"""Moving batches of any structure to a device."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_sequence

from rootflow.data.transfer import Transfer, to_device

META = torch.device("meta")
"""A device that every machine has beside the CPU."""


class Pair(NamedTuple):
    x: Any
    y: Any


@dataclass(frozen=True)
class Graph:
    nodes: Tensor
    name: str


class Encoding:
    """Moves itself, as a batch of transformers does."""

    def __init__(self, device: str = "cpu") -> None:
        self.device = device

    def to(self, device: torch.device) -> Encoding:
        return Encoding(device.type)


@pytest.mark.parametrize("move", [lambda value: to_device(value, META), Transfer(META)])
def test_tensors_move_wherever_they_are_and_everything_keeps_its_type(move: Any) -> None:
    x = torch.ones(2, 3)
    batch = {
        "pair": Pair([x, "a"], (x, None)),
        "graph": Graph(x, "g"),
        "own": Encoding(),
        3: OrderedDict(z=x),
    }
    moved = move(batch)
    assert list(moved) == ["pair", "graph", "own", 3]
    pair, graph, ordered = moved["pair"], moved["graph"], moved[3]
    assert (type(pair), type(pair.x), type(pair.y)) == (Pair, list, tuple)
    assert (pair.x[1], pair.y[1], graph.name, moved["own"].device) == ("a", None, "g", "meta")
    assert (type(graph), type(ordered)) == (Graph, OrderedDict)
    for tensor in (pair.x[0], pair.y[0], graph.nodes, ordered["z"]):
        assert (tensor.device, tensor.shape) == (META, (2, 3))
    assert batch["graph"].nodes is batch["pair"].x[0] is x


def test_a_packed_sequence_stays_whole() -> None:
    packed = pack_sequence([torch.ones(3, 2), torch.ones(1, 2)])
    moved = to_device((packed,), META)[0]
    assert moved.data.device == META
    assert torch.equal(moved.batch_sizes, packed.batch_sizes)  # which may only lie on the CPU


def test_what_is_there_already_is_not_copied() -> None:
    x = torch.ones(2)
    assert to_device([x], torch.device("cpu"))[0] is x
