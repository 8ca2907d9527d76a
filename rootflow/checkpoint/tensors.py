"""Tensors as the bytes of a safetensors file, one at a time.

The format is a length, a JSON header and the tensors' bytes (github.com/huggingface/safetensors, "Format").
It is written here, not by `safetensors.save_file`, which wants all tensors on the host and packed at once,
syncs nothing, and tells a full disk as a text. This way a file is also hashed while it is written.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from rootflow.errors import CheckpointError

NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.complex64: "C64",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""What the format calls the dtypes that it has."""


def tensor_chunks(tensors: Mapping[str, Tensor]) -> Iterator[bytes | memoryview]:
    """Yield a safetensors file in pieces; each tensor is copied to the host when its turn comes.

    Tensors that share storage are written out each, so that every name is in the file.

    Raises:
        CheckpointError: a dtype that the format doesn't have.
    """
    # wide ones first, so that each starts at a multiple of its width
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].itemsize, item[0]))
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in ordered:
        start, end = end, end + tensor.nbytes
        header[name] = {
            "dtype": _name(name, tensor),
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little")
    yield text
    for _, tensor in ordered:
        yield row_major_bytes(tensor).numpy().data


def row_major_bytes(tensor: Tensor) -> Tensor:
    """Return the bytes of a tensor on the host, flat; a copy only where they don't lie there like that."""
    host = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    # not reshape(-1): of one number it keeps a stride that `view` refuses
    return host.as_strided((host.numel(),), (1,)).view(torch.uint8)


def _name(name: str, tensor: Tensor) -> str:
    if tensor.dtype not in NAMES:
        raise CheckpointError(f"{name} is {tensor.dtype}, which a safetensors file can't hold.")
    return NAMES[tensor.dtype]
