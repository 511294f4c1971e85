"""Shipped weights and the papers' figures, trained again from start to card."""
