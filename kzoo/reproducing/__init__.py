"""Train the shipped weights again, and compare the results with their cards."""
