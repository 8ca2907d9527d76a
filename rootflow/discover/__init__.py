"""How `auto` becomes a value, and the record of why.

What is found by running updates: `learning_rate.py`, `batch_size.py`, `workers.py`, over `trials.py`, which
leaves no trace; `search.py` says when, and asks `cache.py`. By rule: `threads.py`; device and number format
are facts of the machine (`train/precision.py`). All go through `Pins`.
"""
