"""Training: how, as data (recipes), and the loop that leaves a run folder (loop, callbacks)."""
