from __future__ import annotations

import platform
import subprocess
import sys

import rootflow
from rootflow.tracking.provenance import collect_provenance, read_hardware, read_versions


def test_versions_are_of_what_is_imported_and_nothing_is_imported_for_it():
    code = (
        "import sys; from rootflow.tracking.provenance import read_versions; found = read_versions();"
        "assert not {'torch', 'numpy', 'wandb', 'hydra'} & (set(found) | set(sys.modules)), found"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    import numpy

    versions = read_versions()
    assert versions["numpy"] == numpy.__version__
    assert versions["python"] == platform.python_version()
    assert versions["rootflow"] == rootflow.__version__


def test_hardware_has_the_processor_its_cores_and_the_memory():
    hardware = read_hardware(["NVIDIA A100"])
    assert hardware["cpu"]
    assert hardware["cores"] >= 1
    assert hardware["memory_bytes"] > 100_000_000
    assert hardware["gpus"] == ["NVIDIA A100"]


def test_outside_a_repository_the_rest_is_still_there(tmp_path):
    found = collect_provenance(tmp_path)
    assert (found.git, found.git_patch) == (None, "")
    assert found.versions
