"""CIFAR in the publisher's format: tiny files always, the real ones where they are."""

from __future__ import annotations

import hashlib
import socket
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from rootflow.data.augment import Augment
from rootflow.data.cifar import Edition, cifar10, cifar100, find_folder, load
from rootflow.data.download import Source, default_root
from rootflow.data.facts import describe
from rootflow.data.splits import Split
from rootflow.errors import DataError

needs_cifar10 = pytest.mark.skipif(
    not (default_root() / "cifar-10-batches-bin").is_dir(), reason="CIFAR-10 isn't downloaded here"
)
NOWHERE = Source("https://example.invalid/tiny.tar.gz", hashlib.sha256().hexdigest(), 0)


@pytest.fixture(params=[1, 2])
def edition(request: pytest.FixtureRequest) -> Edition:
    return Edition(NOWHERE, "tiny", {"a.bin": 3, "b.bin": 2}, {"test.bin": 2}, "names.txt", request.param)


@pytest.fixture
def folder(edition: Edition, tmp_path: Path) -> Path:
    """Records whose every pixel is 10 x channel + label; the coarse label, if there is one, is 9."""
    path = tmp_path / "tiny"
    path.mkdir()
    (path / "names.txt").write_text("ant\nbee\ncow\n\n")
    for name, labels in {"a.bin": [0, 1, 2], "b.bin": [1, 1], "test.bin": [2, 0]}.items():
        records = [
            np.concatenate(
                [
                    [9] * (edition.num_label_bytes - 1),
                    [label],
                    np.repeat([label, 10 + label, 20 + label], 1024),
                ]
            )
            for label in labels
        ]
        (path / name).write_bytes(np.concatenate(records).astype(np.uint8).tobytes())
    return path


def test_records_are_read_in_order_with_the_fine_label_and_channels_first(
    edition: Edition, folder: Path
) -> None:
    splits = load(edition, folder)
    assert isinstance(splits.train, TensorDataset)
    images, labels = splits.train.tensors
    assert labels.tolist() == [0, 1, 2, 1, 1]
    assert images.shape == (5, 3, 32, 32)
    assert images.dtype == torch.uint8
    for image, label in zip(images, labels.tolist(), strict=True):
        assert [channel.unique().tolist() for channel in image] == [[label], [10 + label], [20 + label]]
    assert isinstance(splits.test, TensorDataset)
    assert splits.test.tensors[1].tolist() == [2, 0]
    assert splits.class_names == ("ant", "bee", "cow")
    assert splits.record["source"]["b.bin"]["num_bytes"] == 2 * (3072 + edition.num_label_bytes)


@pytest.mark.parametrize("change", [-1, 1])
def test_a_file_of_another_size_is_named_with_both_sizes(edition: Edition, folder: Path, change: int) -> None:
    content = (folder / "b.bin").read_bytes()
    (folder / "b.bin").write_bytes((content + b"?")[: len(content) + change])
    with pytest.raises(DataError, match=f"b.bin has {len(content) + change:,} .* {len(content):,}. Delete"):
        load(edition, folder)


def test_a_missing_file_is_named(edition: Edition, folder: Path) -> None:
    (folder / "test.bin").unlink()
    with pytest.raises(DataError, match=r"tiny/test\.bin is missing\. Delete"):
        load(edition, folder)


@pytest.mark.parametrize("dataset", [cifar10, cifar100])
def test_without_download_a_missing_folder_is_an_error_that_says_what_to_do(
    tmp_path: Path, dataset: type[cifar10]
) -> None:
    with pytest.raises(DataError, match=r"does not exist\. Set dataset\.download=true, or unpack https://"):
        dataset(root=str(tmp_path / "data"), download=False)
    assert list(tmp_path.iterdir()) == []


def test_without_a_network_the_error_comes_soon_and_nothing_is_left(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        source = Source(f"http://127.0.0.1:{closed.getsockname()[1]}/tiny.tar.gz", "", 1)
        began = time.monotonic()
        with pytest.raises(DataError, match="Connection refused") as caught:
            find_folder(Edition(source, "tiny", {}, {}, ""), str(tmp_path / "data"), download=True)
    assert time.monotonic() - began < 5
    assert source.url in str(caught.value)
    assert f"unpack it in {tmp_path / 'data'}, so that {tmp_path / 'data' / 'tiny'} is there" in str(
        caught.value
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@needs_cifar10
def test_the_real_cifar10_has_its_published_statistics() -> None:
    splits = cifar10(split=Split(val_frac=0))
    facts = describe(splits)
    assert facts.mean == pytest.approx((0.4914, 0.4822, 0.4465), abs=5e-5)
    assert facts.std == pytest.approx((0.2470, 0.2435, 0.2616), abs=5e-5)
    assert (facts.num_train, facts.num_val, facts.num_test) == (50_000, 0, 10_000)
    assert facts.class_names is not None
    assert facts.class_names[3] == "cat"
    assert isinstance(splits.train, TensorDataset)
    assert splits.train.tensors[1].bincount().tolist() == [5000] * 10
    assert splits.augment == Augment(flip="alternating", translate=4)


@pytest.mark.slow
@needs_cifar10
def test_the_real_cifar10_is_split_with_all_classes_alike() -> None:
    splits = cifar10()
    assert isinstance(splits.train, TensorDataset)
    assert isinstance(splits.val, TensorDataset)
    assert splits.train.tensors[1].bincount().tolist() == [4500] * 10
    assert splits.val.tensors[1].bincount().tolist() == [500] * 10
