"""An experiment in Python; the command line overrules it: `python python_door.py trainer.max_epochs=5`."""

import sys

import rootflow
from rootflow.models.mlp import MLP
from rootflow.tracking.settings import TrackingSettings, WandbSettings
from rootflow.train.trainer import Trainer

experiment = rootflow.Experiment(
    model=rootflow.config_class(MLP)(hidden=(64,)),
    dataset="digits",
    trainer=Trainer(max_epochs=2),
    tracking=TrackingSettings(wandb=WandbSettings(mode="disabled")),
)

if __name__ == "__main__":
    result = rootflow.run(experiment, overrides=sys.argv[1:])
    print(result.folder, result.test)
