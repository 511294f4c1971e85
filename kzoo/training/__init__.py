"""Training: recipes, from a name and data to a run, and the compiled network with its callback."""
