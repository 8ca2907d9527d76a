"""When to stop waiting for a better evaluation, in a loop of one's own."""

from rootflow.train.stopping import EarlyStopping

losses = [0.9, 0.5, 0.6, 0.55, 0.4]
stopping = EarlyStopping(higher_is_better=False, patience=2)
for epoch, loss in enumerate(losses, start=1):
    if stopping.update(loss):
        best_epoch = epoch  # here the weights would be kept
    if stopping.should_stop:
        break
print(f"stopped after epoch {epoch}; the best is epoch {best_epoch} with {stopping.best}")
