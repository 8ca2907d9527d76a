"""What an experiment is has one hash; what doesn't belong to it changes nothing."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rootflow.config.canonical import canonical, identity
from rootflow.config.schema import Config
from tests.config.conftest import Compose


def leaves(node: dict[str, Any], at: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, (*at, key))
        else:
            yield (*at, key), value


def changed(config: Config, at: tuple[str, ...], value: Any) -> dict[str, Any]:
    copy: Any = config.to_dict()
    node = copy
    for key in at[:-1]:
        node = node[key]
    node[at[-1]] = value
    return copy


def reversed_keys(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: reversed_keys(value) for key, value in reversed(node.items())}
    return node


def test_every_value_counts_but_the_runs_name_and_where_it_is_recorded(compose: Compose) -> None:
    config = compose("model=resnet", "optimizer=muon", "scheduler=wsd")
    own = identity(config)
    seen = {own}
    for at, value in leaves(config.to_dict()):
        other = identity(changed(config, at, "another" if value != "another" else None))
        if at[0] in ("name", "tracking"):
            assert other == own, at
        else:
            assert other not in seen, at
            seen.add(other)
    assert len(seen) > 40


def test_the_order_of_keys_and_the_way_through_a_file_change_nothing(compose: Compose) -> None:
    config = compose(
        "scheduler=sequential_lr",
        "scheduler.schedulers=[{name: ConstantLR}, {name: StepLR, step_size: 2}]",
        "scheduler.milestones=[3]",
    )
    assert identity(reversed_keys(config.to_dict())) == identity(config)
    assert identity(json.loads(json.dumps(config.to_dict()))) == identity(config)
    assert len(identity(config)) == 12


def test_the_seed_counts_and_the_name_does_not(compose: Compose) -> None:
    config = compose("seed=1", "name=first")
    assert identity(config) == identity(compose("seed=1", "name=second", "tracking.wandb.mode=disabled"))
    assert identity(config) != identity(compose("seed=2", "name=first"))


def test_every_path_to_a_class_of_torch_is_one(compose: Compose) -> None:
    config = compose("optimizer=adamw")
    arguments = {key: value for key, value in config.optimizer.items() if key != "name"}
    for way in (
        {"name": "torch.optim.AdamW"},
        {"_target_": "torch.optim.AdamW"},
        {"_target_": "torch.optim.adamw.AdamW"},
    ):
        assert identity(dataclasses.replace(config, optimizer=way | arguments)) == identity(config)
    assert canonical(config)["optimizer"]["class"] == "torch.optim.adamw.AdamW"


def test_what_is_left_to_a_default_is_what_the_default_says(compose: Compose) -> None:
    config = compose("optimizer=sgd", "trainer.max_epochs=3")
    short = {key: config.optimizer[key] for key in ("name", "lr", "momentum", "weight_decay", "nesterov")}
    assert identity(dataclasses.replace(config, optimizer=short)) == identity(config)
    partly = config.dataset | {"split": {"val_frac": config.dataset["split"]["val_frac"]}}
    assert identity(dataclasses.replace(config, dataset=partly)) == identity(config)


def test_a_number_is_the_declared_type(compose: Compose) -> None:
    config = compose("optimizer.lr=1.0", "trainer.max_epochs=3")
    assert identity(changed(config, ("optimizer", "lr"), 1)) == identity(config)
    assert identity(changed(config, ("trainer", "max_epochs"), 3.0)) == identity(config)


def test_a_component_within_another_is_named_by_its_place_and_completed(compose: Compose) -> None:
    def with_inner(inner: dict[str, Any]) -> Config:
        return dataclasses.replace(compose(), scheduler={"name": "SequentialLR", "schedulers": [inner]})

    named = with_inner({"name": "ConstantLR"})
    spelt = with_inner({"_target_": "torch.optim.lr_scheduler.ConstantLR", "total_iters": 5})
    assert identity(named) == identity(spelt)
    assert identity(named) != identity(with_inner({"name": "ConstantLR", "total_iters": 6}))


def test_a_default_changed_in_the_source_is_another_experiment(project: Path, compose: Compose) -> None:
    seen = set()
    for width in (8, 16, 8):
        (project / "models" / "net.py").write_text(
            f"def net(*, width: int = {width}): ...\n" + "#" * len(seen)
        )
        seen.add(identity(compose("model=net")))
    assert len(seen) == 2


def test_a_place_that_can_not_be_read_stays_as_given(compose: Compose) -> None:
    config = dataclasses.replace(compose(), model={"_target_": "math.sin", "x": 1})
    assert canonical(config)["model"] == {"class": "math.sin", "x": 1}
    gone = dataclasses.replace(config, model={"name": "gone", "x": 1})
    assert canonical(gone)["model"] == {"class": "gone", "x": 1}


def test_an_identity_needs_no_torch(project: Path) -> None:
    code = (
        "import sys; from rootflow.config.canonical import identity;"
        "print(identity({'optimizer': {'name': 'AdamW'}, 'model': {'name': 'mlp'}, 'seed': 0}));"
        "assert 'torch' not in sys.modules and 'rootflow.models.mlp' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("value", [(1, 2), {1: 2}, Path("a")])
def test_values_of_python_are_hashed_too(value: Any) -> None:
    assert len(identity({"model": {"_target_": "math.sin", "x": value}})) == 12
