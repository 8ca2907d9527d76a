"""`python -m rootflow` is the `rootflow` command."""

from __future__ import annotations

import sys

from rootflow.cli import main

if __name__ == "__main__":
    sys.exit(main())
