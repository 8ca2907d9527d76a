"""idx files, tiny and broken ones; the real MNIST and Fashion-MNIST where they are."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from torch.utils.data import TensorDataset

from rootflow.data.augment import Augment
from rootflow.data.download import default_root
from rootflow.data.facts import describe
from rootflow.data.mnist import fashion_mnist, mnist, read_idx
from rootflow.errors import DataError

PIXELS = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
GOOD = struct.pack(">HBBIII", 0, 8, 3, 2, 3, 4) + PIXELS.tobytes()


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("name", ["images", "images.gz"])
def test_an_idx_file_is_read_gzipped_or_not(tmp_path: Path, name: str) -> None:
    found = read_idx(written(tmp_path / name, GOOD), (2, 3, 4))
    assert np.array_equal(found, PIXELS)
    assert found.flags.writeable


@pytest.mark.parametrize("name", ["images", "images.gz"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (GOOD[:-1], "images.* ends after 39 of 40 bytes. Delete it"),
        (GOOD[:7], "ends after 7 of 40 bytes"),
        (b"", "ends after 0 of 40 bytes"),
        (GOOD + b"?", "has more than 40 bytes"),
        (b"\1" + GOOD[1:], "does not begin like an idx file"),
        (GOOD[:2] + b"\x0d" + GOOD[3:], "of uint8 with shape"),
        (GOOD[:3] + b"\2" + GOOD[4:], "shape"),
        (GOOD[:7] + b"\3" + GOOD[8:], r"shape \(2, 3, 4\): .* 00 00 00 03 .* in place of"),
    ],
)
def test_a_broken_idx_file_is_named_with_what_is_wrong(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read_idx(written(tmp_path / name, content), (2, 3, 4))


def test_a_broken_gzip_file_is_named(tmp_path: Path) -> None:
    whole = gzip.compress(GOOD)
    path = tmp_path / "images.gz"
    wrong_sum, wrong_block = bytearray(whole), bytearray(whole)
    wrong_sum[-5] ^= 1
    wrong_block[10] = 0xFF
    for content in (whole[:-9], b"not gzip", bytes(wrong_sum), bytes(wrong_block)):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"images\.gz is damaged: .* Delete it"):
            read_idx(path, (2, 3, 4))


def test_without_download_a_missing_file_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"train-images-idx3-ubyte\.gz does not exist\. Set dataset\.download"
    ):
        mnist(root=str(tmp_path / "data"), download=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.skipif(not (default_root() / "mnist").is_dir(), reason="MNIST isn't downloaded here")
def test_the_real_mnist_has_its_published_statistics() -> None:
    splits = mnist()
    facts = describe(splits)
    assert facts.mean == pytest.approx((0.1307,), abs=2e-4)
    assert facts.std == pytest.approx((0.3081,), abs=2e-4)
    assert (facts.num_train, facts.num_val, facts.num_test) == (54_000, 6_000, 10_000)
    assert isinstance(splits.test, TensorDataset)
    assert splits.test.tensors[1][:5].tolist() == [7, 2, 1, 0, 4]
    # of the unpacked file, from a copy whose labels and statistics are the published ones
    sha256 = splits.record["source"]["train-images-idx3-ubyte"]["sha256"]
    assert sha256 == "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"


@pytest.mark.slow
@pytest.mark.skipif(
    not (default_root() / "fashion-mnist").is_dir(), reason="Fashion-MNIST isn't downloaded here"
)
def test_the_real_fashion_mnist_has_its_published_statistics() -> None:
    splits = fashion_mnist()
    facts = describe(splits)
    assert facts.mean == pytest.approx((0.2860,), abs=2e-4)
    assert facts.std == pytest.approx((0.3530,), abs=2e-4)
    assert isinstance(splits.test, TensorDataset)
    assert splits.test.tensors[1].bincount().tolist() == [1000] * 10
    assert facts.class_names is not None
    assert facts.class_names[9] == "Ankle boot"
    assert splits.augment == Augment(flip="alternating", translate=2)
