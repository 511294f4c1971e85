"""AlexNet (Krizhevsky, Sutskever, Hinton 2012, "ImageNet Classification with Deep Convolutional Neural Networks")."""

from keras import initializers, layers

from kzoo.layers import GroupedConv2D, LocalResponseNormalization, classifier


def normal():
    """Section 5: weights from a Gaussian of standard deviation 0.01."""
    return initializers.RandomNormal(stddev=0.01)


def conv(x, filters, size, *, name, groups=1, stride=1, padding="same", bias=0.0):
    layer = layers.Conv2D if groups == 1 else GroupedConv2D
    return layer(
        filters,
        size,
        strides=stride,
        padding=padding,
        groups=groups,
        activation="relu",
        kernel_initializer=normal(),
        bias_initializer=initializers.Constant(bias),
        name=name,
    )(x)


def alexnet(x, *, num_classes, dropout=0.5):
    """Five convolutions in two towers, three dense layers (section 3.5, Figure 2).

    x: (B, 227, 227, 3). The towers of the two GPUs are groups of 2 in conv2, conv4 and conv5; conv3 sees both.
    Returns logits (B, num_classes), or fc7's 4,096 features if num_classes is None.
    Biases start at 1 in conv2, conv4, conv5 and the hidden dense layers (section 5), "to provide the ReLUs with
    positive inputs".
    """
    x = conv(x, 96, 11, stride=4, padding="valid", name="conv1")
    x = LocalResponseNormalization(name="norm1")(x)
    x = layers.MaxPooling2D(3, 2, name="pool1")(x)
    x = conv(x, 256, 5, groups=2, bias=1.0, name="conv2")
    x = LocalResponseNormalization(name="norm2")(x)
    x = layers.MaxPooling2D(3, 2, name="pool2")(x)
    x = conv(x, 384, 3, name="conv3")
    x = conv(x, 384, 3, groups=2, bias=1.0, name="conv4")
    x = conv(x, 256, 3, groups=2, bias=1.0, name="conv5")
    x = layers.MaxPooling2D(3, 2, name="pool5")(x)
    x = layers.Flatten(name="flatten")(x)
    for name in ("6", "7"):
        x = layers.Dense(
            4096, activation="relu", kernel_initializer=normal(), bias_initializer="ones", name="fc" + name
        )(x)
        x = layers.Dropout(dropout, name="drop" + name)(x)
    return classifier(x, num_classes, kernel_initializer=normal())
