"""The lecture's first networks, for 28x28 grey digits."""

from keras import layers

from kzoo.layers import classifier


def mnist_softmax(x, *, num_classes):
    """Softmax regression: one layer, logits = x W + b. x: (B, H, W, C). Features: the flat pixels."""
    return classifier(layers.Flatten(name="flatten")(x), num_classes)


def mnist_mlp(x, *, num_classes, units, dropout):
    """One hidden layer of ReLUs, initialised after He et al. 2015 (arXiv:1502.01852, equation 10), with dropout."""
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(units, activation="relu", kernel_initializer="he_normal", name="fc1")(x)
    x = layers.Dropout(dropout, name="drop1")(x)
    return classifier(x, num_classes)


def mnist_cnn(x, *, num_classes, filters, units, dropout=0.0):
    """Two 5x5 convolutions with pooling, then a wide dense layer. x: (B, 28, 28, 1): 28-14-7, 3,136 -> units."""
    for i, f in enumerate(filters, 1):
        x = layers.Conv2D(f, 5, padding="same", activation="relu", kernel_initializer="he_normal", name=f"conv{i}")(x)
        x = layers.MaxPooling2D(2, name=f"pool{i}")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(units, activation="relu", kernel_initializer="he_normal", name="fc1")(x)
    if dropout:
        x = layers.Dropout(dropout, name="drop1")(x)
    return classifier(x, num_classes)


def mnist_shift(x, *, num_classes, filters):
    """Strided convolutions and overlapping pools that forgive a shift of a few pixels.

    x: (B, 28, 28, 1), zero-padded to 40x40, so that a shifted digit keeps its surroundings; then for each of
    filters: conv 3x3 stride 2 valid, ReLU, max pool 2x2 stride 1, giving 19-18, 8-7, 3-2; 2*2*128 = 512 -> logits.
    The pools at stride 1 are what makes it insensitive: each output is the maximum over neighbouring positions.
    """
    x = layers.ZeroPadding2D(6, name="pad")(x)
    for i, f in enumerate(filters, 1):
        x = layers.Conv2D(f, 3, strides=2, activation="relu", kernel_initializer="he_normal", name=f"conv{i}")(x)
        x = layers.MaxPooling2D(2, strides=1, name=f"pool{i}")(x)
    return classifier(layers.Flatten(name="flatten")(x), num_classes)
