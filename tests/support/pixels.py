"""A tiny fully convolutional network: a class for each pixel."""

from keras import layers


def network(x, *, num_classes, margin=0):
    """(B, H, W, C) to (B, H - 2 margin, W - 2 margin, num_classes): without padding an output is smaller."""
    x = layers.Conv2D(16, 5, padding="same", activation="relu", name="conv1")(x)
    if margin:
        x = layers.Cropping2D(margin, name="crop")(x)
    return layers.Conv2D(num_classes, 1, dtype="float32", name="predictions")(x)
