"""Which errors tell of too little memory, and that one which was survived holds none."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import nn

from rootflow.train.out_of_memory import (
    count_asked_bytes,
    free_memory,
    is_out_of_memory,
    survive_out_of_memory,
)

TELLING = [
    torch.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of ..."
    ),
    MemoryError(),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
        "allocate 400000000 bytes. Error code 12 (Cannot allocate memory)"
    ),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 12 bytes."),
    RuntimeError("std::bad_alloc"),
    RuntimeError("could not create a primitive"),
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. This error may appear if you passed in ..."),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("GET was unable to find an engine to execute this computation"),
    RuntimeError(
        "MPS backend out of memory (MPS allocated: 5.56 GB). Tried to allocate 768.00 MB on private pool."
    ),
    RuntimeError("Invalid buffer size: 9.75 GB"),
]

OTHERS = [
    RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"),
    RuntimeError("could not create a primitive descriptor for a convolution forward propagation primitive"),
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("CUDA error: device-side assert triggered"),
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED"),
    ValueError("out of memory"),
    KeyboardInterrupt("out of memory"),
    OSError(12, "Cannot allocate memory"),
]


@pytest.mark.parametrize("error", TELLING, ids=str)
def test_errors_that_tell_of_too_little_memory_are_known(error: BaseException) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize("error", OTHERS, ids=str)
def test_other_errors_are_not_taken_for_it(error: BaseException) -> None:
    assert not is_out_of_memory(error)


def test_an_allocation_that_really_fails_is_known_with_what_it_asked_for() -> None:
    error = survive_out_of_memory(lambda: torch.empty(2**60, dtype=torch.uint8))
    assert isinstance(error, RuntimeError)
    assert is_out_of_memory(error)
    assert count_asked_bytes(error) == 2**60


def test_the_bytes_asked_for_are_read_in_every_unit() -> None:
    asked = [count_asked_bytes(error) for error in TELLING]
    assert asked == [int(2.5 * 2**30), 0, 400_000_000, 12, 0, 0, 0, 0, 0, 0, 0, 768 * 2**20, 0]


def test_a_result_is_handed_through_and_other_errors_are_raised_at_once() -> None:
    def fail() -> None:
        raise RuntimeError("the shapes don't match")

    assert survive_out_of_memory(lambda: 7) == 7
    with pytest.raises(RuntimeError, match="shapes"):
        survive_out_of_memory(fail)


def test_an_error_that_was_survived_holds_none_of_the_tensors_of_its_frames() -> None:
    held: list[weakref.ref[torch.Tensor]] = []

    def inner(outputs: torch.Tensor) -> None:
        try:
            raise KeyError("first")
        except KeyError:
            raise torch.OutOfMemoryError("CUDA out of memory") from None

    def update() -> None:
        outputs = nn.Linear(4, 4)(torch.ones(2, 4))
        held.append(weakref.ref(outputs))
        inner(outputs)

    gc.disable()  # nothing but the error may have held them
    try:
        error = survive_out_of_memory(update)
        assert isinstance(error, torch.OutOfMemoryError)
        assert held[0]() is None
    finally:
        gc.enable()


def test_an_error_that_was_survived_can_be_raised_and_tells_where_it_came_from() -> None:
    def update() -> None:
        raise MemoryError("too little")

    error = survive_out_of_memory(update)
    assert isinstance(error, MemoryError)
    assert "in update" in error.__notes__[0]
    assert "test_out_of_memory.py" in error.__notes__[0]
    with pytest.raises(MemoryError, match="too little"):
        raise error


def test_memory_of_the_cpu_is_freed_by_collecting_cycles() -> None:
    class Cycle:
        def __init__(self) -> None:
            self.me = self

    held = weakref.ref(Cycle())
    free_memory(torch.device("cpu"))
    assert held() is None
