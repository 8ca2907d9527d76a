from __future__ import annotations

from rootflow.registry import find_component
from rootflow.tracking.settings import TrackingSettings, WandbSettings


def test_the_settings_are_the_component_that_the_default_yaml_names():
    assert find_component("tracking", "tracking").load() is TrackingSettings


def test_two_settings_share_nothing_that_can_change():
    assert TrackingSettings() == TrackingSettings(root="runs", wandb=WandbSettings(mode="auto"))
    assert hash(WandbSettings())
