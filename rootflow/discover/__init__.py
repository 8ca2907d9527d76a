"""How `auto` becomes a value, and the record of why.

The rules for batch size, length, learning rate and threads are here. Device and number format are facts
of the machine (`train/precision.py`), workers and residency of the loaders (`data/loaders.py`); all go
through `Pins`.
"""
