"""What a trained model is worth (evaluation) and what it says of new images (prediction)."""
