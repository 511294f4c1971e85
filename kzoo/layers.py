"""Layers that several families share, and the preprocessing that is part of every model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import KerasTensor, ops

from kzoo.errors import unknown

_register = keras.saving.register_keras_serializable(package="kzoo")


@_register
class Preprocess(keras.layers.Layer):
    """Scale pixels in 0..255 to what the network was trained on: y = x * scale + offset.

    It computes in float32 under every dtype policy: bfloat16 has 8 significant bits and would round the pixels.

    Args:
        channel_order: "rgb", or "bgr" to reverse the channels first.
        scale: A number, or one for each channel after the reversal.
        offset: A number, or one for each channel after the reversal.

    Input: (B, H, W, C), RGB or one channel, uint8 or float. Output: the same shape, float32.

    Example:
        >>> layer = Preprocess(scale=1 / 255, offset=0.0)
        >>> float(layer(ops.full((1, 2, 2, 3), 255))[0, 0, 0, 0])
        1.0
    """

    kernel_size = 1  # for kzoo.ledger: an output depends on its own position only

    def __init__(
        self,
        channel_order: str = "rgb",
        scale: float | tuple[float, ...] = 1.0,
        offset: float | tuple[float, ...] = 0.0,
        **kwargs: Any,
    ) -> None:
        kwargs["dtype"] = "float32"
        super().__init__(trainable=False, **{k: v for k, v in kwargs.items() if k != "trainable"})
        self.channel_order, self.scale, self.offset = channel_order, scale, offset

    def call(self, x):
        x = ops.cast(x, "float32")
        if self.channel_order == "bgr":
            x = ops.flip(x, axis=-1)
        return x * ops.cast(self.scale, "float32") + ops.cast(self.offset, "float32")

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "channel_order": self.channel_order,
            "scale": list(self.scale) if isinstance(self.scale, tuple) else self.scale,
            "offset": list(self.offset) if isinstance(self.offset, tuple) else self.offset,
        }


@_register
class LocalResponseNormalization(keras.layers.Layer):
    """Local response normalisation across channels.

    b_i = a_i / (k + alpha * sum_j a_j^2)^beta, the sum over the n channels around i: from i - n//2 to i + n//2, cut
    off at the ends. The sum is taken in float32, because k + alpha * a^2 rounds to k in 16 bits.

    Args:
        n: Channels in the sum.
        k: Added to the sum.
        alpha: Multiplies the sum, as printed. Caffe and PyTorch divide it by n: their alpha is n times this one.
        beta: The exponent.

    Input: (B, H, W, C), any float. Output: the same shape and type.

    Reference:
        Krizhevsky et al. 2012, section 3.3.
    """

    kernel_size = 1  # for kzoo.ledger: an output depends on its own position only

    def __init__(self, n: int = 5, k: float = 2.0, alpha: float = 0.0001, beta: float = 0.75, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.n, self.k, self.alpha, self.beta = n, k, alpha, beta

    def build(self, input_shape):
        # Summing neighbours is a product with a band matrix: one fast matmul, and its gradient is another.
        c = input_shape[-1]
        half = self.n // 2
        self.band = [[1.0 if abs(i - j) <= half else 0.0 for j in range(c)] for i in range(c)]

    def call(self, x):
        squares = ops.square(ops.cast(x, "float32"))
        total = ops.matmul(squares, ops.convert_to_tensor(self.band, dtype="float32"))
        scale = ops.power(self.k + self.alpha * total, -self.beta)
        return x * ops.cast(scale, x.dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "n": self.n, "k": self.k, "alpha": self.alpha, "beta": self.beta}


@_register
class BatchNormalization(keras.layers.BatchNormalization):
    """keras.layers.BatchNormalization, the same variables and numbers, by TensorFlow's fused kernel where there is one.

    On a CPU Keras' own takes three to four times as long: a pass over the pictures for each of the mean, the variance,
    the difference, the product and the sum. Fused: (B, H, W, C) of float32, bfloat16 or float16 on the TensorFlow
    backend, normalised over the last axis; statistics, gamma and beta stay float32. Anything else (other backends,
    axes and ranks, masks, renorm, synchronized) is computed by Keras' layer.

    Args:
        **kwargs: As for keras.layers.BatchNormalization.

    Example:
        >>> layer = BatchNormalization()
        >>> [v.path.split("/")[-1] for v in (layer.build((None, 4, 4, 2)), layer)[1].weights]
        ['gamma', 'beta', 'moving_mean', 'moving_variance']
    """

    def call(self, inputs, training=None, mask=None):
        fused = (
            keras.backend.backend() == "tensorflow"
            and len(inputs.shape) == 4
            and self.axis in (-1, 3)
            and keras.backend.standardize_dtype(inputs.dtype) in ("float32", "bfloat16", "float16")
            and mask is None
            and not (getattr(self, "renorm", False) or self.synchronized)  # Keras before 3.14 has no renorm
        )
        if not fused:
            return super().call(inputs, training=training, mask=mask)
        import tensorflow as tf

        channels = inputs.shape[-1]

        # Variables are float32, but for a policy such as "bfloat16", which stores them in 16 bits.
        def value(v, default):
            return tf.fill([channels], default) if v is None else ops.cast(v, "float32")

        gamma, beta = value(self.gamma, 1.0), value(self.beta, 0.0)
        mean, variance = value(self.moving_mean, 0.0), value(self.moving_variance, 1.0)
        train = bool(training and self.trainable)
        y, batch_mean, batch_variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=gamma,
            offset=beta,
            epsilon=self.epsilon,
            is_training=train,
            mean=tf.zeros([0]) if train else mean,
            variance=tf.zeros([0]) if train else variance,
        )
        if train:
            # The kernel gives the variance of a sample, sum / (n - 1); Keras keeps that of the batch, sum / n.
            n = tf.cast(tf.reduce_prod(tf.shape(inputs)[:3]), "float32")
            batch_variance *= (n - 1) / n
            keep = self.momentum
            self.moving_mean.assign(mean * keep + batch_mean * (1 - keep))
            self.moving_variance.assign(variance * keep + batch_variance * (1 - keep))
        return ops.cast(y, self.compute_dtype)


@_register
class GroupedConv2D(keras.layers.Conv2D):
    """A convolution whose input and output channels are divided into `groups` without connections between them.

    Same variables as keras.layers.Conv2D with groups (kernel: (kh, kw, C_in / groups, filters)), computed as one
    convolution for each group: TensorFlow on a CPU has no gradient for grouped convolutions, and Keras works around
    that by compiling the layer with XLA, which is slow there.

    Args:
        *args: As for keras.layers.Conv2D.
        **kwargs: As for keras.layers.Conv2D.
    """

    def call(self, x):
        def convolve(x, w):
            return ops.conv(
                x,
                w,
                strides=self.strides,
                padding=self.padding,
                data_format="channels_last",  # else what the global setting says when it is called
                dilation_rate=self.dilation_rate,
            )

        xs = ops.split(x, self.groups, axis=-1)
        ws = ops.split(ops.convert_to_tensor(self.kernel), self.groups, axis=-1)
        y = ops.concatenate([convolve(x, w) for x, w in zip(xs, ws, strict=True)], axis=-1)
        if self.use_bias:
            y = y + self.bias
        return self.activation(y)


@_register
class LocallyConnected2D(keras.layers.Layer):
    """A convolution without shared weights: each output position has a kernel and a bias of its own.

    It has the variables of Keras 2's layer of this name: kernel (rows * columns, kh * kw * C, filters) and bias (rows,
    columns, filters). It is computed as one product for each position, on slices of the input: kh + kw of them.

    Args:
        filters: Channels of the output.
        kernel_size: Height and width of the kernels, or one number for both.
        strides: Likewise.
        activation: As for keras.layers.Conv2D.
        use_bias: Whether there is a bias.
        kernel_initializer: As for keras.layers.Conv2D. It draws all kernels as one of the shape (kh * kw * C, rows *
            columns * filters), so that the fan-in is that of a unit.
        bias_initializer: As for keras.layers.Conv2D.
        **kwargs: For keras.layers.Layer.

    Input: (B, H, W, C) of a fixed size. Output: (B, rows, columns, filters), without padding.

    Example:
        >>> layer = LocallyConnected2D(4, 3)
        >>> tuple(layer(ops.ones((1, 7, 6, 2))).shape), layer.count_params()
        ((1, 5, 4, 4), 1520)

    Reference:
        Taigman et al. 2014, section 3.2.
    """

    padding = "valid"  # for kzoo.ledger, with kernel_size and strides

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, int],
        strides: int | tuple[int, int] = 1,
        *,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "he_normal",
        bias_initializer: Any = "zeros",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.filters, self.use_bias = filters, use_bias
        self.kernel_size = (kernel_size,) * 2 if isinstance(kernel_size, int) else tuple(kernel_size)
        self.strides = (strides,) * 2 if isinstance(strides, int) else tuple(strides)
        self.activation = keras.activations.get(activation)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)

    def build(self, input_shape):
        _, rows, columns, filters = self.compute_output_shape(input_shape)
        if rows is None or columns is None:
            raise ValueError(f"The height and width in front of {self.name} should be defined; got {input_shape}.")
        positions, fan_in = rows * columns, math.prod(self.kernel_size) * input_shape[-1]

        def drawn(shape, dtype=None):
            values = self.kernel_initializer((fan_in, positions * filters), dtype=dtype)
            return ops.transpose(ops.reshape(values, (fan_in, positions, filters)), (1, 0, 2))

        self.kernel = self.add_weight(shape=(positions, fan_in, filters), initializer=drawn, name="kernel")
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(shape=(rows, columns, filters), initializer=self.bias_initializer, name="bias")

    def call(self, x):
        _, rows, columns, filters = self.compute_output_shape(x.shape)
        (kh, kw), (down, right), channels = self.kernel_size, self.strides, x.shape[-1]
        # (B, rows, W, kh, C), then (B, rows, columns, kh, kw, C): what each position sees.
        x = ops.stack([x[:, i : i + down * (rows - 1) + 1 : down] for i in range(kh)], axis=3)
        x = ops.stack([x[:, :, j : j + right * (columns - 1) + 1 : right] for j in range(kw)], axis=4)
        x = ops.reshape(x, (-1, rows * columns, kh * kw * channels))
        y = ops.reshape(ops.einsum("bpk,pkf->bpf", x, self.kernel), (-1, rows, columns, filters))
        return self.activation(y if self.bias is None else y + self.bias)

    def compute_output_shape(self, input_shape):
        b, *sides, _ = input_shape
        sizes = zip(sides, self.kernel_size, self.strides, strict=True)
        rows, columns = (n if n is None else (n - k) // s + 1 for n, k, s in sizes)
        if min(rows or 1, columns or 1) < 1 or 0 in (rows, columns):
            raise ValueError(f"The output size of {self.name} would be empty for the input {input_shape}.")
        return (b, rows, columns, self.filters)

    def multiply_adds(self, input_shape: tuple, output_shape: tuple) -> int:
        """Count for `kzoo.ledger`: each number of each kernel, once."""
        return math.prod(output_shape[1:]) * math.prod(self.kernel_size) * input_shape[-1]

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
        }


@_register
class Maxout(keras.layers.Layer):
    """The largest of every `pieces` neighbouring channels.

    Args:
        pieces: How many affine functions of the layer in front make one unit.
        **kwargs: For keras.layers.Layer.

    Input: (B, ..., C * pieces). Output: (B, ..., C).

    Example:
        >>> ops.convert_to_numpy(Maxout()(ops.array([[3.0, 1.0, -2.0, -1.0]])))
        array([[ 3., -1.]], dtype=float32)

    Reference:
        Goodfellow et al. 2013, arXiv:1302.4389, section 3.
    """

    kernel_size = 1  # for kzoo.ledger: an output depends on its own position only

    def __init__(self, pieces: int = 2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pieces = pieces

    def call(self, x):
        return ops.max(ops.reshape(x, (-1, *x.shape[1:-1], x.shape[-1] // self.pieces, self.pieces)), axis=-1)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], input_shape[-1] // self.pieces)

    def get_config(self):
        return {**super().get_config(), "pieces": self.pieces}


ACTIVATIONS = ("relu", "leaky_relu", "prelu", "tanh", "sigmoid", "maxout")


def activated(
    x: KerasTensor, kind: type, units: int, *args: Any, activation: str, name: str, **kwargs: Any
) -> KerasTensor:
    """A convolution or dense layer with one of the lecture's activations.

    Kernels start after He et al. 2015 (arXiv:1502.01852), those in front of tanh and sigmoid after Glorot and Bengio
    2010.

    Args:
        x: (B, H, W, C), or (B, D) for a dense layer.
        kind: keras.layers.Conv2D or keras.layers.Dense.
        units: Channels of the result.
        *args: For the layer.
        activation: "relu", "tanh" or "sigmoid", inside the layer; or in a layer of its own, NAME_act: "leaky_relu",
            max(0.1 x, x); "prelu", with a trained slope for each channel, from 0.25; "maxout", the maximum of two
            affine functions, which takes twice the parameters.
        name: Of the layer.
        **kwargs: For the layer.

    Returns:
        The layer's output behind the activation.

    Raises:
        UnknownName: Another activation.
    """
    if activation not in ACTIVATIONS:
        raise unknown("activation", activation, ACTIVATIONS, f"It is one of {', '.join(ACTIVATIONS)}.")
    inside = activation in ("relu", "tanh", "sigmoid")
    x = kind(
        units * (2 if activation == "maxout" else 1),
        *args,
        activation=activation if inside else None,
        kernel_initializer="glorot_uniform" if activation in ("tanh", "sigmoid") else "he_normal",
        name=name,
        **kwargs,
    )(x)
    if activation == "leaky_relu":
        return keras.layers.LeakyReLU(0.1, name=f"{name}_act")(x)
    if activation == "prelu":
        shared = list(range(1, len(x.shape) - 1)) or None
        slope = keras.initializers.Constant(0.25)
        return keras.layers.PReLU(slope, shared_axes=shared, name=f"{name}_act")(x)
    return x if inside else Maxout(name=f"{name}_act")(x)


def pool_3x3_s2(x: KerasTensor, *, name: str) -> KerasTensor:
    """Max pool 3x3 at stride 2 that rounds its output size up, as Caffe does.

    The row and column of zeros at the right and bottom stand for "outside", so x must not be negative (behind a ReLU).

    Args:
        x: (B, H, W, C).
        name: Of the pooling layer; the padding is <name>_pad.

    Returns:
        (B, H // 2, W // 2, C).
    """
    x = keras.layers.ZeroPadding2D(((0, 1), (0, 1)), name=f"{name}_pad")(x)
    return keras.layers.MaxPooling2D(3, 2, name=name)(x)


def classifier(x: KerasTensor, num_classes: int | None, name: str = "predictions", **kwargs: Any) -> KerasTensor:
    """The last layer of a network.

    Args:
        x: Features (B, D).
        num_classes: How many logits; None returns the features.
        name: Of the layer.
        **kwargs: For keras.layers.Dense.

    Returns:
        float32 logits (B, num_classes).
    """
    if num_classes is None:
        return x
    return keras.layers.Dense(num_classes, dtype="float32", name=name, **kwargs)(x)


@_register
class LogMeanSoftmax(keras.layers.Layer):
    """The logarithm of the average of the members' probabilities: log(mean_m softmax(z_m / T_m)).

    Its softmax is that average, so it takes the place of a network's logits. It computes in float32 under every dtype
    policy, and with logarithms throughout: no probability becomes 0.

    Args:
        temperatures: One for each member, above 0.

    Input: a list of logits (B, C), one for each member. Output: (B, C), float32.

    Example:
        >>> layer = LogMeanSoftmax([1.0, 1.0])
        >>> ops.exp(layer([ops.log([[0.5, 0.5]]), ops.log([[0.9, 0.1]])])).numpy().round(4)
        array([[0.7, 0.3]], dtype=float32)

    Reference:
        Lakshminarayanan et al. 2017, arXiv:1612.01474, section 2.4.
    """

    def __init__(self, temperatures: Sequence[float], **kwargs: Any) -> None:
        kwargs["dtype"] = "float32"
        super().__init__(trainable=False, **{k: v for k, v in kwargs.items() if k != "trainable"})
        self.temperatures = tuple(temperatures)

    def call(self, logits):
        scaled = [ops.cast(z, "float32") / t for z, t in zip(logits, self.temperatures, strict=True)]
        members = ops.stack([ops.log_softmax(z, axis=-1) for z in scaled], axis=0)
        return ops.logsumexp(members, axis=0) - math.log(len(scaled))

    def compute_output_shape(self, input_shape):
        return input_shape[0]

    def get_config(self):
        return {**super().get_config(), "temperatures": list(self.temperatures)}
