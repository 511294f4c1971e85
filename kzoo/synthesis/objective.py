"""The loss of a picture and its gradient: alpha L_content + sum_l beta_l E_l + terms of the pixels."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from kzoo.errors import KzooError
from kzoo.synthesis import losses, tiles

BALANCES = ("relative", "gradient", "paper")


def differentiable(model, function):
    """function(model(x), arguments) -> (scalar, more), compiled: x, arguments -> ((scalar, more), d scalar / d x)."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        # Without XLA: its convolutions on a CPU are several times slower than those of TensorFlow's own library.
        @tf.function(reduce_retracing=True)
        def run(x, arguments):
            with tf.GradientTape() as tape:
                tape.watch(x)
                value, more = function(model(x, training=False), arguments)
            return (value, more), tape.gradient(value, x)

        return lambda x, arguments: run(tf.convert_to_tensor(x), _tensors(arguments))
    if backend == "jax":
        import jax

        state = [v.value for v in model.trainable_variables], [v.value for v in model.non_trainable_variables]

        def value(x, state, arguments):
            return function(model.stateless_call(*state, x, training=False)[0], arguments)

        run = jax.jit(jax.value_and_grad(value, has_aux=True))
        return lambda x, arguments: run(np.asarray(x), state, _tensors(arguments))
    raise KzooError(f"Style transfer runs on TensorFlow and JAX; Keras uses {backend} here (KERAS_BACKEND).")


def forward(model, function):
    """function(model(x), arguments), compiled."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        run = tf.function(lambda x, arguments: function(model(x, training=False), arguments), reduce_retracing=True)
        return lambda x, arguments: run(tf.convert_to_tensor(x), _tensors(arguments))
    import jax

    state = [v.value for v in model.trainable_variables], [v.value for v in model.non_trainable_variables]
    run = jax.jit(lambda x, s, a: function(model.stateless_call(*s, x, training=False)[0], a))
    return lambda x, arguments: run(np.asarray(x), state, _tensors(arguments))


def _tensors(tree):
    """NumPy arrays as tensors, so that their values are no part of the compiled graph; None stays."""

    def tensor(a):
        return None if a is None else ops.convert_to_tensor(a, dtype=keras.backend.standardize_dtype(a.dtype))

    return keras.tree.map_structure(tensor, tree, none_is_leaf=True)


def _numpy(tree):
    return keras.tree.map_structure(ops.convert_to_numpy, tree)


def regions(guide):
    """(1, h, w, R) to R masks (1, h, w, 1)."""
    return np.split(guide, guide.shape[-1], -1)


class Eye:
    """A network with its functions compiled, for pictures of any size; what is compiled serves all targets and tiles.

    tile: the side of a tile's core in pixels, None to see each picture in one piece. Raises KzooError for a network
    whose features can't be computed tile by tile exactly.
    """

    def __init__(self, network, tile=None):
        if tile is not None:
            if network.halo is None:
                raise KzooError(
                    "This network's layers can't be cut into exact tiles: choose earlier layers, or no tiles."
                )
            tile = max(1, tile // network.stride) * network.stride
        self.network, self.tile = network, tile
        self.measure = forward(network.model, self._measure)
        self.pull = differentiable(network.model, self._pull)
        self.whole = differentiable(network.model, self._whole)
        same = keras.Sequential([keras.Input((None, None, 3)), keras.layers.Identity(dtype="float32")])
        self.pixels = differentiable(same, self._pixels)

    def shapes(self, height, width):
        """{layer: (1, h, w, N)} for a picture."""
        return self.network.named_shapes(height, width)

    # --- what is compiled ---

    def _measure(self, outputs, masks):
        """Grams of the style layers, and the features of the content layers."""
        features = self.network.named(outputs)
        grams = {n: losses.gram(features[n], masks[n]) for n in self.network.style}
        return grams, {n: losses.at_least_float32(features[n]) for n in self.network.content}

    def _content(self, features, a):
        terms = {n: losses.content_loss(features[n], a["content"][n], a["core"][n]) for n in self.network.content}
        return sum(terms[n] * a["alpha"][n] for n in terms), terms

    def _whole(self, outputs, a):
        """The objective of a picture seen in one piece."""
        features = self.network.named(outputs)
        total, content = self._content(features, a)
        style = {}
        for n in self.network.style:
            mean = losses.gram(features[n], a["masks"][n]) / a["positions"][n][:, None, None]
            style[n] = losses.style_loss(mean, a["grams"][n])
            total = total + a["beta"][n] * style[n]
        return total, (content, style)

    def _pull(self, outputs, a):
        """A tile's part: its content loss, and <dE/dG, its Gram>, whose gradient is the tile's part of the style's."""
        features = self.network.named(outputs)
        total, content = self._content(features, a)
        for n in self.network.style:
            total = total + ops.sum(a["slopes"][n] * losses.gram(features[n], a["masks"][n]))
        return total, content

    def _pixels(self, x, weights):
        """The terms of the picture itself."""
        terms = {"tv": weights["tv"] * losses.total_variation(x), "range": weights["range"] * losses.out_of_range(x)}
        return sum(terms.values()), terms

    # --- a picture, all of it ---

    def windows(self, shape):
        return tiles.windows(shape, self.tile, self.network.halo, self.network.stride)

    def parts(self, shape, guides=None):
        """For each window of a picture (height, width): (window, {layer: rows and columns}, cores, style masks).

        guides: {layer: (1, h, w, R)} of the whole picture, or None. A mask is None where it would be 1 everywhere.
        """
        whole = self.shapes(*shape)
        windows = self.windows(shape)
        for window in windows:
            local = self.shapes(*(s.stop - s.start for s in window))
            places, cores, masks = {}, {}, {}
            for n in self.network.layers:
                places[n], core = tiles.feature_window(window, self.network.strides[n], local[n], whole[n])
                cores[n] = core if len(windows) > 1 else None
                if guides is not None:
                    masks[n] = regions(guides[n][:, places[n][0], places[n][1]] * core)
                else:
                    masks[n] = None if cores[n] is None else [core]
            yield window, places, cores, masks

    def grams(self, picture, guides=None):
        """({style layer: G summed over the picture}, {content layer: features}) of (1, H, W, 3)."""
        grams, features = {}, {n: np.zeros(s, "float32") for n, s in self.shapes(*picture.shape[1:3]).items()}
        for window, places, cores, masks in self.parts(picture.shape[1:3], guides):
            g, f = _numpy(self.measure(tiles.cropped(picture, window), {n: masks[n] for n in self.network.style}))
            for n, a in g.items():
                grams[n] = grams.get(n, 0) + a
            for n, a in f.items():
                keep = 1 if cores[n] is None else cores[n]
                features[n][:, places[n][0], places[n][1]] += a * keep
        return grams, {n: features[n] for n in self.network.content}


class Objective:
    """The objective for one content picture and its styles, at one size. Call it: x -> (loss, parts, gradient).

    eye: an `Eye`. content: (1, H, W, 3) in 0..255. styles: a list of such, of any sizes. style_weights: one for each
        style; the target is the weighted mean of their Grams, whose gradient is that of the weighted sum of losses.
    tv_weight, range_weight: of total variation and of pixels outside 0..255, which a file can't hold.
    content_weight, style_weight: alpha and beta, as `balance` scales them:
        "paper": as they are, L = alpha L_content + beta sum_l w_l E_l.
        "relative": each term is divided by what it would be for zero features, so the numbers mean the same for every
            network and size: alpha |F - P|^2 / |P|^2 and beta sum_l w_l |G - A|^2 / |A|^2.
        "gradient": like "relative", and then the style layers are weighed so that each pulls equally hard at the
            content picture.
    layer_weights: w_l for each style layer; equal, and 1 in all, by default.
    guides: (content guide (H, W, R), [one (h, w, R) for each style]), regions that take their texture from each other.

    alpha, beta: what came of it, {layer: number}, in the paper's terms.
    """

    def __init__(
        self,
        eye,
        content,
        styles,
        *,
        style_weights=None,
        content_weight=1.0,
        style_weight=100.0,
        tv_weight=0.0,
        range_weight=0.0,
        balance="relative",
        layer_weights=None,
        guides=None,
    ):
        self.eye, self.shape = eye, content.shape
        self.tv_weight, self.range_weight = tv_weight, range_weight
        network = eye.network
        shares = np.asarray([1] * len(styles) if style_weights is None else style_weights, "float32")
        shares = shares.reshape(len(styles), -1) / shares.sum(0)
        content_guide, style_guides = guides or (None, [None] * len(styles))
        self.guides = self._guides(content_guide, content.shape)
        self.positions = self._positions(self.guides, content.shape)
        self.target = dict.fromkeys(network.style, 0)
        for share, style, guide in zip(shares, styles, style_guides, strict=True):
            at_layers = self._guides(guide, style.shape)
            positions = self._positions(at_layers, style.shape, share > 0)
            for n, g in eye.grams(style, at_layers)[0].items():
                self.target[n] = self.target[n] + (share / np.maximum(positions[n], 1))[:, None, None] * g
        self.content = eye.grams(content)[1]

        w = dict(zip(network.style, layer_weights or [1 / len(network.style)] * len(network.style), strict=True))
        self.alpha = dict.fromkeys(network.content, content_weight / len(network.content))
        self.beta = dict.fromkeys(network.style, style_weight)
        if balance != "paper":
            zero = {n: float(losses.style_loss(0 * a, a)) for n, a in self.target.items()}
            self.beta = {n: b / max(zero[n], 1e-30) for n, b in self.beta.items()}
            self.alpha = {n: a / max(float(np.sum(self.content[n] ** 2)) / 2, 1e-30) for n, a in self.alpha.items()}
        if balance == "gradient":
            pulls = {n: self._pull_of(n, content) for n in network.style}
            mean = np.mean([pull for n, pull in pulls.items() if w[n]])
            self.beta = {n: b * mean / max(pulls[n], 1e-30) for n, b in self.beta.items()}
        self.beta = {n: w[n] * b for n, b in self.beta.items()}

    def _guides(self, guide, shape):
        """{style layer: (1, h, w, R)}: a guide, averaged over what each unit stands for; None without one."""
        if guide is None:
            return None
        at = {s[1:3]: None for s in self.eye.shapes(*shape[1:3]).values()}
        for size in at:
            at[size] = ops.convert_to_numpy(ops.image.resize(guide[None].astype("float32"), size, antialias=True))
        return {n: at[s[1:3]] for n, s in self.eye.shapes(*shape[1:3]).items()}

    def _positions(self, guides, shape, used=True):
        """{style layer: M of each region, (R,) float32}; KzooError if a used region is empty."""
        sizes = self.eye.shapes(*shape[1:3])

        def count(n):
            return np.array([sizes[n][1] * sizes[n][2]]) if guides is None else guides[n].sum((0, 1, 2))

        found = {n: count(n).astype("float32") for n in self.eye.network.style}
        if any((used & (m < 1)).any() for m in found.values()):
            raise KzooError(
                f"At {shape[2]}x{shape[1]} pixels a mask leaves less than one position of a region at a style layer: "
                "make it larger, or begin with a larger size (--coarsest)."
            )
        return found

    def _pull_of(self, layer, content):
        """The norm of the gradient of one style layer's term, for the content picture."""
        alpha, beta = self.alpha, self.beta
        self.alpha, self.beta = dict.fromkeys(alpha, 0.0), {n: b if n == layer else 0.0 for n, b in beta.items()}
        try:
            return float(np.linalg.norm(self.features_terms(content)[2]))
        finally:
            self.alpha, self.beta = alpha, beta

    def __call__(self, x):
        """(loss, {"content", "style", ...}: its weighted parts, gradient like x float32) for x (1, H, W, 3)."""
        content, style, gradient = self.features_terms(x)
        parts = {
            "content": sum(float(self.alpha[n] * v) for n, v in content.items()),
            "style": sum(float(self.beta[n] * v) for n, v in style.items()),
        }
        weights = {"tv": self.tv_weight, "range": self.range_weight}
        if any(weights.values()):
            (_, terms), slope = self.eye.pixels(x, _floats(weights))
            parts.update({name: value for name, value in _scalars(terms).items() if weights[name]})
            gradient = gradient + np.asarray(slope)
        return sum(parts.values()), parts, gradient

    def features_terms(self, x):
        """({layer: L_content}, {layer: E_l}, gradient of their weighted sum)."""
        arguments = {"alpha": _floats(self.alpha), "beta": _floats(self.beta)}
        if len(self.eye.windows(self.shape[1:3])) == 1:
            masks = {n: None if self.guides is None else regions(self.guides[n]) for n in self.eye.network.style}
            (_, terms), gradient = self.eye.whole(
                x,
                {
                    **arguments,
                    "content": self.content,
                    "core": dict.fromkeys(self.eye.network.content),
                    "masks": masks,
                    "positions": self.positions,
                    "grams": self.target,
                },
            )
            content, style = (_scalars(t) for t in terms)
            return content, style, np.asarray(gradient)

        # First the Grams of the whole picture, which say how hard each feature is pulled; then the pull, tile by tile.
        grams, _ = self.eye.grams(x, self.guides)
        means = {n: g / self.positions[n][:, None, None] for n, g in grams.items()}
        style = {n: float(losses.style_loss(means[n], self.target[n])) for n in means}
        slopes = {
            n: ops.convert_to_numpy(losses.style_slope(m, self.target[n], self.positions[n])) * np.float32(self.beta[n])
            for n, m in means.items()
        }
        gradient, content = np.zeros(self.shape, "float32"), dict.fromkeys(self.eye.network.content, 0.0)
        for window, places, cores, masks in self.eye.parts(self.shape[1:3], self.guides):
            target = {n: self.content[n][:, places[n][0], places[n][1]] for n in content}
            (_, terms), slope = self.eye.pull(
                tiles.cropped(x, window),
                {
                    "alpha": arguments["alpha"],
                    "content": target,
                    "core": {n: cores[n] for n in content},
                    "masks": {n: masks[n] for n in slopes},
                    "slopes": slopes,
                },
            )
            tiles.cropped(gradient, window)[:] += np.asarray(slope)
            content = {n: content[n] + v for n, v in _scalars(terms).items()}
        return content, style, gradient

    def distances(self, x):
        """{style layer: |G - A|^2 / |A|^2}, the relative Gram distance of a picture from the target."""
        grams, _ = self.eye.grams(x, self.guides)

        def square(a):
            return float(np.sum(np.square(a, dtype="float64")))

        mean = {n: g / self.positions[n][:, None, None] for n, g in grams.items()}
        return {n: square(mean[n] - a) / square(a) for n, a in self.target.items()}


def _floats(weights):
    return {n: np.float32(v) for n, v in weights.items()}


def _scalars(terms):
    return {n: float(v) for n, v in terms.items()}
