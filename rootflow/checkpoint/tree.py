"""A nested state as tensors and JSON, and back exactly, without a pickle.

What comes back is what was given, type for type and bit for bit, with these exceptions, none of which
`load_state_dict` sees:

    parameters            plain tensors, on the CPU, that require no gradient
    tensors that share    tensors of their own
    strides               those that `clone()` gives; so channels_last stays channels_last
    other mappings        dict (Counter stays Counter)
    numpy scalars         Python numbers
    numpy arrays          packed, in the machine's byte order; row- or column-major as they were

Everything else (enums, paths, dataclasses, named tuples, tensor subclasses, ...) is refused: silently
changed state is worse than an error. In the JSON a value that JSON doesn't have is a *mark*, an
object of one key that starts with `$`: `{"$tuple": [1, 2]}`.
"""

from __future__ import annotations

import base64
import json
import math
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from rootflow.checkpoint.tensors import NAMES, row_major_bytes
from rootflow.errors import CheckpointError

Json: TypeAlias = Any
Place: TypeAlias = tuple[str, ...]

_DEEPEST = 100
"""Levels of nesting; what is deeper contains itself."""
_AS_BYTES = {
    "complex128": torch.complex128,
    "float8_e4m3fnuz": torch.float8_e4m3fnuz,
    "float8_e5m2fnuz": torch.float8_e5m2fnuz,
    "float8_e8m0fnu": torch.float8_e8m0fnu,
}
"""dtypes that safetensors doesn't have, or that few of its readers know, kept as their bytes."""
_WORD = range(-(2**63), 2**64)
"""Whole numbers that any reader of JSON may be trusted with; longer ones, which Python refuses to print from
4,300 digits on, are written in hexadecimal."""


def flatten_tree(state: Any, *, place: str = "state") -> tuple[dict[str, Tensor], Json]:
    """Take a nested state apart: its tensors by path (`state.0.exp_avg`), and JSON with marks for the rest.

    The tensors are those of the state, not copies.

    Args:
        state: mappings, lists, tuples, sets, tensors, arrays and plain values, nested up to 100 deep.
        place: what to call the state in an error.

    Raises:
        CheckpointError: it holds something else; the message names the place and the type.
    """
    flattening = _Flattening(place)
    return flattening.tensors, flattening.encode(state, ())


def restore_tree(tensors: Mapping[str, Tensor], skeleton: Json) -> Any:
    """Put together what `flatten_tree` took apart; every tensor has new memory of its own.

    Raises:
        CheckpointError: the two aren't what `flatten_tree` returned.
    """
    try:
        return _Restoring(dict(tensors)).decode(skeleton)
    except (LookupError, TypeError, ValueError, ArithmeticError, RuntimeError, struct.error) as error:
        raise CheckpointError(f"the state can't be put together: {type(error).__name__}: {error}") from error


class _Flattening:
    def __init__(self, place: str) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._place = place

    def encode(self, value: Any, path: Place) -> Json:
        """Return the JSON of a value; its tensors go to `tensors`."""
        if len(path) > _DEEPEST:
            raise self._error(path[:5], f"is nested more than {_DEEPEST} deep; does it contain itself?")
        kind = type(value)
        if value is None or kind in (bool, str):
            return value
        if kind in _SCALARS:
            return _SCALARS[kind](value)
        if kind is list:
            return self._items(value, path)
        if kind is tuple:
            return {"$tuple": self._items(value, path)}
        if kind in (set, frozenset):  # sorted, for the order of a set differs from process to process
            return {f"${kind.__name__}": sorted(self._items(value, path), key=json.dumps)}
        if isinstance(value, Mapping):
            return self._mapping(value, path)
        if kind in (Tensor, nn.Parameter):
            return {"$tensor": self._tensor(value, path)}
        if kind is np.ndarray:
            return {"$array": self._array(value, path)}
        if isinstance(value, np.generic) and value.dtype.kind in "biufcUS" and value.dtype.char not in "gG":
            return self.encode(value.item(), path)
        raise self._error(path, f"is a {_full_name(kind)}, which a checkpoint can't hold. {_ALLOWED}")

    def _items(self, values: Iterable[Any], path: Place) -> list[Json]:
        return [self.encode(value, (*path, str(index))) for index, value in enumerate(values)]

    def _mapping(self, mapping: Mapping[Any, Any], path: Place) -> Json:
        mark = "$counter" if type(mapping) is Counter else "$dict"
        if mark == "$dict" and all(type(key) is str and not key.startswith("$") for key in mapping):
            return {key: self.encode(value, (*path, key)) for key, value in mapping.items()}
        return {mark: [[self._key(k, path), self.encode(v, (*path, str(k)))] for k, v in mapping.items()]}

    def _key(self, key: Any, path: Place) -> Json:
        num_tensors = len(self.tensors)
        encoded = self.encode(key, (*path, "key"))
        if len(self.tensors) > num_tensors:  # found by identity, which a copy doesn't have
            raise self._error(path, "has a tensor as a key. Of an optimizer, save its state_dict().")
        return encoded

    def _tensor(self, tensor: Tensor, path: Place) -> Json:
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type == "meta":
            what = f"is a tensor on {tensor.device} with layout {tensor.layout}"
            raise self._error(path, f"{what}, which a checkpoint can't hold; make it dense.")
        about: dict[str, Any] = {}
        strides = torch.empty_like(tensor, device="meta").stride()
        if strides != _row_major(tensor.shape):
            about["strides"] = list(strides)
        dtype = str(tensor.dtype).removeprefix("torch.")
        if dtype in _AS_BYTES:
            about |= {"dtype": dtype, "shape": list(tensor.shape)}
            tensor = row_major_bytes(tensor)
        elif tensor.dtype not in NAMES:
            raise self._error(path, f"is a tensor of {tensor.dtype}, which a checkpoint can't hold.")
        name = self._free_name(path)
        self.tensors[name] = tensor.detach()
        return {"name": name, **about} if about else name

    def _array(self, array: np.ndarray[Any, Any], path: Place) -> Json:
        packed = np.array(array, dtype=array.dtype.newbyteorder("="), order="K")
        try:
            return self._tensor(torch.from_numpy(packed), path)
        except TypeError:
            raise self._error(path, f"is an array of {array.dtype}; arrays of numbers can be kept.") from None

    def _free_name(self, path: Place) -> str:
        """Return the path as the tensor's name, changed only where another has it or the file can't."""
        wanted = name = ".".join(path).encode(errors="replace").decode() or self._place
        num_tried = 1
        while name in self.tensors or name == "__metadata__":
            num_tried += 1
            name = f"{wanted}~{num_tried}"
        return name

    def _error(self, path: Place, what: str) -> CheckpointError:
        return CheckpointError(f"{'.'.join((self._place, *path))} {what}")


class _Restoring:
    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self._tensors = tensors
        self._decoders: dict[str, Callable[[Any], Any]] = {
            "$int": lambda text: int(text, 16),
            "$float": _float_of_hex,
            "$complex": lambda parts: complex(*map(self.decode, parts)),
            "$bytes": lambda text: base64.b64decode(text, validate=True),
            "$tuple": lambda items: tuple(map(self.decode, items)),
            "$set": lambda items: set(map(self.decode, items)),
            "$frozenset": lambda items: frozenset(map(self.decode, items)),
            "$dict": lambda pairs: {self.decode(key): self.decode(value) for key, value in pairs},
            "$counter": lambda pairs: Counter({self.decode(key): self.decode(value) for key, value in pairs}),
            "$tensor": self._tensor,
            "$array": lambda about: self._tensor(about).numpy(),
        }

    def decode(self, value: Json) -> Any:
        """Return what the JSON of a value stands for."""
        if isinstance(value, list):
            return [self.decode(item) for item in value]
        if not isinstance(value, dict):
            return value
        marks = [key for key in value if key.startswith("$")]
        if not marks:
            return {key: self.decode(item) for key, item in value.items()}
        if len(value) > 1:
            raise ValueError(f"{marks[0]} is not alone")
        return self._decoders[marks[0]](value[marks[0]])

    def _tensor(self, about: Json) -> Tensor:
        """Return a copy: a tensor that is mapped from a file would keep it, and starts anywhere in memory."""
        fields: dict[str, Any] = {"name": about} if isinstance(about, str) else about
        source = self._tensors.pop(fields["name"])  # each once, so that no few bytes become many tensors
        if "dtype" in fields:
            source = source.clone().view(_AS_BYTES[fields["dtype"]]).reshape(fields["shape"])
        strides = tuple(fields.get("strides", _row_major(source.shape)))
        last = sum((size - 1) * stride for size, stride in zip(source.shape, strides, strict=True))
        if min(strides, default=0) < 0 or (source.numel() and last >= source.numel()):
            raise ValueError(f"no tensor of shape {tuple(source.shape)} has the strides {strides}")
        return torch.empty_strided(source.shape, strides, dtype=source.dtype, device="cpu").copy_(source)


def _row_major(shape: Iterable[int]) -> tuple[int, ...]:
    strides: list[int] = []
    step = 1
    for size in reversed(tuple(shape)):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


def _encode_int(value: int) -> Json:
    return value if value in _WORD else {"$int": hex(value)}


def _encode_float(value: float) -> Json:
    """Return a number as it is: Python writes the shortest text that reads back to the same bits."""
    return value if math.isfinite(value) else {"$float": struct.pack(">d", value).hex()}


def _float_of_hex(text: str) -> float:
    value: float = struct.unpack(">d", bytes.fromhex(text))[0]
    return value


def _full_name(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


_SCALARS: dict[type, Callable[[Any], Json]] = {
    int: _encode_int,
    float: _encode_float,
    complex: lambda value: {"$complex": [_encode_float(value.real), _encode_float(value.imag)]},
    bytes: lambda value: {"$bytes": base64.b64encode(value).decode()},
}
_ALLOWED = (
    "Allowed are tensors, numpy arrays, numbers, text, bytes, and dicts, lists, tuples and sets of them;"
    " convert it to one."
)
