"""Measure a trained model (evaluation) and classify new images with it (prediction)."""
