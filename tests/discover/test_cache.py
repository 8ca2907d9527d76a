"""What searches found is found again by equal ones, by nobody else, and by many processes at once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from rootflow.discover.cache import cache_folder, describe_model, recall_or

ABOUT = {"model": "mlp", "size": 3}


class Counting:
    """A search that counts how often it is made."""

    def __init__(self) -> None:
        self.num_searches = 0

    def __call__(self) -> dict[str, int]:
        self.num_searches += 1
        return {"value": self.num_searches}


def test_an_equal_search_is_made_once(tmp_path: Path) -> None:
    search = Counting()
    first, age_s = recall_or(search, ABOUT, folder=tmp_path)
    assert first == {"value": 1}
    assert age_s is None
    again, age_s = recall_or(search, {"size": 3, "model": "mlp"}, folder=tmp_path)
    assert again == {"value": 1}
    assert age_s is not None
    assert 0 <= age_s < 60


def test_another_search_finds_nothing_of_it(tmp_path: Path) -> None:
    search = Counting()
    recall_or(search, ABOUT, folder=tmp_path)
    assert recall_or(search, {**ABOUT, "size": 4}, folder=tmp_path) == ({"value": 2}, None)


def test_what_no_longer_holds_is_searched_anew_and_replaced(tmp_path: Path) -> None:
    search = Counting()
    recall_or(search, ABOUT, folder=tmp_path)
    assert recall_or(search, ABOUT, is_valid=lambda found: found["value"] > 1, folder=tmp_path)[1] is None
    assert recall_or(search, ABOUT, folder=tmp_path)[0] == {"value": 2}


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"record": 3, "found_at": 1}', '{"found_at": 1}'])
def test_a_damaged_entry_is_searched_anew(tmp_path: Path, damage: str) -> None:
    search = Counting()
    recall_or(search, ABOUT, folder=tmp_path)
    (entry,) = tmp_path.glob("*.json")
    entry.write_text(damage)
    assert recall_or(search, ABOUT, folder=tmp_path) == ({"value": 2}, None)
    assert json.loads(entry.read_text())["about"] == {"format": 1, **ABOUT}


def test_a_search_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> dict[str, int]:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        recall_or(fail, ABOUT, folder=tmp_path)
    assert not list(tmp_path.glob("*.json"))


def test_where_nothing_can_be_written_nothing_is_remembered(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    search = Counting()
    for value in (1, 2):
        assert recall_or(search, ABOUT, folder=tmp_path / "file" / "cache") == ({"value": value}, None)


def test_processes_that_want_the_same_wait_for_the_first(tmp_path: Path) -> None:
    script = tmp_path / "search.py"
    script.write_text(
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from rootflow.discover.cache import recall_or\n"
        "def search():\n"
        "    time.sleep(0.5)\n"
        "    return {'pid': os.getpid()}\n"
        f"print(recall_or(search, {ABOUT!r}, folder=Path(sys.argv[1]))[0]['pid'])\n"
    )
    command = [sys.executable, str(script), str(tmp_path / "cache")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = {process.communicate(timeout=60)[0] for process in running}
    assert [process.returncode for process in running] == [0, 0, 0]
    assert len(said) == 1


def test_who_waits_for_another_can_be_interrupted(tmp_path: Path) -> None:
    script = tmp_path / "search.py"
    script.write_text(
        "import sys, time\n"
        "from pathlib import Path\n"
        "from rootflow.discover.cache import recall_or\n"
        "def search():\n"
        "    print('searching', flush=True)\n"
        "    time.sleep(60)\n"
        f"recall_or(search, {ABOUT!r}, folder=Path(sys.argv[1]))\n"
    )
    command = [sys.executable, str(script), str(tmp_path / "cache")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "searching\n"
        calls = []

        def leave() -> None:
            calls.append(1)
            if len(calls) == 2:
                raise KeyboardInterrupt

        try:
            with pytest.raises(KeyboardInterrupt):
                recall_or(Counting(), ABOUT, while_waiting=leave, folder=tmp_path / "cache")
        finally:
            other.kill()


def test_what_is_called_by_its_address_is_found_again(tmp_path: Path) -> None:
    search = Counting()
    for _ in range(2):
        recall_or(search, {**ABOUT, "function": object()}, folder=tmp_path)
    assert search.num_searches == 1


def test_the_folder_can_be_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ROOTFLOW_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path / "discovered"
    monkeypatch.delenv("ROOTFLOW_CACHE")
    assert cache_folder() == Path.home() / ".cache/rootflow/discovered"


def test_models_of_another_shape_or_freedom_are_others_and_other_weights_are_not() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    described = describe_model(model)
    assert describe_model(nn.Sequential(nn.Linear(4, 3), nn.ReLU())) == described
    assert describe_model(nn.Sequential(nn.Linear(4, 2), nn.ReLU())) != described
    assert describe_model(nn.Sequential(nn.Linear(4, 3), nn.Tanh())) != described
    model[0].bias.requires_grad_(False)
    assert describe_model(model) != described


@pytest.mark.parametrize("changed", ["net", "base"])
def test_a_class_whose_code_changed_is_another_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    code = (
        "from torch import nn\n"
        "class Base(nn.Linear):\n    def forward(self, x):\n        return super().forward(x) * {base}\n"
        "class Net(Base):\n    def reset(self):\n        return {net}\n"
    )
    described = []
    for number in (1, 2):
        (tmp_path / f"net{changed}{number}.py").write_text(
            code.format(**{"net": 1, "base": 1, changed: number})
        )
        module = __import__(f"net{changed}{number}")
        module.Net.__module__ = module.Base.__module__ = "net"
        sys.modules["net"] = module
        described.append(describe_model(module.Net(2, 2)))
        del sys.modules["net"]
    assert described[0]["structure"] == described[1]["structure"]
    assert described[0] != described[1]
