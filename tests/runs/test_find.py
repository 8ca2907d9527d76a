from __future__ import annotations

import re
from pathlib import Path

import pytest

from rootflow.errors import RunError
from rootflow.runs.find import find_runs, resolve_run

OLD = "20260101-120000-mlp-digits-abcd"
NEW = "20260102-120000-resnet-cifar-k3f9"


def test_runs_are_found_at_any_depth_newest_last(root, make_run):
    new, old = make_run(f"manual/{NEW}"), make_run(f"sweeps/lr/{OLD}")
    assert find_runs(root) == [old, new]


def test_a_renamed_folder_is_still_a_run_and_never_the_latest(root, make_run):
    renamed, old = make_run("manual/my-best"), make_run(f"manual/{OLD}")
    assert find_runs(root) == [renamed, old]
    assert resolve_run("latest", root) == old


def test_folders_in_a_run_hidden_ones_and_links_are_not_searched(root, make_run, tmp_path):
    run = make_run(f"manual/{OLD}")
    make_run(f"manual/{OLD}/checkpoints/{NEW}")
    make_run(f".trash/{NEW}")
    (root / "link").symlink_to(run.parent)
    assert find_runs(root) == [run]


def test_a_root_that_is_not_there_is_named(tmp_path):
    with pytest.raises(RunError, match=r"nowhere.*--root"):
        find_runs(tmp_path / "nowhere")


@pytest.mark.parametrize("reference", ["latest", NEW, NEW[:12], "k3f9", "cifar-k3f9"])
def test_a_run_is_named_by_its_id_either_end_of_it_or_latest(root, make_run, reference):
    make_run(f"manual/{OLD}")
    new = make_run(f"manual/{NEW}")
    assert resolve_run(reference, root) == new


def test_a_run_is_named_by_its_path_whatever_the_root_is(make_run, tmp_path):
    run = make_run(f"manual/{OLD}")
    assert resolve_run(str(run), tmp_path / "elsewhere") == run


def test_an_ambiguous_name_lists_the_candidates(root, make_run):
    runs = [make_run(f"manual/{OLD}"), make_run(f"manual/{NEW}")]
    with pytest.raises(RunError, match=rf"fits 2 runs.*{OLD}.*{NEW}") as caught:
        resolve_run("2026", root)
    assert all(str(run) in str(caught.value) for run in runs)


def test_an_id_that_two_sweeps_share_is_ambiguous(root, make_run):
    make_run(f"sweeps/a/{OLD}"), make_run(f"sweeps/b/{OLD}")
    with pytest.raises(RunError, match=r"sweeps/a.*sweeps/b"):
        resolve_run(OLD, root)


def test_a_misspelt_id_names_the_nearest(root, make_run):
    make_run(f"manual/{OLD}")
    with pytest.raises(RunError, match=f"called .*Did you mean '{OLD}'"):
        resolve_run(OLD.replace("mlp", "mpl"), root)


@pytest.mark.parametrize("reference", ["", "\x1b[31m", "zzz"])
def test_what_fits_no_run_is_refused_with_its_name_escaped(root, make_run, reference):
    make_run(f"manual/{OLD}")
    with pytest.raises(RunError, match="No run under") as caught:
        resolve_run(reference, root)
    assert not re.search(r"\x1b", str(caught.value))


def test_latest_of_no_runs_says_how_to_make_one(root):
    root.mkdir()
    with pytest.raises(RunError, match="rootflow train"):
        resolve_run("latest", root)


def test_a_path_without_run_json_is_not_a_run(root, make_run, tmp_path: Path):
    make_run(f"manual/{OLD}")
    with pytest.raises(RunError, match="No run"):
        resolve_run(str(tmp_path), root)
