"""`rootflow resume`: go on with a run in its own folder, from its newest checkpoint."""

from __future__ import annotations

import argparse
from pathlib import Path

_ABOUT = """go on with a run in its own folder, from its newest checkpoint

  rootflow resume latest                         after a kill, a crash or Ctrl-C: as if it had never stopped
  rootflow resume RUN trainer.max_epochs=40      longer than it was
  rootflow resume RUN optimizer.lr=0.001 --allow optimizer.lr
"""


def run(argv: list[str]) -> int:
    """Run `rootflow resume ARGV` and return the exit code.

    Raises:
        RootflowError: there is no such run, it can't go on, or something may not be changed.
    """
    args = parser().parse_intermixed_args(argv)
    from rootflow.resuming import resume  # torch is imported here at the earliest

    result = resume(args.run, overrides=args.overrides, allow=args.allow, root=args.root)
    print(f"run: {result.folder}", flush=True)
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the parser of the verb."""
    made = argparse.ArgumentParser(
        prog="rootflow resume", description=_ABOUT, formatter_class=argparse.RawTextHelpFormatter
    )
    made.add_argument("run", help="folder, id, beginning or end of an id, or `latest`")
    made.add_argument("overrides", nargs="*", metavar="key=value", help="what is to be different")
    made.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="KEY",
        help="let this key, or group of keys, be different though it changes the training",
    )
    made.add_argument("--root", type=Path, default=Path("runs"), help="folder of runs (default: runs)")
    return made
