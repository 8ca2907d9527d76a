"""How long do the commands take that should answer at once, and how long until a run's first step?

Each is started several times; the least is shown, since everything else is the machine's noise.
`import torch` by itself is the reference for the run.

    python benchmarks/start_time.py
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMMANDS = {
    "rootflow --help": ["--help"],
    "rootflow list model": ["list", "model"],
    "rootflow train --cfg job": ["train", "--cfg", "job"],
    "rootflow runs list": ["runs", "list"],
    "TAB after model=resnet model.": ["__complete", "bash", "rootflow train model=resnet model."],
    "rootflow check": ["check"],
    "rootflow check of 200 jobs": ["check", "-m", "seed=range(0,20)", "trainer.max_steps=range(1,11)"],
}


def least(arguments: list[str], folder: str, times: int = 5) -> tuple[float, float]:
    """Return the least wall and CPU time of a command, in milliseconds."""
    measured = []
    for _ in range(times):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        started = time.perf_counter()
        subprocess.run(arguments, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        wall = time.perf_counter() - started
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        measured.append((wall * 1e3, cpu * 1e3))
    return min(wall for wall, _ in measured), min(cpu for _, cpu in measured)


def main() -> None:
    """Print wall and CPU time of each command, then where the time of a run goes."""
    with tempfile.TemporaryDirectory() as folder:
        print(f"{'command':30} {'wall':>8} {'cpu':>8}")
        for name, arguments in COMMANDS.items():
            wall, cpu = least([sys.executable, "-m", "rootflow", *arguments], folder)
            print(f"{name:30} {wall:5.0f} ms {cpu:5.0f} ms", flush=True)
        wall, cpu = least([sys.executable, "-c", "import torch"], folder)
        print(f"{'(import torch)':30} {wall:5.0f} ms {cpu:5.0f} ms")
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "rootflow", "train"], cwd=folder, check=True, stdout=subprocess.DEVNULL
        )
        wall = time.perf_counter() - started
        (record,) = Path(folder).glob("runs/manual/*/run.json")
        timing = json.loads(record.read_text())["timing"]
        print(f"{'rootflow train':30} {wall:5.1f} s  {timing}")


if __name__ == "__main__":
    main()
