"""Recording a run: the run folder, which is the truth, and W&B and the console, which mirror it."""
