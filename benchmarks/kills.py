"""What does kill -9 cost a training? A storm of them, and what it broke.

Trainings that save after every update are killed at random instants (a seeded random) and resumed until they
are through. Of a kill counts whether it fell inside a save; whether a state whose save had returned was gone
(lost); whether a state was found damaged (corrupted). Of each training counts whether its last state and its
log are byte for byte those of one that was never killed.

None of n bounds the rate at 3/n (95 %). SIGKILL doesn't test what a power cut does.

    OMP_NUM_THREADS=1 python benchmarks/kills.py [--kills 200] [--seed 0]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    """Print the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tests.train.kill_storm import storm

    started_s = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        counts = storm(Path(folder), args.kills, args.seed)
    print(f"kills           {counts.kills}")
    print(f"inside a save   {counts.inside_a_save} ({counts.inside_a_save / counts.kills:.0%})")
    print(f"lost            {counts.lost}")
    print(f"corrupted       {counts.corrupted}")
    verdict = "yes" if counts.equal == counts.trainings else "no"
    print(f"equal           {verdict} ({counts.equal} of {counts.trainings} trainings)")
    print(f"time            {time.monotonic() - started_s:.0f} s")


if __name__ == "__main__":
    main()
