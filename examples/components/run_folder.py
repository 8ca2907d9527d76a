"""A folder that tells what was run, on which code, what came out, and how it ended, also if it is killed."""

from pathlib import Path

from rootflow.runs.record import read_run
from rootflow.tracking.run_folder import RunFolder

config = {"lr": 0.1}
with RunFolder.create(Path("runs"), "demo", config=config, config_yaml="lr: 0.1\n") as folder:
    for step in range(1, 4):
        folder.log({"step": step, "epoch": 1, "train/loss": 1 / step})
    folder.update(last={"train/loss": 1 / step})
record = read_run(folder.path)
num_rows = len(folder.metrics_jsonl.read_text().splitlines())
print(f"{record.status}, {num_rows} rows, last {record.summary['last']}")
