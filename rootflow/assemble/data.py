"""A config's data: the splits, what they tell, and a loader for each."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from rootflow.assemble.training import Training
from rootflow.build import build
from rootflow.config.schema import Config
from rootflow.data.augment import Preprocess
from rootflow.data.facts import DataFacts, describe
from rootflow.data.loaders import (
    DatasetLoader,
    LoaderSettings,
    TensorLoader,
    as_loader,
    build_loader,
    find_resident,
)
from rootflow.data.samples import as_tensor_dataset
from rootflow.data.splits import Split, Splits, split_dataset
from rootflow.discover.found import Found
from rootflow.discover.pins import Pins
from rootflow.discover.workers import find_num_workers
from rootflow.errors import DataError
from rootflow.train.provided import LOADER_NAMES, find_loader, own_loader_names


def load_data(config: Config) -> tuple[Splits, DataFacts]:
    """Build the data set that a config names, in three splits, and look at it.

    Raises:
        DataError: it is missing or damaged, or has no targets and the task is left open.
        ConfigError: its component can't be imported, or refuses its arguments.
    """
    given = config.dataset.get("split")
    is_ours = isinstance(given, dict) and given.keys() <= {field.name for field in dataclasses.fields(Split)}
    split = Split(**given) if given and is_ours else Split()
    splits = split_dataset(build("dataset", config.dataset), split=split)
    facts = describe(splits)
    if facts.target == "none" and config.task.get("name") == "auto":
        raise DataError(
            "the data set has no targets that tell what to learn; choose a task (`rootflow list task`)."
        )
    return splits, facts


def data_record(splits: Splits, facts: DataFacts) -> dict[str, Any]:
    """Return what run.json says about the data: what it is, and how it was split."""
    return {**dataclasses.asdict(facts), **splits.record}


def take_own_data(made: Training, batch_size: int, pins: Pins) -> list[str]:
    """Take the data that a model brings in place of the data set's; return of which splits it does.

    One that brings what it is trained on is evaluated and tested on nothing else than it brings.
    """
    own = [split for split in LOADER_NAMES if own_loader_names(made.model, split)]
    if "train" in own:
        made.val = made.test = None
    for split in own:
        data = find_loader(made.model, None, split)
        device = torch.device(made.trainer.device)
        loader = as_loader(data, batch_size=batch_size, device=device, is_train=split == "train")
        setattr(made, split, loader)
        pins.say(f"{split} data: from {type(made.model).__name__}.{own_loader_names(made.model, split)[0]}")
    return own


@dataclass
class Loading:
    """How the data of a run gets to its device, decided once by the training data for all of it."""

    splits: Splits
    facts: DataFacts
    device: torch.device
    seed: int
    settings: LoaderSettings
    pins: Pins

    def decide_resident(self) -> None:
        """Decide whether data in memory is kept on the device."""
        tensors = as_tensor_dataset(self.splits.train)
        if tensors is not None and self.settings.resident == "auto":
            found = Found(*find_resident("auto", tensors, self.device))
            resident = self.pins.pin("loader.resident", found)
            self.settings = dataclasses.replace(self.settings, resident=resident)

    @property
    def wants_workers(self) -> bool:
        """Whether it is open how many processes read samples, where samples are read one by one."""
        return self.settings.num_workers == "auto" and as_tensor_dataset(self.splits.train) is None

    def decide_workers(self, batch_size: int, *, seconds_per_update: float | None) -> None:
        """Decide how many processes read samples, where that is open."""
        if self.wants_workers:
            found = find_num_workers(self.splits.train, batch_size, seconds_per_update=seconds_per_update)
            num_workers = self.pins.pin("loader.num_workers", found)
            self.settings = dataclasses.replace(self.settings, num_workers=num_workers)

    def resize(self, made: Training, batch_size: int, *, at_once: int) -> None:
        """Give a training batches of a size, read by as many processes as were decided.

        Evaluations have no micro batches: theirs are of the size that fits at once.
        """
        sizes = {"train": batch_size, "val": min(batch_size, at_once), "test": min(batch_size, at_once)}
        for name, size in sizes.items():
            loader = getattr(made, name)
            if name in made.own_data or not isinstance(loader, DatasetLoader | TensorLoader):
                continue
            if isinstance(loader, DatasetLoader) and loader.num_workers != self.settings.num_workers:
                setattr(made, name, self.loader(name, size))
            else:
                loader.set_batch_size(size)

    def loader(self, name: str, batch_size: int) -> TensorLoader | DatasetLoader | None:
        """Return a loader for a split; None where it isn't there."""
        splits, facts = self.splits, self.facts
        dataset, is_train = getattr(splits, name), name == "train"
        if dataset is None:
            return None
        mean, std = (facts.mean, facts.std) if splits.normalize else (None, None)
        augment = splits.augment if is_train else None
        transform = Preprocess(mean, std, augment=augment, seed=self.seed, num_classes=facts.num_classes)
        is_open = self.settings.num_workers == "auto"  # nobody has measured yet
        settings = dataclasses.replace(self.settings, num_workers=0) if is_open else self.settings
        return build_loader(
            dataset,
            batch_size=batch_size,
            device=self.device,
            is_train=is_train,
            seed=self.seed,
            transform=transform,
            settings=settings,
        )


def known_from_data(facts: DataFacts) -> Mapping[str, Found]:
    """Return what the data set tells about the parameters of models and tasks."""
    known = {
        key: Found(value, "from the data set")
        for key, value in dataclasses.asdict(facts).items()
        if value is not None
    }
    if facts.target == "number":
        known["num_classes"] = Found(facts.num_targets, "numbers in a target")
    return known
