"""A small network with an auxiliary classifier, as GoogLeNet has two."""

from keras import layers

from kzoo.layers import classifier


def network(x, *, num_classes, aux=False):
    """x: (B, H, W, 3). Returns logits, with `aux` a list of two, the main ones first."""
    x = layers.Conv2D(4, 3, strides=2, activation="relu", name="conv1")(x)
    side = layers.GlobalAveragePooling2D(name="aux1_pool")(x)
    x = layers.Conv2D(8, 3, strides=2, activation="relu", name="conv2")(x)
    main = classifier(layers.GlobalAveragePooling2D(name="avg_pool")(x), num_classes)
    return [main, layers.Dense(num_classes, name="aux1")(side)] if aux else main
