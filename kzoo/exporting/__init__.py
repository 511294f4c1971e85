"""Export: the whole classifier in one folder (graph, formats), its evidence (golden, card), its proof (check)."""
