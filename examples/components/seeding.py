"""Every generator of the process: seeded at once, and put back to where it was."""

import random

import numpy as np
import torch

from rootflow.train.seeding import generator_states, seed_everything, set_generator_states

seed_everything(1)
states = generator_states()
drawn = [random.random(), np.random.rand(), torch.rand(1).item()]
set_generator_states(states)
print(f"drawn again: {drawn == [random.random(), np.random.rand(), torch.rand(1).item()]}")
