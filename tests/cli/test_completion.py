"""TAB after `rootflow`: what the hidden verb answers, and the scripts in real shells."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rootflow.cli import VERBS
from rootflow.cli.completion import SCRIPTS, split_line
from tests.cli.conftest import Rootflow
from tests.cli.test_start import HEAVY, imported_by

Complete = Callable[[str], list[str]]

ID = "20250101-120000-mlp-abcd"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with a run, a sweep, names with spaces, and a program `rootflow` in bin/."""
    for path, text in {
        f"runs/sweeps/one/{ID}/run.json": "{}",
        "sweeps/widths.yaml": "# @package _global_\n# How wide?\n",
        "conf/model/my model.yaml": "name: resnet\n",
        "more/model/mine.yaml": "name: resnet\n",
        "a file.yaml": "",
        "bin/rootflow": f'#!/bin/sh\nexec "{sys.executable}" -m rootflow "$@"\n',
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    (tmp_path / "bin" / "rootflow").chmod(0o755)
    return tmp_path


@pytest.fixture
def complete(project: Path, rootflow: Rootflow) -> Complete:
    """Return the candidates for the end of a line, without what they are."""

    def call(line: str) -> list[str]:
        done = rootflow("__complete", "zsh", line)
        assert (done.returncode, done.stderr) == (0, "")
        return [answer.partition("\t")[0] for answer in done.stdout.splitlines()]

    return call


def in_shell(project: Path, *command: str, typed: str = "") -> str:
    """Run a shell there, with the program on its path; return what it printed."""
    environ = {**os.environ, "PATH": f"{project / 'bin'}:{os.environ['PATH']}", "TERM": "dumb", "PS1": ""}
    done = subprocess.run(
        [*command],
        cwd=project,
        env={**environ, "HOME": str(project), "PYTHONPATH": str(Path(__file__).parents[2])},
        input=typed,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.stdout


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("rootflow tr", ["train"]),
        ("rootflow __", []),
        ("rootflow --v", ["--version"]),
        ("A=1 B= rootflow tr", ["train"]),
        ("rootflow nosuch ", []),
        ("rootflow train model=r", ["model=resnet"]),
        ("rootflow train model=resnet model.d", ["model.depth=", "model.dropout="]),
        ("rootflow train -m optimizer=adamw,sg", ["optimizer=adamw,sgd"]),
        ("rootflow train name='a b' model.h", ["model.hidden="]),
        ("rootflow train 'model=my", ["model=my model"]),
        ("rootflow train --mu", ["--multirun"]),
        ("rootflow train -m --mu", []),
        ("rootflow train --cfg ", ["job", "hydra", "all"]),
        ("rootflow train --cfg=h", ["--cfg=hydra"]),
        ("rootflow train --info con", ["config"]),
        ("rootflow train --info model=r", ["model=resnet"]),
        ("rootflow train --info model=resnet model.de", ["model.depth="]),
        ("rootflow train --package model.h", ["model.hidden"]),
        ("rootflow train --config-name r", ["rootflow"]),
        ("rootflow train --config ", [":files"]),
        ("rootflow train --config=a", [":files"]),
        ("rootflow train --config-dir ", [":folders"]),
        ("rootflow train dataset=csv dataset.path=", [":files"]),
        ("rootflow train --config-dir more model=mi", ["model=mine"]),
        ("rootflow train --config-dir=more model=mine model.de", ["model.depth="]),
        ("rootflow train -cd more model=mi", ["model=mine"]),
        ("rootflow check w", ["widths"]),
        ("rootflow check model=r", ["model=resnet"]),
        ("rootflow config ex", ["explain", "experiment="]),
        ("rootflow config explain model.h", ["model.hidden"]),
        ("rootflow config explain model.hidden model=r", ["model=resnet"]),
        ("rootflow config explain model.hidden lr=1 model.hi", ["model.hidden="]),
        ("rootflow list mo", ["model"]),
        ("rootflow list model ", ["convnet", "mlp", "my model", "resnet"]),
        ("rootflow list model mlp ", ["-h", "--help", "--json", "-cd", "--config-dir"]),
        ("rootflow runs ", ["list", "show"]),
        ("rootflow runs show ", ["latest", ID]),
        ("rootflow runs show --root runs/sweeps 2", [ID]),
        ("rootflow runs list --a", ["--all"]),
        ("rootflow completion ", ["bash", "zsh", "fish"]),
        ("rootflow new mo", ["model"]),
        ("rootflow new model mo", []),
    ],
)
def test_the_end_of_a_line_is_completed(complete: Complete, line: str, expected: list[str]) -> None:
    assert complete(line) == expected


@pytest.mark.parametrize("verb", VERBS)
def test_the_flags_of_every_verb_are_known(complete: Complete, verb: str) -> None:
    assert complete(f"rootflow {verb} --he") == ["--help"]


def test_all_verbs_are_offered_with_what_they_do(rootflow: Rootflow) -> None:
    printed = rootflow("__complete", "fish", "rootflow ").stdout
    assert printed == "".join(f"{verb}\t{about}\n" for verb, about in VERBS.items())


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a b", (["a", "b"], "")),
        ("a ", (["a", ""], "")),
        ("", ([""], "")),
        ("a 'b c' d", (["a", "b c", "d"], "")),
        ("a 'b c", (["a", "b c"], "'")),
        ("a \"it's", (["a", "it's"], '"')),
        ("a b\\ c", (["a", "b c"], "")),
        ("a ''", (["a", ""], "")),
    ],
)
def test_a_line_is_split_as_a_shell_does_also_within_quotes(
    line: str, expected: tuple[list[str], str]
) -> None:
    assert split_line(line) == expected


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("conf/config.yaml", "defaults: ["),
        ("conf/model/mlp.yaml", "- a list"),
        ("conf/model/mlp.yaml", "name: [\n"),
        ("models/net.py", "def (:\n"),
        ("models/net.py", '@register("model", "mlp")\nclass MLP(1 +): ...\n'),
    ],
)
def test_a_broken_project_is_silent_and_hides_nothing_else(
    project: Path, complete: Complete, path: str, text: str
) -> None:
    (project / path).parent.mkdir(exist_ok=True)
    (project / path).write_text(text)
    complete("rootflow train model.")  # whose stderr and exit code the fixture looks at
    assert complete("rootflow train mod") == ["model=", "model."]
    assert complete("rootflow train model=r") == ["model=resnet"]
    assert complete("rootflow train optimizer.l") == ["optimizer.lr="]


@pytest.mark.parametrize("line", ["rootflow ", "rootflow train --", "rootflow runs show "])
def test_what_needs_no_config_reads_no_yaml(project: Path, line: str) -> None:
    loaded = imported_by(["__complete", "bash", line, ""], project)
    assert not loaded & {*HEAVY, "hydra", "omegaconf", "yaml"}


@pytest.mark.parametrize("line", ["rootflow train ", "rootflow train model=", "rootflow train scheduler."])
def test_a_tab_imports_nothing_heavy(project: Path, line: str) -> None:
    loaded = imported_by(["__complete", "bash", line, ""], project)
    assert "yaml" in loaded
    assert not loaded & {*HEAVY, "hydra", "omegaconf"}


@pytest.mark.parametrize("shell", SCRIPTS)
def test_the_scripts_are_valid(project: Path, rootflow: Rootflow, shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    script = project / "script"
    script.write_text(rootflow("completion", shell).stdout)
    subprocess.run([shell, "-n", str(script)], check=True, timeout=60)


def test_help_says_how_to_install_in_each_shell_and_only_these_are_taken(rootflow: Rootflow) -> None:
    printed = rootflow("completion", "--help").stdout
    assert 'eval "$(rootflow completion bash)"' in printed
    assert 'eval "$(rootflow completion zsh)"' in printed
    assert "rootflow completion fish >" in printed
    refused = rootflow("completion", "tcsh")
    assert refused.returncode == 2
    assert "tcsh" in refused.stderr


LINES = [
    ("rootflow train mode", "rootflow train model"),
    ("rootflow train model=re", "rootflow train model=resnet "),
    ("rootflow train +sw", "rootflow train +sweeps="),
    ("rootflow train seed=1 model.hi", "rootflow train seed=1 model.hidden="),
    ("rootflow train name='a b' trainer.max_st", "rootflow train name='a b' trainer.max_steps="),
    ("rootflow train model=my", "rootflow train model=my\\ model "),
    ("rootflow train model=my\\ mo", "rootflow train model=my\\ model "),
    ("rootflow train -m optimizer=adamw,sg", "rootflow train -m optimizer=adamw,sgd "),
    ("rootflow train --config a", "rootflow train --config a\\ file.yaml "),
    ("rootflow train --config-dir mo", "rootflow train --config-dir more/"),
    ("rootflow train dataset=csv dataset.path=a", "rootflow train dataset=csv dataset.path=a\\ file.yaml "),
    ("bin/rootflow runs show 2", f"bin/rootflow runs show {ID} "),
    ("~/bin/rootflow li", "~/bin/rootflow list "),
    ("A=1 rootflow li", "A=1 rootflow list "),
]
"""Each is typed into a real shell, TAB is pressed, and the line is printed instead of run."""


def is_missing(shell: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(shell) is None, reason=f"{shell} is not installed")


@is_missing("bash")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        *LINES,
        ('rootflow train "model=re', 'rootflow train "model=resnet"'),
        ("rootflow train 'model=my m", "rootflow train 'model=my model'"),
    ],
)
def test_a_line_goes_on_in_bash(project: Path, line: str, expected: str) -> None:
    setup = project / "setup"
    setup.write_text(
        'eval "$(rootflow completion bash)"\n'
        'show() { printf "<<%s>>" "$READLINE_LINE"; }\n'
        "bind -x '\"\\C-t\": show'\n"
    )
    keys = f"{line}\t\x14\x15exit\n"  # TAB, the key of `show`, and the line is erased
    printed = in_shell(project, "bash", "--noprofile", "--rcfile", str(setup), "-i", typed=keys)
    assert printed == f"<<{expected}>>"


@is_missing("bash")
def test_bash_completes_other_commands_as_before(project: Path) -> None:
    script = (
        'old=$COMP_WORDBREAKS; eval "$(rootflow completion bash)"; [[ $old == "$COMP_WORDBREAKS" ]]; complete'
    )
    assert in_shell(project, "bash", "-ec", script) == "complete -o nospace -F _rootflow rootflow\n"


ZSH = r"""
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell "$2"'
show() { zle complete-word; print -r -- "<<$BUFFER>>" }
zle -N show; bindkey "^I" show; PS1=; print rea""dy'
zpty -r shell printed $'*ready\r\n*'
zpty -w -n shell "$1"$'\t'
zpty -r shell printed '*<<*>>*'
zpty -d shell
print -rn -- ${${printed##*<<}%%>>*}
"""


@is_missing("zsh")
@pytest.mark.parametrize(
    ("line", "expected"), [*LINES, ('rootflow train "model=re', 'rootflow train "model=resnet" ')]
)
def test_a_line_goes_on_in_zsh(project: Path, line: str, expected: str) -> None:
    setup = 'eval "$(rootflow completion zsh)"'
    assert in_shell(project, "zsh", "-f", "-c", ZSH, "zsh", line, setup) == expected


@is_missing("zsh")
def test_zsh_finds_the_script_in_a_folder_of_functions(project: Path, rootflow: Rootflow) -> None:
    (project / "functions").mkdir()
    (project / "functions" / "_rootflow").write_text(rootflow("completion", "zsh").stdout)
    setup = "fpath=(functions $fpath); autoload -Uz compinit; compinit -u -D"
    printed = in_shell(project, "zsh", "-f", "-c", ZSH, "zsh", "rootflow train model=re", setup)
    assert printed == "rootflow train model=resnet "


@is_missing("fish")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("rootflow train model=re", ["model=resnet"]),
        ("A=1 rootflow train model=my\\ mo", ["model=my model"]),
        ("rootflow train name='a b' trainer.max_st", ["trainer.max_steps="]),
        ("rootflow train --config a", ["a file.yaml"]),
        ("rootflow train --config-dir=mo", ["--config-dir=more/"]),
        ("rootflow train dataset=csv dataset.path=a", ["dataset.path=a file.yaml"]),
        ("bin/rootflow runs show 2", [ID]),
        ("~/bin/rootflow li", ["list"]),
    ],
)
def test_a_line_goes_on_in_fish(project: Path, line: str, expected: list[str]) -> None:
    script = "rootflow completion fish | source; complete -C $argv[1]"
    printed = in_shell(project, "fish", "--no-config", "-c", script, line)
    assert [answer.partition("\t")[0] for answer in printed.splitlines()] == expected
