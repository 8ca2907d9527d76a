"""Running out of memory: how it is recognised, and how it is survived.

An exception holds its traceback, that holds the frames of the calls that failed, and those hold their tensors
(pytorch#18853): inside an `except` block nothing can be freed. So a call that may fail goes through
`survive_out_of_memory`, which lets go of the frames, and whoever called that frees the memory after it:

    result = survive_out_of_memory(lambda: learner.update(batch))
    if isinstance(result, Exception):
        free_memory(device)
"""

from __future__ import annotations

import gc
import re
import traceback
from collections.abc import Callable
from typing import TypeVar

import torch

T = TypeVar("T")

_PARTS = (
    "out of memory",  # CUDA, HIP, XPU and MPS, also where their own class of the error got lost
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",  # the same on Windows
    "std::bad_alloc",
    "could not create a memory object",  # oneDNN, whose kernels on the CPU get their own scratch memory
    "could not execute a primitive",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "CUDNN_STATUS_NOT_SUPPORTED",  # what is left where no algorithm's workspace was to be had
    "unable to find an engine to execute this computation",
    "Unable to find a valid cuDNN algorithm",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUSOLVER_STATUS_ALLOC_FAILED",
    "CUFFT_ALLOC_FAILED",
    "Invalid buffer size",  # MPS
)
"""What the messages of RuntimeErrors contain that tell of too little memory."""

_WHOLE = ("could not create a primitive",)
"""Such messages that are a part of others, which tell of something else."""

_ASKED = re.compile(r"[Tt]ried to allocate ([\d.]+) (bytes|[KMG]i?B)")
_UNITS = {"b": 1, "K": 2**10, "M": 2**20, "G": 2**30}


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there was too little memory, on whichever device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    if not isinstance(error, RuntimeError):
        return False
    message = str(error)
    return message in _WHOLE or any(part in message for part in _PARTS)


def count_asked_bytes(error: BaseException) -> int:
    """Return how much the allocation that failed asked for; 0 where the message doesn't tell."""
    found = _ASKED.search(str(error))
    if found is None:
        return 0
    number, unit = found.groups()
    return int(float(number) * _UNITS[unit[0]])


def survive_out_of_memory(call: Callable[[], T]) -> T | Exception:
    """Return what a call returns, or the out-of-memory error that ended it, as one that holds no tensors.

    The error has a note of where it was raised instead of a traceback, so that it can be raised again.
    Any other error is raised at once. Free the memory after this has returned, by `free_memory`.
    """
    try:
        return call()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return _without_frames(error)


def free_memory(device: torch.device) -> None:
    """Give back what nobody holds any more; of no use inside an `except` block."""
    gc.collect()
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
    elif device.type == "xpu":
        torch.xpu.empty_cache()


def _without_frames(error: Exception) -> Exception:
    """Let go of all frames, also of the errors that came before this one."""
    error.add_note("It was raised here:\n" + "".join(traceback.format_tb(error.__traceback__)[1:]).rstrip())
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)
