"""`rootflow completion`: what makes TAB work after `rootflow` in bash, zsh and fish.

A script hands the line up to the cursor to `rootflow __complete`, which prints one candidate a line: for
bash the text to be inserted, for the others the word, a tab and what it is. `:files` and `:folders` ask
the shell for its own. Imports stay in functions: a TAB waits for them.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import itertools
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rootflow.cli import VERBS

if TYPE_CHECKING:
    from rootflow.config.complete import Candidates, SoFar

HELP = """install it for good, with one line:
  bash   echo 'eval "$(rootflow completion bash)"' >> ~/.bashrc
  zsh    echo 'eval "$(rootflow completion zsh)"' >> ~/.zshrc
  fish   rootflow completion fish > ~/.config/fish/completions/rootflow.fish"""

# $2 is the part that bash will replace: what follows the last `=` or `:`, by $COMP_WORDBREAKS
_BASH = r"""
_rootflow() {
  local answer program
  program=$(type -P -- "$1") || program=rootflow
  COMPREPLY=()
  while IFS= read -r answer; do
    case $answer in
      :files) compopt -o default +o nospace ;;
      :folders) compopt -o dirnames +o nospace ;;
      *) COMPREPLY+=("$answer") ;;
    esac
  done < <("$program" __complete bash "${COMP_LINE:0:COMP_POINT}" "$2")
} 2>/dev/null
complete -o nospace -F _rootflow rootflow
"""

_ZSH = r"""#compdef rootflow
_rootflow() {
  local answer text about program=${(Q)words[1]} line="${(j: :)words[1,CURRENT-1]} $QIPREFIX$PREFIX"
  local -a whole begun
  whence -p -- $program >/dev/null || program=rootflow
  for answer in ${(f)"$($program __complete zsh "$line" 2>/dev/null)"}; do
    text=${answer%%$'\t'*} about=${answer#*$'\t'}
    case $text in
      :files) compset -P '*='; _files; return ;;
      :folders) compset -P '*='; _files -/; return ;;
      *[=.]) begun+=("${text//:/\\:}${about:+:$about}") ;;
      *) whole+=("${text//:/\\:}${about:+:$about}") ;;
    esac
  done
  _describe -t rootflow rootflow whole -- begun -S ''
}
if [[ $funcstack[1] == _rootflow ]]; then
  _rootflow "$@"
else
  (( $+functions[compdef] )) || { autoload -Uz compinit && compinit; }
  compdef _rootflow rootflow
fi
"""

_FISH = r"""
function __rootflow_complete
    set -l program (commandline -opc)[1]
    command -q -- $program; or set program rootflow
    set -l typed (commandline -ct)
    set -l start (string match -r '^.*=' -- $typed; or echo '')
    for answer in ($program __complete fish (commandline -cp | string collect) 2>/dev/null)
        switch $answer
            case ':files*'
                printf '%s\n' $start(__fish_complete_path (string replace -r '^.*=' '' -- $typed))
            case ':folders*'
                printf '%s\n' $start(__fish_complete_directories (string replace -r '^.*=' '' -- $typed) '')
            case '*'
                printf '%s\n' $answer
        end
    end
end
complete -c rootflow -f -a '(__rootflow_complete)'
"""

SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def parser() -> argparse.ArgumentParser:
    """Return the parser of the verb."""
    made = argparse.ArgumentParser(
        "rootflow completion",
        description="Print the script that completes verbs, flags, groups, options, keys and values.",
        epilog=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("shell", choices=SCRIPTS, help="the shell to print it for")
    return made


def run(argv: list[str]) -> int:
    """Print the script of a shell."""
    print(SCRIPTS[parser().parse_args(argv).shell].strip())
    return 0


def complete(argv: list[str]) -> int:
    """Print the candidates for the word that a line ends in: the hidden verb that the scripts call.

    Args:
        argv: the shell; the line up to the cursor; for bash, the part of it that is to be replaced.
    """
    gc.disable()  # collecting takes a fifth of the time, and the process is over at once
    shell, line, *replaced = argv
    words, quote = split_line(line)
    try:
        found = candidates(words)
    except Exception:  # noqa: BLE001  # what is broken in a project is told by its commands, not by a TAB
        found = {}
    for text, about in found.items():
        if shell == "bash":
            print(_for_bash(text, words[-1], *replaced, quote=quote))
        else:
            print(f"{text}\t{' '.join(about.split())}")
    gc.freeze()  # nor is anything collected at the end
    return 0


def split_line(line: str) -> tuple[list[str], str]:
    """Return the words of a line, the last of which may be empty, and the quote that is open at its end."""
    for quote in ("", "'", '"'):
        with contextlib.suppress(ValueError):  # raised for a quote that isn't closed
            *words, last = shlex.split(f"{line}\0{quote}")
            return [*words, last.removesuffix("\0")], quote
    return [""], ""


def candidates(words: Sequence[str]) -> Candidates:
    """Return what the last word of a command line can become, each with what it is.

    Args:
        words: without quotes; the first is the program, the last may be empty.

    Raises:
        Exception: any, where the project in this folder is broken.
    """
    _, *before, word = itertools.dropwhile(re.compile(r"\w+=").match, words)  # `SEED=1 rootflow ...`
    if not before:
        flags = dict.fromkeys(("--help", "--version") if word else (), "")
        return _starting(word, {**VERBS, **flags})
    verb, *arguments = before
    if verb not in VERBS:
        return {}
    line = _Line(verb, importlib.import_module(f"rootflow.cli.{verb}").parser())
    for argument in arguments:
        line.read(argument)
    return line.candidates(word)


def _for_bash(text: str, word: str, replaced: str = "", *, quote: str) -> str:
    """Return what is to stand in the place of ``replaced``, which ``word`` ends with."""
    if text.startswith(":"):
        return text
    plain = replaced if quote else split_line(replaced)[0][-1]
    rest = text[len(word) - len(plain) :]
    if quote:
        return rest
    # the script says `-o nospace`, because none is wanted after `=` and `.`
    return re.sub(r"([^\w@%+=:,./~-])", r"\\\1", rest) + " " * (not rest.endswith(("=", ".")))


class _Line:
    """The words after the verb, as its parser reads them."""

    def __init__(self, verb: str, parser: argparse.ArgumentParser) -> None:
        self.verb = verb
        self.parser = parser
        self.flag: argparse.Action | None = None
        """The flag whose value comes next."""
        self.given: dict[str, str] = {}
        """The values of the flags, by their names in the parser's namespace."""
        self.words: list[str] = []
        """What isn't a flag or its value."""

    def read(self, word: str) -> None:
        """Take one more word."""
        name, equals, value = word.partition("=")
        flags, positional = self.parser._option_string_actions, self._positional()
        flag, self.flag = self.flag, None
        if flag is not None and (flag.nargs != "?" or word in (flag.choices or ())):
            self.given[flag.dest] = word
        elif name in flags:
            self.given[flags[name].dest] = value
            self.flag = None if equals or flags[name].nargs == 0 else flags[name]
        elif isinstance(positional, argparse._SubParsersAction) and word in positional.choices:
            self.parser = positional.choices[word]
        else:
            self.words.append(word)

    def candidates(self, word: str) -> Candidates:
        """Return what the next word, of which the beginning is typed, may be."""
        name, equals, value = word.partition("=")
        flags, positional = self.parser._option_string_actions, self._positional()
        found = _starting(word, self._values(self.flag, word)) if self.flag else {}
        if self.flag and (found or self.flag.nargs != "?"):
            return found
        if equals and name in flags:
            found = self._values(flags[name], value)
            return _starting(word, {t if t[0] == ":" else f"{name}={t}": about for t, about in found.items()})
        if positional and not word.startswith("-"):
            return _starting(word, self._values(positional, word))
        new = {text: action for text, action in flags.items() if action.dest not in self.given}
        return _starting(word, {t: a.help or "" for t, a in new.items() if a.help != argparse.SUPPRESS})

    def _positional(self) -> argparse.Action | None:
        """Return the positional argument that the next word is."""
        taken = [action for action in self.parser._actions if not action.option_strings]
        is_open = bool(taken) and taken[-1].nargs in ("*", "+")
        position = min(len(self.words), len(taken) - 1) if is_open else len(self.words)
        return taken[position] if position < len(taken) else None

    def _values(self, action: argparse.Action, word: str) -> Candidates:
        """Return what a flag or a positional argument takes."""
        if action.choices is not None:
            return _plain(action.choices)
        if action.type is Path:
            return {":folders": ""}
        match action.dest:
            case "config" | "overrides_json":
                return {":files": ""}
            case "run" | "runs":
                return _runs(Path(self.given.get("root", "runs")))
            case "words" if not self.words:
                return _plain(importlib.import_module("rootflow.cli.new").KINDS)
        return self._from_config(action.dest, word)

    def _from_config(self, name: str, word: str) -> Candidates:
        from rootflow.config import complete

        so_far = self._so_far()
        match name:
            case "config_name":
                return complete.primaries(so_far)
            case "package":
                return complete.complete_key(word, so_far)
            case "group":
                return complete.groups(so_far)
            case "option":
                return complete.options(self.words[0], so_far)
            case "overrides" if self._is_explaining() and len(self.words) == 1:
                return complete.complete_key(word, so_far)
            case "overrides":
                return self._starts(so_far) | complete.complete_override(word, so_far)
        return {}

    def _starts(self, so_far: SoFar) -> Candidates:
        """Return what may stand in the place of an override."""
        from rootflow.config import complete

        if self.verb == "config" and not self.words:
            return {"explain": "what a key takes and who set it"}
        return complete.options("sweeps", so_far) if self.verb == "check" else {}

    def _is_explaining(self) -> bool:
        """Whether this is `config explain`, which has a key before the overrides."""
        return self.verb == "config" and self.words[:1] == ["explain"]

    def _so_far(self) -> SoFar:
        from rootflow.config.complete import SoFar
        from rootflow.registry import open_project

        open_project(Path.cwd())
        folder, config = self.given.get("config_dir"), self.given.get("config")
        return SoFar(
            self.words[2:] if self._is_explaining() else self.words,
            primary=self.given.get("config_name") or "config",
            extra=Path(folder).expanduser() if folder else None,
            config=Path(config).expanduser() if config else None,
        )


def _runs(root: Path) -> Candidates:
    from rootflow.runs.find import find_runs

    return _plain(["latest", *(run.name for run in reversed(find_runs(root.expanduser())))])


def _plain(names: Iterable[str]) -> Candidates:
    return dict.fromkeys(names, "")


def _starting(word: str, found: Candidates) -> Candidates:
    """Return the candidates that begin with ``word``, and those that the shell is to find."""
    return {text: about for text, about in found.items() if text.startswith((word, ":"))}
