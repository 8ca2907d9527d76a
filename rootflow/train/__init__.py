"""The training loop, and what a run of it is made of."""
