"""Train the shipped weights again, and compare the results with their cards; train for figures, and draw them."""
