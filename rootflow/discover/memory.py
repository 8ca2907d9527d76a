"""How much memory a device has left, how much a block of code needs, and a limit that code can't exceed.

On a CPU a process that takes too much is killed, by its cgroup or by the kernel; within `limited` it gets an
exception instead, as on CUDA.
"""

from __future__ import annotations

import ctypes
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

_LEAST_ENFORCED = 2**26
"""Bytes below which nothing is enforced: kernels that find no room for scratch crash the process."""
_PEAK = "5"
"""Written to /proc/self/clear_refs, it makes the peak of the resident memory begin anew."""


@dataclass
class Peak:
    """The most memory that a block needed, beyond what was in use when its `Memory` was made."""

    begin_anew: Callable[[], object]
    """Forgets the peak so far: what happens once, such as kernels that are chosen by trying them."""
    num_bytes: int | None = None
    """Known after the block; None where this system doesn't tell it."""


class Memory(Protocol):
    """The memory of a device, as one process sees it; what it needs counts from when this was made."""

    resolution_bytes: int
    """How far a peak may be off."""

    def free_bytes(self) -> int:
        """Return how much this process can still take."""

    def measuring(self) -> AbstractContextManager[Peak]:
        """Measure the peak within a block; whatever the block held must be let go before its end."""

    def limited(self, num_bytes: int) -> AbstractContextManager[None]:
        """Let allocations fail that take the process ``num_bytes`` beyond what it had in use.

        The failure is an exception that `is_out_of_memory` knows.
        """


def memory_of(device: torch.device) -> Memory:
    """Return the memory of a device; of others than CUDA the host's, which most of them share."""
    return CudaMemory(device) if device.type == "cuda" else HostMemory()


def shown_bytes(num_bytes: float) -> str:
    """Return `0.5 MB`, `12 MB` or `3.1 GB`."""
    unit, name = (1e9, "GB") if num_bytes >= 1e9 else (1e6, "MB")
    number = num_bytes / unit
    return f"{number:.0f} {name}" if number >= 10 else f"{number:.1f} {name}"


class CudaMemory:
    """The memory of a CUDA device: what torch's allocator has reserved, and what the device has left."""

    resolution_bytes = 2**21
    """The allocator reserves blocks of 2 MiB and more."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        torch.cuda.empty_cache()
        self._base_bytes = torch.cuda.memory_reserved(device)

    def free_bytes(self) -> int:
        """Return what the device has left, and what torch has reserved and doesn't use."""
        free, _ = torch.cuda.mem_get_info(self._device)
        unused = torch.cuda.memory_reserved(self._device) - torch.cuda.memory_allocated(self._device)
        return int(free + unused)

    @contextmanager
    def measuring(self) -> Iterator[Peak]:
        """Measure the most that torch reserves, which is more than it allocates: blocks are cut up."""
        self._begin_anew()
        peak = Peak(self._begin_anew)
        yield peak
        torch.cuda.synchronize(self._device)
        peak.num_bytes = torch.cuda.max_memory_reserved(self._device) - self._base_bytes
        torch.cuda.empty_cache()

    @contextmanager
    def limited(self, num_bytes: int) -> Iterator[None]:
        """Let torch reserve no more."""
        _, total = torch.cuda.mem_get_info(self._device)
        before = torch.cuda.get_per_process_memory_fraction(self._device)
        limit = min((self._base_bytes + num_bytes) / total, before)
        torch.cuda.set_per_process_memory_fraction(limit, self._device)
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(before, self._device)

    def _begin_anew(self) -> None:
        torch.cuda.synchronize(self._device)
        torch.cuda.empty_cache()  # what is reserved now and unused would count as needed
        torch.cuda.reset_peak_memory_stats(self._device)


class HostMemory:
    """The memory of this process: what its limits, its cgroup and the machine leave it."""

    resolution_bytes = 2**22
    """The kernel counts pages for each core, and adds them up now and then."""

    def __init__(self) -> None:
        _trim_heap()
        self._base = _process_bytes()

    def free_bytes(self) -> int:
        """Return the least of what the address space's limit, the cgroups and the machine leave."""
        return max(0, min([*_limit_leaves(), *cgroups_leave(), _machine_leaves()]))

    @contextmanager
    def measuring(self) -> Iterator[Peak]:
        """Measure the most that was resident, without pages of libraries that were read meanwhile."""
        can_tell = _begin_peak_anew() and "RssAnon" in self._base
        peak = Peak(_begin_peak_anew)
        yield peak
        if can_tell:
            most = _process_bytes()["VmHWM"]
            _trim_heap()
            now = _process_bytes()
            peak.num_bytes = most - now["VmRSS"] + max(now["RssAnon"] - self._base["RssAnon"], 0)

    @contextmanager
    def limited(self, num_bytes: int) -> Iterator[None]:
        """Limit the address space of the process, its other threads included.

        What the C library keeps of freed memory, and what was mapped and never touched, isn't in use.
        """
        now = _process_bytes()
        if "RssAnon" not in now or num_bytes < _LEAST_ENFORCED:  # not Linux, or so little
            yield
            return
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        limit = now["VmSize"] + num_bytes - (now["RssAnon"] - self._base["RssAnon"])
        for bound in (soft, hard):
            limit = limit if bound == resource.RLIM_INFINITY else min(limit, bound)
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _process_bytes() -> dict[str, int]:
    """Return the process's sizes in bytes, by the kernel's names (proc_pid_status(5)); none off Linux."""
    try:
        text = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return {}
    lines = [line.split() for line in text.splitlines() if line.endswith(" kB")]
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines}


def _begin_peak_anew() -> bool:
    """Let VmHWM be what is resident now; return whether that can be done here."""
    try:
        Path("/proc/self/clear_refs").write_text(_PEAK, encoding="utf-8")
    except OSError:
        return False
    return True


def _trim_heap() -> None:
    """Give the system what the C library keeps of freed memory; only glibc has a word for it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _limit_leaves() -> Iterator[int]:
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    size = _process_bytes().get("VmSize")
    if soft != resource.RLIM_INFINITY and size is not None:
        yield soft - size


def _machine_leaves() -> int:
    """Return the machine's available memory; all of it where the system doesn't say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


_CGROUP_FILES = {
    2: ("memory.max", "memory.current", "inactive_file"),
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
"""For each version of cgroups: its limit, its use, and what of the use is only a cache of files."""


def cgroups_leave(root: Path = Path("/")) -> list[int]:
    """Return the bytes that those of this process's cgroups leave it that have a limit, parents included.

    Args:
        root: of the file system; another one for tests.
    """
    left = [_cgroup_leaves(folder, version) for folder, version in _cgroup_folders(root)]
    return [num_bytes for num_bytes in left if num_bytes is not None]


def _cgroup_folders(root: Path) -> Iterator[tuple[Path, int]]:
    """Yield the folders of the cgroups, from the inmost one up; inside a container some aren't there."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    mount = root / "sys/fs/cgroup"
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        version = 1 if controllers else 2
        top = mount / "memory" if controllers else mount
        inmost = top / path.lstrip("/")
        for folder in (inmost, *inmost.parents):
            yield folder, version
            if folder == top:
                break


def _cgroup_leaves(folder: Path, version: int) -> int | None:
    """Return what a cgroup leaves; None where there is no limit."""
    limit, used, cache = _CGROUP_FILES[version]
    try:
        limit_bytes, used_bytes = int((folder / limit).read_text()), int((folder / used).read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no such cgroup here; or "max"
        return None
    return limit_bytes - used_bytes + int(stat.get(cache, 0))
