"""Data sets, their splits, facts about them, and loaders that any training loop can use."""
