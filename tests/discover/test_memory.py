"""What memory is free, what a block needs, and that it can't have more than it is given."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from rootflow.discover.memory import HostMemory, cgroups_leave, memory_of, shown_bytes
from rootflow.train.out_of_memory import survive_out_of_memory

MB = 10**6
BIG = 200 * MB


@pytest.fixture
def limits() -> Iterator[tuple[int, int]]:
    before = resource.getrlimit(resource.RLIMIT_AS)
    yield before
    resource.setrlimit(resource.RLIMIT_AS, before)


def used_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def test_a_device_without_a_memory_of_its_own_has_the_hosts() -> None:
    assert isinstance(memory_of(torch.device("cpu")), HostMemory)
    assert isinstance(memory_of(torch.device("mps")), HostMemory)


def test_the_limit_of_the_address_space_is_what_is_free(limits: tuple[int, int]) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (used_bytes() + BIG, limits[1]))
    assert memory_of(torch.device("cpu")).free_bytes() == pytest.approx(BIG, rel=0.05)


def test_free_memory_is_no_more_than_what_the_machine_has() -> None:
    lines = Path("/proc/meminfo").read_text().splitlines()
    total = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemTotal"))
    assert 0 < HostMemory().free_bytes() < total


def test_the_peak_of_a_block_is_measured_and_not_what_came_before() -> None:
    held = torch.ones(BIG // 4)
    memory = HostMemory()
    with memory.measuring() as peak:
        torch.ones(BIG // 4 // 2)
    assert peak.num_bytes == pytest.approx(BIG / 2, abs=memory.resolution_bytes)
    assert held.nbytes == BIG


def test_a_peak_that_began_anew_forgets_what_was_before() -> None:
    memory = HostMemory()
    with memory.measuring() as peak:
        torch.ones(BIG // 4)
        peak.begin_anew()
        torch.ones(BIG // 4 // 4)
    assert peak.num_bytes == pytest.approx(BIG / 4, abs=memory.resolution_bytes)


def test_what_stays_in_use_after_a_block_counts_for_the_next_one() -> None:
    memory = HostMemory()
    held = torch.ones(BIG // 4)
    with memory.measuring() as peak:
        torch.ones(BIG // 4)
    assert peak.num_bytes == pytest.approx(2 * BIG, abs=memory.resolution_bytes)
    assert held.nbytes == BIG


def test_allocations_beyond_a_limit_fail_within_the_block_and_only_there() -> None:
    memory = HostMemory()
    before = resource.getrlimit(resource.RLIMIT_AS)
    with memory.limited(BIG):
        assert torch.is_tensor(survive_out_of_memory(lambda: torch.ones(BIG // 8)))
        assert isinstance(survive_out_of_memory(lambda: torch.ones(BIG // 2)), RuntimeError)
    assert resource.getrlimit(resource.RLIMIT_AS) == before
    assert torch.ones(BIG // 2).nbytes == 2 * BIG


def test_a_limit_is_put_back_after_an_error() -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    with pytest.raises(KeyboardInterrupt), HostMemory().limited(BIG):
        raise KeyboardInterrupt
    assert resource.getrlimit(resource.RLIMIT_AS) == before


def test_a_limit_counts_from_when_the_memory_was_looked_at() -> None:
    memory = HostMemory()
    held = torch.ones(BIG // 8)
    with memory.limited(BIG):
        assert isinstance(survive_out_of_memory(lambda: torch.ones(BIG // 16 * 3)), RuntimeError)
    assert held.nbytes == BIG // 2


def test_a_limit_that_is_there_already_isnt_widened(limits: tuple[int, int]) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (used_bytes() + BIG, limits[1]))
    with HostMemory().limited(10 * BIG):
        assert isinstance(survive_out_of_memory(lambda: torch.ones(BIG)), RuntimeError)


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"memory.{name}").write_text(text)


def own_cgroup(root: Path, text: str) -> None:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(text)


def test_a_cgroup_leaves_what_it_doesnt_use_and_caches_of_files(tmp_path: Path) -> None:
    own_cgroup(tmp_path, "0::/job/step\n")
    mount = tmp_path / "sys/fs/cgroup"
    write(mount / "job/step", max="1000\n", current="700\n", stat="anon 400\ninactive_file 200\n")
    write(mount / "job", max="900\n", current="800\n", stat="inactive_file 50\n")
    assert cgroups_leave(tmp_path) == [500, 150]


def test_a_cgroup_without_a_limit_leaves_everything(tmp_path: Path) -> None:
    own_cgroup(tmp_path, "0::/\n")
    write(tmp_path / "sys/fs/cgroup", max="max\n", current="700\n", stat="inactive_file 200\n")
    assert cgroups_leave(tmp_path) == []


def test_a_cgroup_that_a_container_doesnt_show_is_passed_over(tmp_path: Path) -> None:
    own_cgroup(tmp_path, "0::/system/docker-1234\n")
    write(tmp_path / "sys/fs/cgroup", max="1000\n", current="700\n", stat="inactive_file 0\n")
    assert cgroups_leave(tmp_path) == [300]


def test_cgroups_of_the_first_version_are_read_too(tmp_path: Path) -> None:
    own_cgroup(tmp_path, "5:devices:/\n4:memory:/job\n0::/\n")
    folder = tmp_path / "sys/fs/cgroup/memory/job"
    write(folder, limit_in_bytes="1000\n", usage_in_bytes="700\n", stat="total_inactive_file 100\n")
    assert cgroups_leave(tmp_path) == [400]


def test_a_system_without_cgroups_has_none(tmp_path: Path) -> None:
    assert cgroups_leave(tmp_path) == []


def test_bytes_are_shown_in_the_unit_that_people_think_in() -> None:
    assert [shown_bytes(n) for n in (5e5, 12.4e6, 3.14e9, 139e9)] == ["0.5 MB", "12 MB", "3.1 GB", "139 GB"]
