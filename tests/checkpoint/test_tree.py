"""A nested state comes back from tensors and JSON as it was, to the bit; what can't is refused."""

from __future__ import annotations

import enum
import json
import math
import random
import struct
from collections import Counter, OrderedDict, defaultdict, namedtuple
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.torch import load
from torch import Tensor, nn

from rootflow.checkpoint import flatten_tree, restore_tree
from rootflow.checkpoint.tensors import NAMES, tensor_chunks
from rootflow.checkpoint.tree import _AS_BYTES
from rootflow.errors import CheckpointError

DTYPES = [*NAMES, *_AS_BYTES.values()]


def round_trip(state: Any) -> Any:
    """Through the bytes of the file and the text of the JSON."""
    tensors, skeleton = flatten_tree(state)
    text = json.dumps(skeleton, allow_nan=False)
    return restore_tree(load(b"".join(tensor_chunks(tensors))), json.loads(text))


def bits(tensor: Tensor) -> bytes:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def same(left: Any, right: Any) -> bool:
    """Whether two states are equal in type, order and bits."""
    if type(left) is not type(right):
        return False
    if isinstance(left, Tensor):
        return (left.dtype, left.shape, left.stride(), bits(left)) == (
            right.dtype, right.shape, right.stride(), bits(right),
        )  # fmt: skip
    if isinstance(left, np.ndarray):
        return (left.dtype, left.shape, left.tobytes()) == (right.dtype, right.shape, right.tobytes())
    if isinstance(left, float):
        return struct.pack("d", left) == struct.pack("d", right)
    if isinstance(left, complex):
        return struct.pack("dd", left.real, left.imag) == struct.pack("dd", right.real, right.imag)
    if isinstance(left, dict):
        return same(list(left.items()), list(right.items()))
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


def tensor_of(dtype: torch.dtype, shape: tuple[int, ...], seed: int) -> Tensor:
    width = torch.empty((), dtype=dtype).itemsize
    content = random.Random(seed).randbytes(math.prod(shape) * width)
    raw = torch.tensor(list(content), dtype=torch.uint8)
    return (raw % 2 if dtype == torch.bool else raw).view(dtype).reshape(shape)


SHAPES = st.lists(st.integers(0, 3), max_size=4).map(tuple)
TENSORS = st.builds(tensor_of, st.sampled_from(DTYPES), SHAPES, st.integers(0, 2**32))
ARRAYS = hnp.arrays(st.sampled_from(["?", "i1", "u2", "i8", "u8", "f2", "f4", "f8", "c8", "c16"]), SHAPES)
KEYS = st.one_of(
    st.text(max_size=5),
    st.sampled_from(["$tensor", "$dict", "$", "__metadata__", "a.b", "\ud800", "\x00", "file"]),
    st.integers(),
    st.booleans(),
    st.none(),
    st.tuples(st.integers(), st.text(max_size=2)),
)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**2000), 2**2000),
    st.floats(),
    st.complex_numbers(),
    st.text(),
    st.binary(max_size=20),
    st.sets(st.one_of(st.integers(), st.text(max_size=3)), max_size=4),
    st.frozensets(st.tuples(st.text(max_size=2)), max_size=3),
    TENSORS,
    ARRAYS,
)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(KEYS, inner, max_size=4),
        st.dictionaries(KEYS, inner, max_size=2).map(Counter),
    ),
    max_leaves=12,
)


@settings(
    max_examples=600, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None
)
@given(TREES)
def test_any_state_comes_back_in_type_order_and_bits(state: Any) -> None:
    assert same(round_trip(state), state)


@settings(
    max_examples=500, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None
)
@given(st.recursive(
    st.one_of(st.none(), st.integers(), st.text(max_size=6), st.floats(allow_nan=False)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(st.text(max_size=4), st.sampled_from([
            "$int", "$float", "$bytes", "$tuple", "$set", "$dict", "$tensor", "$array", "$complex", "$counter",
            "name", "strides", "shape", "dtype",
        ])), inner, max_size=3),
    ),
))  # fmt: skip
def test_a_made_up_json_is_a_state_or_an_error_of_ours(skeleton: Any) -> None:
    try:
        restore_tree({"a": torch.zeros(2)}, skeleton)
    except CheckpointError:
        return


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 3, 1, 2)], ids=str)
def test_tensors_of_every_dtype_and_shape_come_back(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = tensor_of(dtype, shape, 1)
    assert same(round_trip({"a": tensor}), {"a": tensor})


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        lambda: torch.randn(4, 3, 1, 1).to(memory_format=torch.channels_last),
        lambda: torch.randn(4, 1, 3, 3).to(memory_format=torch.channels_last),
        lambda: torch.randn(1, 2, 3, 4, 5).to(memory_format=torch.channels_last_3d),
        lambda: torch.randn(3, 4).T,
        lambda: torch.randn(3, 4)[:, ::2],
        lambda: torch.randn(3, 4, 5).permute(2, 0, 1)[1:],
        lambda: torch.randn(3, 1).expand(3, 4),
        lambda: torch.randn(6)[2:4],
        lambda: torch.randn(2, 2, dtype=torch.complex64).conj(),
        lambda: torch.randn(2, 2, dtype=torch.complex128).mH,
        lambda: torch.randn(2, 2, dtype=torch.complex128).conj().imag,
    ],
)
def test_a_tensor_comes_back_with_the_strides_of_its_clone(make: Callable[[], Tensor]) -> None:
    tensor = make()
    clone = tensor.clone().resolve_conj().resolve_neg()
    back = round_trip([tensor])[0]
    assert (bits(back), back.stride()) == (bits(clone), clone.stride())
    assert back.untyped_storage().nbytes() == tensor.numel() * tensor.itemsize


def test_tensors_that_share_memory_come_back_each_with_its_own() -> None:
    whole = torch.arange(6.0)
    back = round_trip({"whole": whole, "part": whole[2:4], "again": whole})
    assert back["part"].tolist() == [2, 3]
    back["again"].zero_()
    assert torch.equal(back["whole"], whole)
    assert back["part"].tolist() == [2, 3]


def test_parameters_come_back_as_plain_tensors_and_the_live_ones_keep_their_gradient() -> None:
    parameter = nn.Parameter(torch.ones(2))
    back = round_trip([parameter])[0]
    assert type(back) is Tensor
    assert not back.requires_grad
    assert parameter.requires_grad


def test_no_tensor_that_comes_back_holds_on_to_the_file_or_moves_in_memory() -> None:
    tensors = load(b"".join(tensor_chunks({"a": torch.ones(1, dtype=torch.uint8), "b": torch.ones(3)})))
    back = restore_tree(tensors, [{"$tensor": "a"}, {"$tensor": "b"}])
    assert all(tensor.data_ptr() % 64 == 0 for tensor in back)  # as torch allocates: kernels ask for it
    assert {tensor.data_ptr() for tensor in back}.isdisjoint(tensor.data_ptr() for tensor in tensors.values())


def test_the_tensors_of_a_state_dict_keep_their_plain_names() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    tensors, _ = flatten_tree(model.state_dict())
    assert list(tensors) == list(model.state_dict())


def test_every_tensor_of_a_file_starts_at_a_multiple_of_its_width() -> None:
    tensors = {
        "a": torch.ones(3, dtype=torch.uint8),
        "b": torch.ones(3),
        "c": torch.ones(1, dtype=torch.float64),
    }
    content = b"".join(tensor_chunks(tensors))
    num_header = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + num_header])
    assert num_header % 8 == 0
    assert all(header[name]["data_offsets"][0] % tensor.itemsize == 0 for name, tensor in tensors.items())


def test_names_that_meet_are_told_apart() -> None:
    state = {"a": {"b": torch.ones(1)}, "a.b": torch.zeros(1), 0: torch.ones(2), "0": torch.zeros(2)}
    assert list(flatten_tree(state)[0]) == ["a.b", "a.b~2", "0", "0~2"]
    assert same(round_trip(state), state)


def test_the_generators_of_python_numpy_and_torch_come_back_and_go_on_the_same() -> None:
    legacy = np.random.RandomState(3)  # the global one is such a one
    modern = [
        np.random.Generator(kind(3))
        for kind in (np.random.PCG64, np.random.MT19937, np.random.Philox, np.random.SFC64)
    ]
    python, torch_cpu = random.Random(3), torch.Generator().manual_seed(3)
    python.gauss(0, 1)
    state = round_trip({
        "python": python.getstate(),
        "legacy": legacy.get_state(),
        "modern": [generator.bit_generator.state for generator in modern],
        "torch": torch_cpu.get_state(),
    })  # fmt: skip
    drawn = (
        python.gauss(0, 1),
        legacy.normal(),
        [g.normal() for g in modern],
        torch.rand(3, generator=torch_cpu),
    )
    python.setstate(state["python"])
    legacy.set_state(state["legacy"])
    for generator, kept in zip(modern, state["modern"], strict=True):
        generator.bit_generator.state = kept
    torch_cpu.set_state(state["torch"])
    again = (
        python.gauss(0, 1),
        legacy.normal(),
        [g.normal() for g in modern],
        torch.rand(3, generator=torch_cpu),
    )
    assert same(drawn, again)


def test_the_state_of_pythons_generator_is_exact_and_small() -> None:
    state = random.Random(1).getstate()
    tensors, skeleton = flatten_tree(state)
    assert not tensors
    assert len(json.dumps(skeleton, separators=(",", ":"))) < 8_000
    assert round_trip(state) == state


@pytest.mark.parametrize("number", [float("nan"), -float("nan"), float("inf"), -float("inf"), -0.0, 5e-324,
    struct.unpack(">d", bytes.fromhex("7ff8000000001234"))[0]])  # fmt: skip
def test_floats_come_back_to_the_bit(number: float) -> None:
    assert same(round_trip([number, complex(number, number)]), [number, complex(number, number)])


@pytest.mark.parametrize(
    "number",
    [2**63 - 1, -(2**63), 2**64 - 1, 2**64, -(2**63) - 1, 3**20_000, -(3**20_000)],
    ids=lambda number: f"{number.bit_length()} bits",
)
def test_whole_numbers_of_any_length_come_back(number: int) -> None:
    assert round_trip([number]) == [number]


@pytest.mark.parametrize(
    ("given", "back"),
    [
        (np.float64(0.1), 0.1),
        (np.float32(0.1), float(np.float32(0.1))),
        (np.int64(-3), -3),
        (np.uint64(2**64 - 1), 2**64 - 1),
        (np.bool_(True), True),
        (np.complex64(1 + 2j), 1 + 2j),
        (np.str_("a"), "a"),
        (np.bytes_(b"a"), b"a"),
        (OrderedDict(a=1), {"a": 1}),
        (defaultdict(list, a=[1]), {"a": [1]}),
        (MappingProxyType({"a": 1}), {"a": 1}),
        ({np.int64(3): 1}, {3: 1}),
    ],
)
def test_numpy_scalars_and_other_mappings_become_plain(given: Any, back: Any) -> None:
    assert same(round_trip([given]), [back])


def test_equal_sets_have_equal_json_however_they_were_filled() -> None:
    one, other = {0, 8}, {8, 0}
    assert list(one) != list(other)
    assert flatten_tree(one) == flatten_tree(other)


def test_the_milestones_of_a_scheduler_stay_a_counter() -> None:
    """Within a SequentialLR, MultiStepLR asks its milestones for their `elements`."""
    milestones = Counter([3, 3, 5])
    assert same(round_trip(milestones), milestones)


@pytest.mark.parametrize("array", [
    np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.arange(6)[::-2], np.arange(6, dtype=">i4"), np.array(3.5),
    np.zeros((0, 3)), np.arange(4).reshape(2, 2)[:, ::-1],
])  # fmt: skip
def test_arrays_come_back_with_their_numbers(array: np.ndarray[Any, Any]) -> None:
    array.flags.writeable = False
    back = round_trip([array])[0]
    assert type(back) is np.ndarray
    assert (back.dtype, back.shape, back.tolist()) == (
        array.dtype.newbyteorder("="),
        array.shape,
        array.tolist(),
    )
    assert back.flags.forc
    assert back.flags.f_contiguous == array.flags.f_contiguous or not array.flags.forc


Point = namedtuple("Point", "x y")


class Colour(enum.IntEnum):
    RED = 1


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (Path("a"), r"pathlib\.\w*Path"),
        (Colour.RED, r"test_tree\.Colour"),
        (Point(1, 2), r"test_tree\.Point"),
        (Text("a"), r"test_tree\.Text"),
        (object(), "object"),
        (print, "builtin_function_or_method"),
        (torch.float32, r"torch\.dtype"),
        (torch.Size([1]), r"torch\.Size"),
        (bytearray(b"a"), "bytearray"),
        (np.datetime64(1, "ns"), r"numpy\.datetime64"),
        (np.timedelta64(1, "ns"), r"numpy\.timedelta64"),
        (np.longdouble(1), r"numpy\.longdouble"),
        (np.array(["a"]), "array of <U1"),
        (np.array([object()]), "array of object"),
        (np.ma.masked_array([1], [True]), r"numpy\.ma\.MaskedArray"),
        (torch.ones(2).to_sparse(), "layout torch.sparse_coo"),
        (torch.ones(2, device="meta"), "tensor on meta"),
        ({torch.ones(1): 2}, "has a tensor as a key"),
    ],
    ids=lambda value: (
        value if isinstance(value, str) else type(value).__name__
    ),  # others' texts have addresses
)
def test_what_is_not_plain_is_refused_with_its_place_and_type(value: Any, kind: str) -> None:
    with pytest.raises(CheckpointError, match=rf"^hooks\.mine\.1\b.* ?{kind}"):
        flatten_tree({"mine": [0, value]}, place="hooks")


def test_a_state_that_contains_itself_is_refused() -> None:
    state: dict[str, Any] = {}
    state["again"] = state
    with pytest.raises(CheckpointError, match="nested more than 100 deep"):
        flatten_tree(state)


@pytest.mark.parametrize(
    "skeleton",
    [
        {"$tensor": "missing"},
        [{"$tensor": "a"}, {"$tensor": "a"}],
        {"$tensor": {"name": "a", "strides": [10**12, 1]}},
        {"$tensor": {"name": "a", "strides": [1000, 1]}},
        {"$tensor": {"name": "a", "strides": [-1, 1]}},
        {"$tensor": {"name": "a", "strides": [0, 1]}},
        {"$tensor": {"name": "a", "strides": [1]}},
        {"$tensor": {"name": "a", "dtype": "complex128", "shape": [10**9]}},
        {"$tensor": {"name": "a", "dtype": "object", "shape": [1]}},
        {"$pickle": "gASVIgAAAAAAAACMBXBvc2l4lIwGc3lzdGVtlJOUjAdlY2hvIGhplIWUUpQu"},
        {"$tuple": 3},
        {"$dict": [[1]]},
        {"$dict": [[[], 1]]},
        {"$bytes": "*"},
        {"$int": "zz"},
        {"$float": "00"},
        {"$tuple": [], "b": 1},
    ],
    ids=str,
)
def test_a_skeleton_that_nobody_wrote_is_refused(skeleton: Any) -> None:
    with pytest.raises(CheckpointError, match="the state can't be put together"):
        restore_tree({"a": torch.zeros(2, 3)}, skeleton)
