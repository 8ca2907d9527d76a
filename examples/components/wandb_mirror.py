"""A run on W&B that can't stop the training, asks nobody for a key, and sends no secret of the config."""

from pathlib import Path

from rootflow.tracking.settings import WandbSettings
from rootflow.tracking.wandb_mirror import WandbMirror

config = {"lr": 0.1, "api_key": "secret"}
folder = Path("my-run")
with WandbMirror.open(WandbSettings(), folder, name="mine", config=config, say=print) as mirror:
    for step in range(1, 4):
        mirror.log({"step": step, "epoch": 1, "train/loss": 1 / step})
print(f"{mirror.record['mode']}, {len([*folder.rglob('*.wandb')])} file to sync")
