"""All that a search could leave behind, of objects and of the process, as text by place."""

from __future__ import annotations

import functools
import hashlib
import multiprocessing
import random
import signal
import sys
import types
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data.dataloader import _BaseDataLoaderIter

_RANDOM = (torch.Generator, random.Random, np.random.Generator, np.random.RandomState)


def traces(*objects: object) -> dict[str, str]:
    """Return what objects, to the bit and by identity, and the process are now."""
    found = _Traces()
    for number, item in enumerate(objects):
        found.add(str(number), item)
    return {**found.texts, **_of_process()}


class _Traces:
    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self._seen: set[int] = set()

    def add(self, place: str, value: Any) -> None:
        kind = type(value)
        if isinstance(value, int | float | str | bytes | None):
            self.texts[place] = repr(value)
            return
        self.texts[place] = f"{kind.__qualname__} {id(value)}"
        if id(value) in self._seen or isinstance(value, type | types.FunctionType | types.ModuleType):
            return
        self._seen.add(id(value))
        self.texts[place] += f" {_content(value)}"
        for name, inner in _parts(value):
            self.add(f"{place}.{name}", inner)


def _content(value: Any) -> str:
    if isinstance(value, Tensor):
        return _tensor(value)
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape} {_digest(value.tobytes())}"
    if isinstance(value, torch.Generator):
        return _digest(value.get_state().numpy().tobytes())
    if isinstance(value, random.Random):
        return _digest(repr(value.getstate()).encode())
    if isinstance(value, np.random.Generator):
        return repr(value.bit_generator.state)
    if isinstance(value, np.random.RandomState):
        return _digest(repr(value.get_state(legacy=False)).encode())
    return str(len(value)) if isinstance(value, list | tuple | dict | set | deque) else ""


def _tensor(tensor: Tensor) -> str:
    if tensor.is_sparse:
        return f"sparse {tensor.shape} {tensor.to_dense().tolist()}"
    values = tensor.detach().resolve_conj().contiguous().reshape(-1)
    held = f"{tensor.dtype} {tuple(tensor.shape)} {tensor.stride()} {tensor.data_ptr()}"
    flags = f"{tensor.requires_grad} {tensor.is_leaf} {tensor.is_inference()}"
    return f"{held} {flags} {_digest(values.view(torch.uint8).numpy().tobytes())}"


def _parts(value: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(value, Tensor):
        return [*vars(value).items(), *([("grad", value.grad)] if value.is_leaf else [])]
    if isinstance(value, torch.jit.ScriptModule):
        return [*value.named_parameters(), *value.named_buffers(), ("training", value.training)]
    if isinstance(value, dict):
        return list(_pairs(value))
    if isinstance(value, list | tuple | deque):
        return [(str(number), item) for number, item in enumerate(value)]
    if isinstance(value, set):
        return [("items", repr(sorted(map(repr, value))))]
    if isinstance(value, types.MethodType):
        return [("self", value.__self__)]
    if isinstance(value, functools.partial):
        return [("args", value.args), ("keywords", value.keywords)]
    if isinstance(value, (*_RANDOM, np.ndarray)):
        return []
    if isinstance(value, types.SimpleNamespace):
        return vars(value).items()
    if isinstance(value, _BaseDataLoaderIter) or type(value).__module__ in sys.stdlib_module_names:
        return []
    return vars(value).items() if hasattr(value, "__dict__") else []


def _pairs(items: dict[Any, Any]) -> Iterator[tuple[str, Any]]:
    for number, (key, item) in enumerate(items.items()):  # the order counts, too
        name = f"#{number} {key if isinstance(key, str) else type(key).__name__}"
        yield name, item
        if not isinstance(key, str):
            yield f"{name} key", key


def _of_process() -> dict[str, str]:
    return {
        "python": _digest(repr(random.getstate()).encode()),
        "numpy": _digest(repr(np.random.get_state(legacy=False)).encode()),
        "torch": _digest(torch.get_rng_state().numpy().tobytes()),
        "modes": repr((torch.is_grad_enabled(), torch.is_inference_mode_enabled())),
        "autocast": repr((torch.is_autocast_enabled("cpu"), torch.is_autocast_cache_enabled())),
        "dtypes": repr((torch.get_default_dtype(), torch.get_autocast_dtype("cpu"))),
        "kernels": repr((torch.backends.cudnn.benchmark, torch.are_deterministic_algorithms_enabled())),
        "threads": str(torch.get_num_threads()),
        "processes": repr(sorted(process.pid or 0 for process in multiprocessing.active_children())),
        "handlers": repr([signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]),
        "files": repr(sorted(str(path) for path in Path().rglob("*")))
        if _is_scratch(Path().resolve())
        else "",
    }


def _is_scratch(folder: Path) -> bool:
    """Whether nothing but a test writes in a folder."""
    return not (folder / "pyproject.toml").exists()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
