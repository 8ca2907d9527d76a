"""Folders of images, written by Pillow and read back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.data import Subset

from rootflow.data.facts import describe
from rootflow.data.folder import ImageFolder, folder
from rootflow.data.loaders import LoaderSettings, build_loader
from rootflow.data.splits import Split
from rootflow.errors import DataError

Image = pytest.importorskip("PIL.Image")

COLOURS = {"cat": (200, 0, 0), "dog": (0, 200, 0)}


def draw(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (6, 4)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, colour in COLOURS.items():
        for number in range(10):
            draw(tmp_path / name / f"{number}.png", colour)
    (tmp_path / "cat" / "notes.txt").write_text("not an image")
    return tmp_path


def test_each_class_folder_is_a_class_in_alphabetical_order(root: Path) -> None:
    splits = folder(str(root))
    facts = describe(splits)
    assert (facts.input_shape, facts.class_names, facts.num_classes) == ((3, 4, 6), ("cat", "dog"), 2)
    assert (facts.num_train, facts.num_val, facts.num_test) == (14, 2, 4)
    for part in (splits.train, splits.val, splits.test):
        for image, label in part:  # type: ignore[union-attr]
            assert image.dtype == torch.uint8
            assert image[:, 0, 0].tolist() == list(COLOURS[("cat", "dog")[label]])


def test_no_image_is_read_to_split_them(root: Path) -> None:
    for path in root.rglob("*.png"):
        path.write_bytes(b"")
    splits = folder(str(root))
    assert isinstance(splits.val, Subset)
    assert len(splits.val) == 2


def test_train_val_and_test_folders_are_taken_as_they_are(tmp_path: Path) -> None:
    for part, count in {"train": 5, "val": 2, "test": 3}.items():
        for name, colour in COLOURS.items():
            for number in range(count):
                draw(tmp_path / part / name / f"{number}.jpg", colour)
    splits = folder(str(tmp_path), split=Split(val_frac=0.5, test_frac=0.5))
    assert [len(p) for p in (splits.train, splits.val, splits.test)] == [10, 4, 6]  # type: ignore[arg-type]


def test_the_middle_square_is_scaled_to_the_size_that_is_set(tmp_path: Path) -> None:
    draw(tmp_path / "a" / "wide.png", (1, 2, 3), (40, 10))
    draw(tmp_path / "a" / "tall.png", (1, 2, 3), (10, 40))
    Image.new("L", (8, 8), 9).save(tmp_path / "a" / "grey.png")
    images = ImageFolder(tmp_path, image_size=5)
    assert {tuple(image.shape) for image, _ in images} == {(3, 5, 5)}  # type: ignore[attr-defined]
    assert images[0][0].unique().tolist() == [9]


def test_images_of_different_sizes_ask_for_a_size(root: Path) -> None:
    draw(root / "dog" / "big.png", (0, 0, 0), (7, 7))
    images = ImageFolder(root)
    with pytest.raises(
        DataError, match=r"big\.png has 7 x 7 pixels and .*0\.png has 6 x 4\. Set dataset\.image_size"
    ):
        images[len(images) - 1]


def test_a_damaged_image_is_named_also_from_a_worker(root: Path) -> None:
    (root / "dog" / "3.png").write_bytes((root / "dog" / "3.png").read_bytes()[:40])
    for workers in (0, 1):
        made = build_loader(
            ImageFolder(root),
            batch_size=4,
            device=torch.device("cpu"),
            is_train=False,
            settings=LoaderSettings(num_workers=workers),
        )
        with pytest.raises(DataError, match=r"dog/3\.png can't be read as an image"):
            list(made)


def test_a_class_that_training_has_not_is_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds the class 'dog', which the training images haven't"):
        ImageFolder(root, classes=["cat", "doge"])


@pytest.mark.parametrize(
    ("path", "message"), [("nowhere", "is not a folder. Set dataset.path"), (".", "has no images in folders")]
)
def test_a_folder_without_images_is_named(tmp_path: Path, path: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        folder(str(tmp_path / path))


def test_without_pillow_the_error_says_what_to_install(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(DataError, match=r"pip install rootflow\[vision\]"):
        folder(str(root))
