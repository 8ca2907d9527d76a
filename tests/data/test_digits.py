"""The default data set: offline, and without importing the package that carries it."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch.utils.data import TensorDataset

from rootflow.data.digits import digits
from rootflow.data.facts import describe
from rootflow.data.splits import Split
from rootflow.errors import DataError


def test_the_digits_are_those_of_scikit_learn() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    reference = datasets.load_digits()
    whole = digits(split=Split(val_frac=0, test_frac=0)).train
    assert isinstance(whole, TensorDataset)
    assert torch.equal(whole.tensors[0].double() * 16, torch.from_numpy(reference.images)[:, None])
    assert torch.equal(whole.tensors[1], torch.from_numpy(reference.target).long())


def test_a_fifth_is_for_the_test_with_all_classes_alike() -> None:
    splits = digits()
    facts = describe(splits)
    assert (facts.num_train, facts.num_val, facts.num_test) == (1294, 144, 359)
    assert (facts.input_shape, facts.num_classes) == ((1, 8, 8), 10)
    assert isinstance(splits.test, TensorDataset)
    assert set(splits.test.tensors[1].bincount().tolist()) <= {34, 35, 36, 37}


@pytest.mark.slow
def test_loading_them_does_not_import_scikit_learn() -> None:
    code = "import sys; from rootflow.data.digits import digits; digits(); sys.exit('sklearn' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_scikit_learn_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(DataError, match="pip install scikit-learn"):
        digits()
