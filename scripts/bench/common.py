"""What several benchmarks share: a network for all peers, its translation to PyTorch, the machine's peak speed."""

import time


def timed(call, seconds=2.0, min_calls=3):
    """Seconds of each of several calls, after two warm-up calls."""
    call(), call()
    times, began = [], time.perf_counter()
    while len(times) < min_calls or time.perf_counter() - began < seconds:
        before = time.perf_counter()
        call()
        times.append(time.perf_counter() - before)
    return times


def peak(n=2048):
    """{precision: GFLOP/s} of TensorFlow's product of two n x n matrices, the best of several calls."""
    import tensorflow as tf

    found = {}
    for dtype in ("float32", "bfloat16"):
        x = tf.cast(tf.random.normal((n, n)), dtype)
        product = tf.function(lambda a: tf.matmul(a, a))
        found[dtype] = round(2 * n**3 / min(timed(lambda: product(x)[0, 0].numpy(), 1)) / 1e9)  # noqa: B023
    return found


def exchanged(model, norm):
    """A copy of a model with new weights, and with the class `norm` in place of kzoo's batch norm."""
    import keras

    from kzoo.layers import BatchNormalization

    def kind(layer):
        return norm if isinstance(layer, BatchNormalization) else type(layer)

    return keras.models.clone_model(model, clone_function=lambda x: kind(x).from_config(x.get_config()))


def network(name, precision="float32", norm=None):
    """The network with random weights, biases and statistics.

    Biases and statistics are random because TensorFlow skips additions of zeros. The input is RGB in -1..1 for all
    networks: PyTorch, on whose Keras backend the translation is checked, can't reverse channels by a slice.

    Args:
        name: of the catalog.
        precision: "float32" or "bfloat16".
        norm: the class of its batch norms; kzoo's own by default.
    """
    import numpy as np

    import kzoo
    from kzoo.builder import computing_in

    model = kzoo.build(name, preprocessing=kzoo.Preprocessing(), precision=precision, seed=0)
    if norm:
        with computing_in(precision):
            model = exchanged(model, norm)
    rng = np.random.default_rng(0)
    for v in model.weights:
        if v.name in ("gamma", "moving_variance"):
            v.assign(rng.uniform(0.5, 1.5, v.shape))
        elif v.name in ("beta", "bias", "moving_mean"):
            v.assign(rng.normal(0, 0.1, v.shape))
    return model


def translate(model):
    """Translate a Keras model to a torch.nn.Module, including its preprocessing.

    The result is what a PyTorch user would write: padding inside convolutions and pools, ReLU in place.
    """
    import keras
    import numpy as np
    import torch
    from keras import layers
    from torch import nn
    from torch.nn import functional as F

    array = keras.ops.convert_to_numpy

    def tensor(a):
        return torch.from_numpy(np.array(a if isinstance(a, np.ndarray) else array(a)))

    consumers, merged = {}, {}
    for layer in model.layers[1:]:
        for t in layer.input if isinstance(layer.input, list) else [layer.input]:
            consumers.setdefault(id(t), []).append(layer)
    for layer in model.layers:  # zero padding in front of a convolution, or of a pool after a ReLU, becomes its own
        followers = consumers.get(id(layer.output), [])
        if isinstance(layer, layers.ZeroPadding2D) and len(followers) == 1 and hasattr(followers[0], "strides"):
            (top, bottom), (left, right) = layer.padding
            if top == bottom and left == right and followers[0].padding == "valid":
                merged[layer.name] = merged[followers[0].name] = (left, right, top, bottom)

    def sides(layer, size):
        """The padding (left, right, top, bottom) of a layer for an input of the size (height, width)."""
        if layer.padding == "valid":
            return merged.get(layer.name, (0, 0, 0, 0))
        window = getattr(layer, "kernel_size", None) or layer.pool_size
        total = [max((-(-n // s) - 1) * s + k - n, 0) for n, s, k in zip(size, layer.strides, window, strict=True)]
        return (total[1] // 2, total[1] - total[1] // 2, total[0] // 2, total[0] - total[0] // 2)

    def convolution(layer):
        kernel, pad = array(layer.kernel), sides(layer, layer.input.shape[1:3])
        groups = kernel.shape[2] if isinstance(layer, layers.DepthwiseConv2D) else 1
        kernel = kernel.transpose(2, 3, 0, 1) if groups > 1 else kernel.transpose(3, 2, 0, 1)
        even = pad[0] == pad[1] and pad[2] == pad[3]
        conv = nn.Conv2d(
            kernel.shape[1] * groups,
            kernel.shape[0],
            kernel.shape[2:],
            layer.strides,
            (pad[2], pad[0]) if even else 0,
            groups=groups,
            bias=layer.use_bias,
        )
        conv.weight.data = tensor(kernel)
        if layer.use_bias:
            conv.bias.data = tensor(layer.bias)
        steps = [conv] if even else [nn.ZeroPad2d(pad), conv]
        return nn.Sequential(*steps, *([nn.ReLU(inplace=True)] if layer.activation.__name__ == "relu" else []))

    def batch_norm(layer):
        bn = nn.BatchNorm2d(layer.moving_mean.shape[0], eps=layer.epsilon)
        ones = np.ones(bn.num_features, "float32")
        bn.weight.data = tensor(ones if layer.gamma is None else layer.gamma)
        bn.bias.data, bn.running_mean, bn.running_var = map(
            tensor, (layer.beta, layer.moving_mean, layer.moving_variance)
        )
        return bn

    def dense(layer):
        linear = nn.Linear(*layer.kernel.shape)
        linear.weight.data, linear.bias.data = tensor(array(layer.kernel).T), tensor(layer.bias)
        return nn.Sequential(linear, *([nn.ReLU(inplace=True)] if layer.activation.__name__ == "relu" else []))

    class Scale(nn.Module):
        def __init__(self, layer):
            super().__init__()

            def column(v):
                return torch.as_tensor(v, dtype=torch.float32).reshape(-1, 1, 1)

            self.register_buffer("scale", column(layer.scale))
            self.register_buffer("offset", column(layer.offset))

        def forward(self, x):
            return x * self.scale + self.offset

    class Call(nn.Module):
        def __init__(self, function):
            super().__init__()
            self.function = function

        def forward(self, *x):
            return self.function(*x)

    def pool(layer):
        pad = sides(layer, layer.input.shape[1:3])
        if isinstance(layer, layers.MaxPooling2D):
            # Asymmetric padding does not occur in these networks.
            return nn.MaxPool2d(layer.pool_size, layer.strides, (pad[2], pad[0]))
        return nn.AvgPool2d(layer.pool_size, layer.strides, (pad[2], pad[0]), count_include_pad=False)

    def relu(layer):
        if layer.max_value == 6:
            return nn.ReLU6(inplace=len(consumers[id(layer.input)]) == 1)
        return nn.ReLU(inplace=len(consumers[id(layer.input)]) == 1)

    def module(layer):
        kind = type(layer).__name__
        if layer.name in merged and kind == "ZeroPadding2D":
            return nn.Identity()
        if kind in ("Conv2D", "DepthwiseConv2D"):
            return convolution(layer)
        if kind in ("MaxPooling2D", "AveragePooling2D"):
            return pool(layer)
        return {
            "Preprocess": lambda: Scale(layer),
            "BatchNormalization": lambda: batch_norm(layer),
            "Dense": lambda: dense(layer),
            "ReLU": lambda: relu(layer),
            "ZeroPaddingShortcut": lambda: Call(
                lambda x: F.pad(x[:, :, :: layer.stride, :: layer.stride], (0, 0, 0, 0, 0, layer.filters - x.shape[1]))
            ),
            "ZeroPadding2D": lambda: nn.ZeroPad2d((*layer.padding[1], *layer.padding[0])),
            "Add": lambda: Call(lambda a, b: a + b),
            "Concatenate": lambda: Call(lambda *x: torch.cat(x, 1)),
            "GlobalAveragePooling2D": lambda: Call(lambda x: F.adaptive_avg_pool2d(x, 1).flatten(1)),
            "Flatten": lambda: Call(lambda x: x.permute(0, 2, 3, 1).flatten(1)),  # Keras' order
            "Dropout": lambda: nn.Dropout(layer.rate),
        }[kind]()

    class Translated(nn.Module):
        def __init__(self):
            super().__init__()
            self.steps, self.inputs, number = nn.ModuleList(), [], {id(model.input): 0}
            for layer in model.layers[1:]:
                inputs = layer.input if isinstance(layer.input, list) else [layer.input]
                self.steps.append(module(layer))
                self.inputs.append([number[id(t)] for t in inputs])
                number[id(layer.output)] = len(number)

        def forward(self, x):
            found = [x]
            for step, inputs in zip(self.steps, self.inputs, strict=True):
                found.append(step(*(found[i] for i in inputs)))
            return found[-1]

    return Translated().eval()
