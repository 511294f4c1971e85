"""Training: recipes, and the training loop with its callback, which writes the run folder."""
