"""Export: a model as one folder (graph, formats), with golden images and a card, and the check that it still works."""
