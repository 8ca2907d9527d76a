"""Optimizers over a model's parameters, and numbers that change while it trains."""
