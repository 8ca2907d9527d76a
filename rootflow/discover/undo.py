"""Objects as they were, to the bit: tensors, containers, flags and random generators."""

from __future__ import annotations

import functools
import random
import sys
import types
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import Dataset

from rootflow.interrupts import Interrupts
from rootflow.train.seeding import keep_generators

PutBack: TypeAlias = Callable[[], None]

_MOST_ITEMS = 1_000
_MOST_BYTES = 2**20
"""Of objects that are neither module nor optimizer; what is larger there is taken for data."""

_PLAIN = (type(None), bool, int, float, str, bytes)
_STANDING_FOR_MORE = ("close", "__exit__", "__del__", "__next__")
"""Methods of a class whose objects stand for a file, a process, or a place in something else."""


@contextmanager
def undoing(objects: Iterable[object]) -> Iterator[tuple[Undo, Interrupts]]:
    """Make objects and the global random generators at the end of a block what they were at its begin.

    No signal interrupts the undoing. One that comes during the block is only noted: `Interrupts.leave` and
    `Interrupts.watch` raise what it means, and otherwise the end of the block does, when all is undone.
    """
    interrupts = Interrupts()
    with interrupts.listening(), keep_generators():
        undo = Undo(objects)
        try:
            yield undo, interrupts
        finally:
            undo.put_back()
    if interrupts.pending is not None:
        interrupts.leave()


class Undo:
    """Remembers objects as they are now; `put_back` makes them so again, as often as it is called.

    Modules, optimizers and the objects given are followed into their attributes, and those into tensors,
    arrays, lists, dicts, sets, generators, bound methods and other objects with attributes. All of them stay
    the same objects, so that whoever holds them sees no difference.

    Not looked into are functions and classes; objects of Python's own library; those that stand for a file, a
    process or a place in an iteration, which are ahead of what could be put back; and, in objects that are
    neither module nor optimizer, what is large and so taken for data.

    Args:
        objects: None among them is left out.
    """

    def __init__(self, objects: Iterable[object]) -> None:
        self._put_backs: list[PutBack] = []
        self._seen: dict[
            int, object
        ] = {}  # with the objects, lest another one gets the id of one that is gone
        self._own: list[Any] = []
        self._others: list[Any] = []
        for item in objects:
            if not self._keep(item, is_own=True) and (attributes := _attributes(item)) is not None:
                self._seen[id(item)] = item
                self._others.append(attributes)
        while self._own or self._others:  # first all that modules and optimizers hold, large or not
            is_own = bool(self._own)
            self._follow(self._own.pop() if is_own else self._others.pop(), is_own=is_own)

    def put_back(self) -> None:
        """Make everything as it was."""
        with ExitStack() as all_of_them:  # also where one fails
            for put_back in self._put_backs:
                all_of_them.callback(put_back)

    def _follow(self, value: Any, *, is_own: bool) -> None:
        if not self._keep(value, is_own=is_own) and _is_transparent(value):
            self._seen[id(value)] = value
            self._others.append(vars(value))

    def _keep(self, value: Any, *, is_own: bool) -> bool:
        """Remember a value of a known kind, and note what is in it; return whether it is one."""
        if type(value) in _PLAIN or id(value) in self._seen:
            return True
        keeper = next((keep for kinds, keep in _KEEPERS.items() if isinstance(value, kinds)), None)
        if keeper is None:
            return False
        is_own = is_own or isinstance(value, nn.Module | Optimizer)
        if not is_own and _count_bytes(value) > _MOST_BYTES:
            return True
        self._seen[id(value)] = value
        self._put_backs.append(keeper(value))
        inner = _inside(value)
        if is_own or len(inner) <= _MOST_ITEMS:
            (self._own if is_own else self._others).extend(inner)
        return True


def _attributes(value: object) -> dict[str, Any] | None:
    """Return the dict of an object's attributes; None where it has none of its own."""
    try:
        found = vars(value)
    except TypeError:
        return None
    return found if isinstance(found, dict) else None


def _count_bytes(value: object) -> int:
    return value.numel() * value.itemsize if isinstance(value, Tensor) else getattr(value, "nbytes", 0)


def _is_transparent(value: object) -> bool:
    """Whether an object is what its attributes are, and nothing else."""
    kind = type(value)
    if isinstance(value, types.SimpleNamespace | Dataset):
        return True
    is_foreign = kind.__module__.partition(".")[0] in sys.stdlib_module_names
    if is_foreign or kind.__module__.startswith("torch._"):
        return False
    return _attributes(value) is not None and not any(hasattr(kind, name) for name in _STANDING_FOR_MORE)


def _inside(value: Any) -> Sequence[Any]:
    """Return what else is to be remembered of a value of a known kind."""
    if isinstance(value, nn.Module):
        # of a ScriptModule they aren't among the attributes
        return [vars(value), *value.parameters(recurse=False), *value.buffers(recurse=False)]
    if isinstance(value, Optimizer):
        return [vars(value)]
    if isinstance(value, Tensor):  # a parameter that no optimizer has collects gradients all the same
        return [vars(value), *([value.grad] if value.is_leaf and value.grad is not None else [])]
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]  # the keys of an optimizer's state are parameters
    if isinstance(value, types.MethodType):
        return [value.__self__]
    if isinstance(value, functools.partial):
        return [value.func, value.args, value.keywords]
    return list(value) if isinstance(value, list | tuple | set | deque) else []


def _keep_module(module: nn.Module) -> PutBack:
    is_training = module.training

    def put_back() -> None:
        module.training = is_training

    return put_back


def _keep_tensor(tensor: Tensor) -> PutBack:
    if tensor.is_inference() or tensor.is_meta:  # which nobody may change, or which has no values
        return _do_nothing
    data = tensor.data
    # on the host: a search for memory must not find its own copies
    distinct = _without_repeats(data)
    copied = distinct.to("cpu", copy=True)
    if not tensor.is_leaf:
        return lambda: _fill(distinct, copied)
    requires_grad, gradient = tensor.requires_grad, tensor.grad

    def put_back() -> None:
        if not tensor.is_leaf:  # something with a gradient was added to it
            tensor.detach_()
        tensor.data = data  # a trial may have given it other memory, which is then let go
        _fill(distinct, copied)
        tensor.requires_grad = requires_grad
        tensor.grad = gradient

    return put_back


def _without_repeats(tensor: Tensor) -> Tensor:
    """Return a view that has each number once, of what `expand` made: only such a one can be written to."""
    if tensor.layout is not torch.strided or tensor.is_nested:
        return tensor
    for dim, (size, stride) in enumerate(zip(tensor.shape, tensor.stride(), strict=True)):
        if stride == 0 and size > 1:
            tensor = tensor.narrow(dim, 0, 1)
    return tensor


@torch.no_grad()
def _fill(tensor: Tensor, values: Tensor) -> None:
    tensor.copy_(values)


def _keep_array(array: np.ndarray[Any, Any]) -> PutBack:
    if isinstance(array, np.memmap) or not array.flags.writeable:
        return _do_nothing
    copied = array.copy()

    def put_back() -> None:
        array[...] = copied

    return put_back


def _keep_dict(held: dict[Any, Any]) -> PutBack:
    items = dict(held)

    def put_back() -> None:
        held.clear()
        held.update(items)

    return put_back


def _keep_list(held: list[Any]) -> PutBack:
    items = list(held)

    def put_back() -> None:
        held[:] = items

    return put_back


def _keep_collection(held: Any) -> PutBack:
    items = list(held)

    def put_back() -> None:
        held.clear()
        held.extend(items) if isinstance(held, deque) else held.update(items)

    return put_back


def _keep_generator(generator: torch.Generator) -> PutBack:
    state = generator.get_state()

    def put_back() -> None:
        generator.set_state(state)

    return put_back


def _keep_random(generator: random.Random) -> PutBack:
    state = generator.getstate()
    return lambda: generator.setstate(state)


def _keep_numpy(generator: np.random.Generator) -> PutBack:
    state = generator.bit_generator.state

    def put_back() -> None:
        generator.bit_generator.state = state

    return put_back


def _keep_old_numpy(generator: np.random.RandomState) -> PutBack:
    state = generator.get_state()
    return lambda: generator.set_state(state)


def _do_nothing() -> None:
    pass


def _keep_nothing(_held: object) -> PutBack:
    return _do_nothing  # it can't change; what is in it can


_KEEPERS: dict[Any, Callable[[Any], PutBack]] = {
    nn.Module: _keep_module,
    Tensor: _keep_tensor,
    dict: _keep_dict,
    list: _keep_list,
    (tuple, types.MethodType, functools.partial, Optimizer): _keep_nothing,
    np.ndarray: _keep_array,
    (set, deque): _keep_collection,
    torch.Generator: _keep_generator,
    random.Random: _keep_random,
    np.random.Generator: _keep_numpy,
    np.random.RandomState: _keep_old_numpy,
}
