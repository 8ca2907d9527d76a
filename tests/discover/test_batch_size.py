"""Batch sizes that are found have been run, fit, and are the largest or the fastest that do."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from rootflow.discover import fitting
from rootflow.discover.batch_size import BatchSizeReport, find_batch_size, search_batch_size
from rootflow.discover.memory import HostMemory, Peak
from rootflow.discover.settings import BatchSizeSettings, DiscoverSettings, MicroBatchSizeSettings
from rootflow.discover.trials import Trials
from rootflow.errors import ConfigError, DataError, RunError
from rootflow.tasks import LossTask
from rootflow.train.precision import Arithmetic
from rootflow.train.trainer import Trainer

CPU = torch.device("cpu")
FASTEST = BatchSizeSettings()
MICRO = MicroBatchSizeSettings()
EVEN = MicroBatchSizeSettings(rule="multiple_of_2")


class Limited(nn.Module):
    """A model that runs out of memory above some number of samples, and remembers how many it got."""

    def __init__(self, limit: int, *, norm: bool = False) -> None:
        super().__init__()
        self.limit = limit
        self.layer = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3) if norm else nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        SIZES.append(len(x))
        if len(x) > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return self.layer(x)


SIZES: list[int] = []
"""Samples of each forward pass of `Limited`; not an attribute, which a trial would put back."""


class Given(HostMemory):
    """A memory of which so much is free, and of which an update takes so much, and for each sample so much more."""

    resolution_bytes = 0

    def __init__(self, free_bytes: int, costs: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.given_bytes = free_bytes
        self.costs = costs

    def free_bytes(self) -> int:
        return self.given_bytes

    @contextmanager
    def measuring(self) -> Iterator[Peak]:
        peak, num_before = Peak(lambda: None), len(SIZES)
        yield peak
        if self.costs:
            peak.num_bytes = self.costs[0] + self.costs[1] * max(SIZES[num_before:])

    def limited(self, num_bytes: int) -> AbstractContextManager[None]:
        return nullcontext()


def search(
    model: nn.Module,
    *,
    wanted: int | None = None,
    num_samples: int = 100_000,
    batch: BatchSizeSettings = FASTEST,
    micro: MicroBatchSizeSettings = MICRO,
    **more: Any,
) -> BatchSizeReport:
    SIZES.clear()
    inputs = (torch.randn(16, 4), torch.randint(3, (16,)))
    optimizer = torch.optim.AdamW(model.parameters())
    with Trials(model, LossTask(F.cross_entropy), [optimizer], arithmetic=Arithmetic(CPU)) as trials:
        return search_batch_size(
            trials,
            inputs,
            wanted=wanted,
            num_samples=num_samples,
            batch_settings=batch,
            micro_settings=micro,
            **more,
        )


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 7, 8, 15, 33, 63, 64, 65, 100, 129, 511, 512, 700])
def test_the_micro_batch_is_the_largest_power_of_two_that_fits(limit: int) -> None:
    report = search(Limited(limit), wanted=512)
    assert report.micro_batch_size == min(1 << limit.bit_length() - 1, 512)
    assert report.micro_batch_size in SIZES
    assert report.suggestion == 512
    assert report.is_bound_by_memory is (limit < 512)


@pytest.mark.parametrize(
    ("limit", "size"), [(1, 1), (2, 2), (3, 2), (100, 100), (101, 100), (102, 102), (383, 382)]
)
def test_the_largest_even_micro_batch_is_found_to_the_sample(limit: int, size: int) -> None:
    report = search(Limited(limit), wanted=512, micro=EVEN)
    assert report.micro_batch_size == size
    assert size in SIZES


@pytest.mark.parametrize(
    ("wanted", "limit", "size"), [(100, 512, 100), (100, 99, 64), (7, 512, 7), (7, 6, 4), (1, 9, 1)]
)
def test_a_batch_size_that_is_no_power_of_two_goes_whole_or_in_such_parts(
    wanted: int, limit: int, size: int
) -> None:
    assert search(Limited(limit), wanted=wanted).micro_batch_size == size


def test_nothing_larger_than_the_batch_is_run() -> None:
    search(Limited(10_000), wanted=48)
    assert max(SIZES) == 48
    search(Limited(10_000), num_samples=1294)
    assert max(SIZES) == 16


def test_parts_of_a_batch_are_measured_while_gradients_are_added_up() -> None:
    search(Limited(8), wanted=512, num_samples=512, memory=Given(10**9, costs=(0, 10**8)))
    assert SIZES[-4:] == [8, 8, 8, 8]


def test_a_small_batch_in_ample_memory_costs_two_updates_the_rest_and_an_evaluation() -> None:
    batch = (torch.randn(5, 4), torch.randint(3, (5,)))
    report = search(Limited(10_000), wanted=16, num_samples=1294, eval_batch=batch)
    assert SIZES == [16, 16, 1294 % 16, 16]
    assert (report.num_full_size_tries, report.num_out_of_memory) == (1, 0)


def test_a_large_batch_in_ample_memory_is_run_once() -> None:
    report = search(Limited(10_000), wanted=512)
    assert SIZES.count(512) == 1
    assert (report.num_full_size_tries, report.num_out_of_memory) == (1, 0)


def test_a_rest_of_one_sample_is_not_run_since_batch_norm_could_not_either() -> None:
    search(Limited(10_000, norm=True), wanted=16, num_samples=33)
    assert SIZES == [16, 16]


def test_batch_norm_never_sees_one_sample_on_the_way() -> None:
    assert search(Limited(3, norm=True), wanted=64).micro_batch_size == 2
    assert 1 not in SIZES


def test_one_sample_at_a_time_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert search(Limited(1), wanted=64).micro_batch_size == 1
    assert "Only one sample fits" in caplog.text


def test_one_sample_that_doesnt_fit_is_an_error_with_the_bytes() -> None:
    memory = Given(10 * 10**9)
    with pytest.raises(RunError) as caught:
        search(Limited(0), wanted=64, memory=memory)
    assert "needs more than 2.1 GB, and 10 GB are free, of which 10% stay free" in str(caught.value)
    with pytest.raises(RunError, match="one sample doesn't fit"):
        search(Limited(0), memory=memory)


def test_other_errors_are_raised_at_once() -> None:
    class Broken(Limited):
        def forward(self, x: Tensor) -> Tensor:
            super().forward(x)
            raise ValueError("a bug of the user's")

    with pytest.raises(ValueError, match="a bug of the user's"):
        search(Broken(10_000), wanted=64)
    assert len(SIZES) == 1


@pytest.mark.parametrize("free_bytes", [2 * 10**5, 5 * 10**5, 10**6, 3 * 10**8, 7 * 10**8])
@pytest.mark.parametrize("costs", [(10**3, 10**3), (10**5, 10**4), (10**4, 3 * 10**3), (0, 777)])
def test_with_memory_that_grows_in_line_nothing_is_run_that_doesnt_fit(
    free_bytes: int, costs: tuple[int, int]
) -> None:
    fixed, each = costs
    limit = int(0.9 * free_bytes - fixed) // each
    report = search(
        Limited(limit),
        num_samples=2**20,
        batch=BatchSizeSettings(rule="largest", max=2**14),
        memory=Given(free_bytes, costs),
    )
    assert report.suggestion == min(1 << limit.bit_length() - 1, 2**14)
    assert report.suggestion in SIZES
    assert (report.num_full_size_tries, report.num_out_of_memory) == (1, 0)
    assert (
        max(row["predicted_bytes"] - row["peak_bytes"] for row in report.curve if row["predicted_bytes"]) <= 1
    )


def test_a_peak_beyond_the_budget_is_no_fit_though_nothing_failed() -> None:
    report = search(Limited(10_000), wanted=64, memory=Given(10**9, costs=(0, 10**8)))
    assert (report.micro_batch_size, report.num_out_of_memory) == (8, 0)


class Timed(Limited):
    """A model as slow as 256 samples are, below as well; and once, at one size, something gets in its way."""

    disturbed = 0

    def forward(self, x: Tensor) -> Tensor:
        CLOCK[0] += 0.004 * max(len(x) / 256, 1)
        if len(x) == self.disturbed and SIZES.count(len(x)) < 3:
            CLOCK[0] += 0.05
        return super().forward(x)


CLOCK = [0.0]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "find_clock", lambda device: lambda: CLOCK[0])


@pytest.mark.parametrize("disturbed", [0, 64, 128, 256, 512])
@pytest.mark.usefixtures("clock")
def test_the_smallest_batch_that_is_nearly_as_fast_as_any_is_taken(disturbed: int) -> None:
    model = Timed(10_000)
    model.disturbed = disturbed
    report = search(model, batch=BatchSizeSettings(max=2048))
    assert (report.suggestion, report.reason) == (256, "fastest useful; all 100,000 samples would fit")
    assert report.seconds_per_update == pytest.approx(0.004)
    assert not report.is_bound_by_memory


def test_a_real_update_takes_some_time_by_either_clock() -> None:
    report = search(nn.Linear(4, 3), batch=BatchSizeSettings(max=64))
    assert all(row["seconds_per_update"] > 0 for row in report.curve)


@pytest.mark.usefixtures("clock")
def test_no_faster_batch_is_taken_than_fits() -> None:
    report = search(Timed(64), batch=BatchSizeSettings(max=2048), memory=Given(10**9))
    assert (report.suggestion, report.reason) == (64, "the largest that fits in 900 MB")
    assert report.is_bound_by_memory
    assert search(Timed(8), batch=BatchSizeSettings(max=2048)).suggestion == 8


def test_data_and_maximum_bound_the_batch_before_anything_is_timed() -> None:
    report = search(Limited(10_000), num_samples=1294)
    assert (report.suggestion, report.reason) == (16, "80 updates an epoch; all 1,294 samples would fit")
    assert report.seconds_per_update is None
    report = search(Limited(10_000), batch=BatchSizeSettings(max=32))
    assert (report.suggestion, report.reason) == (32, "the largest allowed; all 100,000 samples would fit")


def test_the_rule_by_data_keeps_its_batch_and_cuts_it_where_memory_wants() -> None:
    report = search(
        Limited(100), num_samples=45_000, batch=BatchSizeSettings(rule="data"), memory=Given(10**9)
    )
    assert (report.suggestion, report.reason) == (512, "87 updates an epoch; 64 would fit")
    assert (report.micro_batch_size, report.micro_reason) == (64, "the largest that fits in 900 MB")


def test_all_of_the_data_would_fit_only_if_nothing_smaller_failed() -> None:
    assert search(Limited(70), wanted=100, num_samples=100).would_fit == 64
    assert search(Limited(100), wanted=64, num_samples=100).would_fit == 100


def test_a_report_survives_being_recorded() -> None:
    report = search(Limited(50), wanted=512)
    again = BatchSizeReport.from_record(json.loads(json.dumps(report.record())))
    assert again.record() == report.record()
    assert again.suggestion == report.suggestion
    assert [row["size"] for row in again.curve] == [row["size"] for row in report.curve]


def test_what_was_found_holds_while_about_as_much_memory_is_free() -> None:
    free = search(Limited(10_000), wanted=64, memory=Given(10**10, costs=(0, 10**7)))
    assert free.fits_in(10**9)
    assert free.fits_in(10**12)
    assert not free.fits_in(7 * 10**8)
    bound = search(Limited(10_000), wanted=64, memory=Given(10**8, costs=(0, 10**7)))
    assert bound.fits_in(10**8)
    assert not bound.fits_in(2 * 10**8)


@pytest.mark.parametrize("limit", [10_000, 100])
def test_the_picture_shows_memory_and_throughput(limit: int, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    search(Timed(limit), memory=Given(10**9, costs=(10**7, 2 * 10**6))).plot(tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def data() -> TensorDataset:
    return TensorDataset(torch.randn(200, 4), torch.randint(3, (200,)))


def test_a_script_of_ones_own_gets_a_batch_size_and_keeps_its_model() -> None:
    model = Limited(1000, norm=True)
    optimizer = torch.optim.AdamW(model.parameters())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    loader = DataLoader(data(), batch_size=10, shuffle=True)
    state = torch.get_rng_state()
    report = find_batch_size(model, loader, F.cross_entropy, optimizer)
    assert (report.suggestion, report.reason) == (8, "25 updates an epoch; all 200 samples would fit")
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert not optimizer.state


def test_a_script_of_ones_own_gets_a_micro_batch_size_for_the_batch_that_it_wants() -> None:
    report = find_batch_size(
        Limited(40), data(), F.cross_entropy, "sgd", trainer=Trainer(device="cpu", batch_size=128)
    )
    assert (report.suggestion, report.micro_batch_size) == (128, 32)
    settings = DiscoverSettings(micro_batch_size=EVEN)
    trainer = Trainer(device="cpu", batch_size=128)
    assert (
        find_batch_size(
            Limited(40), data(), F.cross_entropy, "sgd", trainer=trainer, settings=settings
        ).micro_batch_size
        == 40
    )


def test_a_script_hears_what_it_gave_wrong() -> None:
    with pytest.raises(ConfigError, match="both a loss and a task"):
        find_batch_size(Limited(9), data(), F.cross_entropy, "sgd", task=LossTask(F.cross_entropy))
    with pytest.raises(DataError, match="use it up"):
        find_batch_size(Limited(9), (batch for batch in DataLoader(data())), F.cross_entropy, "sgd")


@pytest.mark.slow
def test_several_processes_agree_on_what_fits_each_and_all_end_where_one_fails(tmp_path: Path) -> None:
    program = [sys.executable, "-m", "tests.discover.test_batch_size", str(tmp_path / "store")]
    ranks = [
        subprocess.Popen([*program, str(rank), *limits], stdout=subprocess.PIPE, text=True)
        for rank, limits in enumerate([("100", "100"), ("40", "0")])
    ]
    (agreed, told), (agreed_too, failed) = [rank.communicate(timeout=300)[0].splitlines() for rank in ranks]
    assert (agreed, agreed_too) == ("32 32 the least of 2 processes", "32 32 the whole batch at once")
    assert told == "the search for a batch size failed in another process, which says why."
    assert failed.startswith("one sample doesn't fit in the memory")


def main(store: str, rank: str, *limits: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=int(rank), world_size=2)
    for limit in limits:
        try:
            report = search(Limited(int(limit)), num_samples=2**20, batch=BatchSizeSettings(rule="largest"))
            print(report.suggestion, report.micro_batch_size, report.micro_reason)
        except RunError as error:
            print(error)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
