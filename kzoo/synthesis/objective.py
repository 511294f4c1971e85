"""The loss of a picture and its gradient, for style transfer and for looking inside a network.

`StyleObjective` is alpha L_content + sum_l beta_l E_l; `FeatureObjective` compares features with targets or directions,
for inversion, maximisation and DeepDream. Both add terms of the pixels, and run whole or in tiles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

import keras
import numpy as np
from keras import ops

from kzoo.errors import KzooError
from kzoo.synthesis import losses, tiles
from kzoo.synthesis.network import FeatureNetwork

BALANCES = ("relative", "gradient", "paper")
PIXEL_TERMS = {"tv": losses.total_variation, "range": losses.out_of_range, "norm": losses.power_norm}


def differentiable(model: keras.Model, function: Callable) -> Callable:
    """Compile a function of a model's outputs together with its gradient for the model's input.

    Args:
        model: of one input, or of several: then x and the gradient are lists.
        function: `function(model(x), arguments)` gives (scalar, more).

    Returns:
        A function of (x, arguments), NumPy arrays or trees of them, that gives ((scalar, more), d scalar / d x).

    Raises:
        KzooError: Keras runs on another backend than TensorFlow and JAX.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        # Without XLA: its convolutions on a CPU are several times slower than those of TensorFlow's own library.
        @tf.function(reduce_retracing=True)
        def run(x, arguments):
            with tf.GradientTape() as tape:
                for tensor in keras.tree.flatten(x):
                    tape.watch(tensor)
                value, more = function(model(x, training=False), arguments)
            return (value, more), tape.gradient(value, x)

        _quiet(run)
        return lambda x, arguments: run(_tensors(x), _tensors(arguments))
    if backend == "jax":
        import jax

        state = [v.value for v in model.trainable_variables], [v.value for v in model.non_trainable_variables]

        def value(x, state, arguments):
            return function(model.stateless_call(*state, x, training=False)[0], arguments)

        run = jax.jit(jax.value_and_grad(value, has_aux=True))
        return lambda x, arguments: run(_tensors(x), state, _tensors(arguments))
    raise KzooError(
        f"kzoo computes gradients of pictures on TensorFlow and JAX; Keras uses {backend} here (KERAS_BACKEND)."
    )


def forward(model: keras.Model, function: Callable) -> Callable:
    """Compile `function(model(x), arguments)` as a function of (x, arguments), for TensorFlow and JAX."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        run = tf.function(lambda x, arguments: function(model(x, training=False), arguments), reduce_retracing=True)
        _quiet(run)
        return lambda x, arguments: run(tf.convert_to_tensor(x), _tensors(arguments))
    import jax

    state = [v.value for v in model.trainable_variables], [v.value for v in model.non_trainable_variables]
    run = jax.jit(lambda x, s, a: function(model.stateless_call(*s, x, training=False)[0], a))
    return lambda x, arguments: run(np.asarray(x), state, _tensors(arguments))


def _mismatches():
    """What TensorFlow raises, besides Python's own errors, for tensors whose sizes do not fit."""
    if keras.backend.backend() != "tensorflow":
        return ()
    import tensorflow as tf

    return (tf.errors.InvalidArgumentError,)


def _quiet(run):
    """Keep TensorFlow from warning that functions of the same code are traced again: here each is of another model."""
    run._omit_frequent_tracing_warning = True


def _tensors(tree):
    """NumPy arrays as tensors, so that their values are not part of the compiled graph; None stays."""

    def tensor(a):
        return None if a is None else ops.convert_to_tensor(a, dtype=keras.backend.standardize_dtype(a.dtype))

    return keras.tree.map_structure(tensor, tree, none_is_leaf=True)


def _numpy(tree):
    return keras.tree.map_structure(ops.convert_to_numpy, tree)


def regions(guide: np.ndarray) -> list[np.ndarray]:
    """Split a guide (1, h, w, R) into R masks (1, h, w, 1)."""
    return np.split(guide, guide.shape[-1], -1)


class CompiledNetwork:
    """A feature network with its functions compiled, for pictures of any size, all targets and all tiles.

    Args:
        network: a FeatureNetwork.
        tile: the side of a tile's core in pixels, rounded down to a multiple of the network's stride; None: each
            picture is computed in one piece.

    Raises:
        KzooError: the network's features can't be computed tile by tile exactly.
    """

    def __init__(self, network: FeatureNetwork, tile: int | None = None):
        if tile is not None:
            if network.halo is None:
                raise KzooError(
                    "This network's layers can't be cut into exact tiles: choose earlier layers, or no tiles."
                )
            tile = max(1, tile // network.stride) * network.stride
        self.network, self.tile = network, tile
        self.measure = self._compiled(forward, self._measure)
        self.all_features = self._compiled(forward, self._all_features)
        self.tile_terms = self._compiled(differentiable, self._tile_terms)
        self.picture_terms = self._compiled(differentiable, self._picture_terms)
        self.position_terms = self._compiled(differentiable, self._position_terms)
        channels = network.model.inputs[0].shape[-1]
        identity = keras.Sequential([keras.Input((None, None, channels)), keras.layers.Identity(dtype="float32")])
        self.pixel_terms = differentiable(identity, self._pixel_terms)

    def shapes(self, height: int, width: int) -> dict[str, tuple[int, ...]]:
        """{layer: (1, h, w, N)}, the shapes of the feature maps of a picture (height, width)."""
        return self.network.named_shapes(height, width)

    def _compiled(self, compile, function):
        """A compiled function of the network, which says so where the network can't take a picture of that size."""
        model, errors = self.network.model, (ValueError, TypeError, *_mismatches())
        run = compile(model, function)

        def fits(shape):
            try:
                model(np.zeros(shape, "float32"), training=False)
            except errors:
                return False
            return True

        def call(x, arguments):
            try:
                return run(x, arguments)
            except errors as e:
                if fits(x.shape):
                    raise
                raise self.network.misfit(*x.shape[1:3]) from e

        return call

    def features(self, picture: np.ndarray) -> dict[str, np.ndarray]:
        """{layer: float32 features} of pictures (B, H, W, C), computed in one piece."""
        return _numpy(self.all_features(np.asarray(picture, "float32"), {}))

    # --- the functions that are compiled ---

    def _all_features(self, outputs, _):
        return {n: losses.at_least_float32(f) for n, f in self.network.named(outputs).items()}

    def _measure(self, outputs, masks):
        """The Gram matrices of the style layers, and the features of the content layers."""
        features = self.network.named(outputs)
        grams = {n: losses.gram(features[n], masks[n]) for n in self.network.style}
        return grams, {n: losses.at_least_float32(features[n]) for n in self.network.content}

    def _content_terms(self, features, a):
        terms = {n: losses.content_loss(features[n], a["content"][n], a["core"][n]) for n in self.network.content}
        return sum(terms[n] * a["alpha"][n] for n in terms), terms

    def _picture_terms(self, outputs, a):
        """The content and style terms of a picture that is computed in one piece."""
        features = self.network.named(outputs)
        total, content = self._content_terms(features, a)
        style = {}
        for n in self.network.style:
            mean = losses.gram(features[n], a["masks"][n]) / a["positions"][n][:, None, None]
            style[n] = losses.style_loss(mean, a["grams"][n])
            total = total + a["beta"][n] * style[n]
        return total, (content, style)

    def _tile_terms(self, outputs, a):
        """A tile's content loss plus <dE/dG, its Gram matrix>, whose gradient is the tile's part of the style's."""
        features = self.network.named(outputs)
        total, content = self._content_terms(features, a)
        for n in self.network.style:
            total = total + ops.sum(a["slopes"][n] * losses.gram(features[n], a["masks"][n]))
        return total, content

    def _position_terms(self, outputs, a):
        """Sums over positions: alpha times the content loss, and the product with a direction."""
        features, terms = self.network.named(outputs), {}
        for n, target in a["targets"].items():
            terms[n] = a["alpha"][n] * losses.content_loss(features[n], target, a["core"][n])
        for n, direction in a["directions"].items():
            product = losses.at_least_float32(features[n]) * direction
            product = ops.sum(product if a["core"][n] is None else product * a["core"][n])
            terms[n] = terms.get(n, 0) + product
        return sum(terms.values()), terms

    def _pixel_terms(self, x, weights):
        """The terms of the picture itself that have a weight."""
        terms = {n: weight * PIXEL_TERMS[n](x) for n, weight in weights.items()}
        return sum(terms.values()), terms

    # --- whole pictures ---

    def windows(self, shape: tuple[int, int]) -> list[tuple[tiles.Span, tiles.Span]]:
        """The windows (vertical span, horizontal span) of a picture (height, width)."""
        return tiles.windows(shape, self.tile, self.network.halo, self.network.stride)

    def masked_windows(self, shape: tuple[int, int], guides: dict[str, np.ndarray] | None = None) -> Iterator[tuple]:
        """Go through the windows of a picture.

        Args:
            shape: (height, width) of the picture.
            guides: {layer: (1, h, w, R)} of the whole picture, or None.

        Yields:
            (window, {layer: the rows and columns of its feature map}, {layer: mask of the core}, {layer: R masks for
            its Gram matrices}). A mask is None where it would be 1 everywhere.
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

    def grams(
        self, picture: np.ndarray, guides: dict[str, np.ndarray] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """The Gram matrices and the content features of a picture.

        Args:
            picture: (1, H, W, 3) in 0..255.
            guides: {layer: (1, h, w, R)}, regions with a Gram matrix each; None: one region.

        Returns:
            ({style layer: G summed over the picture, (R, N, N)}, {content layer: features (1, h, w, N)}).
        """
        grams, features = {}, {n: np.zeros(s, "float32") for n, s in self.shapes(*picture.shape[1:3]).items()}
        for window, places, cores, masks in self.masked_windows(picture.shape[1:3], guides):
            g, f = _numpy(self.measure(tiles.cropped(picture, window), {n: masks[n] for n in self.network.style}))
            for n, a in g.items():
                grams[n] = grams.get(n, 0) + a
            for n, a in f.items():
                keep = 1 if cores[n] is None else cores[n]
                features[n][:, places[n][0], places[n][1]] += a * keep
        return grams, {n: features[n] for n in self.network.content}


class Objective:
    """A loss of a picture and its gradient: terms of the features, which a subclass computes, and of the pixels.

    Args:
        compiled: a CompiledNetwork.
        shape: (1, H, W, C) of the picture.
        pixel_weights: {"tv": of the total variation, "range": of pixels outside 0..255, which a file can't hold,
            "norm": of the sixth power of the distance from grey}; 0 and what is left out costs nothing.
    """

    def __init__(self, compiled: CompiledNetwork, shape: Sequence[int], pixel_weights: dict[str, float]):
        self.compiled, self.shape = compiled, tuple(shape)
        self.pixel_weights = {n: weight for n, weight in pixel_weights.items() if weight}

    def feature_parts(self, x: np.ndarray) -> tuple[dict[str, float], np.ndarray]:
        """({name: weighted term of the features}, the gradient of their sum) of a picture (1, H, W, C)."""
        raise NotImplementedError

    def __call__(self, x: np.ndarray) -> tuple[float, dict[str, float], np.ndarray]:
        """The loss of a picture and its gradient.

        Args:
            x: (1, H, W, C) float32, of the objective's shape.

        Returns:
            (loss, its weighted parts, gradient): the parts of the features, then of the pixels where they have a
            weight; the gradient float32 and of the shape of x.
        """
        parts, gradient = self.feature_parts(x)
        if self.pixel_weights:
            (_, terms), slope = self.compiled.pixel_terms(x, _floats(self.pixel_weights))
            parts.update(_scalars(terms))
            gradient = gradient + np.asarray(slope)
        return sum(parts.values()), parts, gradient


class FeatureObjective(Objective):
    """The sum over layers of alpha/2 |F - P|^2 + <F, D>, for features F, targets P and directions D.

    With a target and alpha = 2 / |P|^2 it inverts features; with a direction -1 at a unit or a class it maximises that;
    with the target 0 and a negative alpha it is DeepDream's.

    Args:
        compiled: a CompiledNetwork; `layers` of its content, which may be vectors where it is not tiled.
        shape: (1, H, W, C) of the picture.
        targets: {layer: (alpha, P)}, P of the shape of the features or one that broadcasts to it.
        directions: {layer: D}, likewise.
        pixel_weights: see `Objective`.
    """

    def __init__(
        self,
        compiled: CompiledNetwork,
        shape: Sequence[int],
        *,
        targets: dict[str, tuple[float, np.ndarray]] | None = None,
        directions: dict[str, np.ndarray] | None = None,
        pixel_weights: dict[str, float] | None = None,
    ):
        super().__init__(compiled, shape, pixel_weights or {})
        targets = targets or {}
        self.alpha = {n: alpha for n, (alpha, _) in targets.items()}
        self.targets = {n: np.asarray(p, "float32") for n, (_, p) in targets.items()}
        self.directions = {n: np.asarray(d, "float32") for n, d in (directions or {}).items()}

    def feature_parts(self, x: np.ndarray) -> tuple[dict[str, float], np.ndarray]:
        """As `Objective.feature_parts`, with a part for each layer."""
        arguments = {"alpha": _floats(self.alpha), "targets": self.targets, "directions": self.directions}
        whole = dict.fromkeys(self.compiled.network.layers)
        if len(self.compiled.windows(self.shape[1:3])) == 1:
            (_, terms), gradient = self.compiled.position_terms(x, {**arguments, "core": whole})
            return _scalars(terms), np.asarray(gradient)
        gradient, parts = np.zeros(self.shape, "float32"), dict.fromkeys(whole, 0.0)
        for window, places, cores, _ in self.compiled.masked_windows(self.shape[1:3]):

            def there(arrays, places=places):
                return {
                    n: a[:, places[n][0], places[n][1]] if a.ndim == 4 and a.shape[1] > 1 else a
                    for n, a in arrays.items()
                }

            (_, terms), slope = self.compiled.position_terms(
                tiles.cropped(x, window),
                {
                    "alpha": arguments["alpha"],
                    "targets": there(self.targets),
                    "directions": there(self.directions),
                    "core": cores,
                },
            )
            tiles.cropped(gradient, window)[:] += np.asarray(slope)
            parts = {n: parts[n] + v for n, v in _scalars(terms).items()}
        return parts, gradient


class StyleObjective(Objective):
    """The objective for one content picture and its styles, at one size. Call it: x -> (loss, parts, gradient).

    Its attributes `alpha` and `beta` are the weights that came of the arguments, {layer: number}, in the paper's terms.
    `relative_weight` is the ratio of the style's weight to the content's in the terms of the balance "relative", where
    it is style_weight / content_weight: the ratio of the two terms for zero features. It tells what published weights
    mean for other features. None where either term is 0.

    Args:
        compiled: a CompiledNetwork.
        content: the content picture, (1, H, W, 3) in 0..255.
        styles: style pictures of any sizes, a list of (1, h, w, 3) in 0..255.
        style_weights: one for each style, or for each style and region (styles, R); equal by default. The target is
            the weighted mean of the styles' Gram matrices, whose gradient is that of the weighted sum of losses.
        content_weight, style_weight: alpha and beta, as `balance` scales them.
        tv_weight: of the total variation.
        range_weight: of pixels outside 0..255, which a file can't hold.
        balance: "paper": the weights as they are, L = alpha L_content + beta sum_l w_l E_l.
            "relative": each term is divided by what it would be for zero features, so the numbers mean the same for
            every network and size: alpha |F - P|^2 / |P|^2 and beta sum_l w_l |G - A|^2 / |A|^2.
            "gradient": like "relative", and then the style layers are weighted so that their gradients have the same
            norm at the content picture.
        layer_weights: w_l for each style layer; equal, with the sum 1, by default.
        guides: (content guide (H, W, R), [one (h, w, R) for each style]), values in 0..1: region r of the picture
            takes its texture from region r of the styles. None: one region.

    Raises:
        KzooError: a region is smaller than one position of a style layer.
    """

    def __init__(
        self,
        compiled: CompiledNetwork,
        content: np.ndarray,
        styles: Sequence[np.ndarray],
        *,
        style_weights: Sequence[float] | np.ndarray | None = None,
        content_weight: float = 1.0,
        style_weight: float = 100.0,
        tv_weight: float = 0.0,
        range_weight: float = 0.0,
        balance: str = "relative",
        layer_weights: Sequence[float] | None = None,
        guides: tuple[np.ndarray, list[np.ndarray]] | None = None,
    ):
        super().__init__(compiled, content.shape, {"tv": tv_weight, "range": range_weight})
        network = compiled.network
        shares = np.asarray([1] * len(styles) if style_weights is None else style_weights, "float32")
        shares = shares.reshape(len(styles), -1) / shares.sum(0)
        content_guide, style_guides = guides or (None, [None] * len(styles))
        self.guides = self._guides(content_guide, content.shape)
        self.positions = self._positions(self.guides, content.shape)
        self.target = dict.fromkeys(network.style, 0)
        for share, style, guide in zip(shares, styles, style_guides, strict=True):
            at_layers = self._guides(guide, style.shape)
            positions = self._positions(at_layers, style.shape, share > 0)
            for n, g in compiled.grams(style, at_layers)[0].items():
                self.target[n] = self.target[n] + (share / np.maximum(positions[n], 1))[:, None, None] * g
        self.content = compiled.grams(content)[1]

        w = dict(zip(network.style, layer_weights or [1 / len(network.style)] * len(network.style), strict=True))
        self.alpha = dict.fromkeys(network.content, content_weight / len(network.content))
        self.beta = dict.fromkeys(network.style, style_weight)
        # The terms for zero features.
        style_zero = {n: float(losses.style_loss(0 * a, a)) for n, a in self.target.items()}
        content_zero = {n: float(np.sum(a**2)) / 2 for n, a in self.content.items()}
        if balance != "paper":
            self.beta = {n: b / max(style_zero[n], 1e-30) for n, b in self.beta.items()}
            self.alpha = {n: a / max(content_zero[n], 1e-30) for n, a in self.alpha.items()}
        if balance == "gradient":
            norms = {n: self.gradient_norm(n, content) for n in network.style}
            mean = np.mean([norm for n, norm in norms.items() if w[n]])
            self.beta = {n: b * mean / max(norms[n], 1e-30) for n, b in self.beta.items()}
        self.beta = {n: w[n] * b for n, b in self.beta.items()}
        of_style = sum(b * style_zero[n] for n, b in self.beta.items())
        of_content = sum(a * content_zero[n] for n, a in self.alpha.items())
        self.relative_weight = of_style / of_content if of_style > 0 and of_content > 0 else None

    def _guides(self, guide, shape):
        """{style layer: (1, h, w, R)}: a guide, averaged over the pixels of each position; None without one."""
        if guide is None:
            return None
        at = {s[1:3]: None for s in self.compiled.shapes(*shape[1:3]).values()}
        for size in at:
            at[size] = ops.convert_to_numpy(
                ops.image.resize(guide[None].astype("float32"), size, antialias=True, data_format="channels_last")
            )
        return {n: at[s[1:3]] for n, s in self.compiled.shapes(*shape[1:3]).items()}

    def _positions(self, guides, shape, used=True):
        """{style layer: M of each region, (R,) float32}; KzooError if a used region is empty."""
        sizes = self.compiled.shapes(*shape[1:3])

        def count(n):
            return np.array([sizes[n][1] * sizes[n][2]]) if guides is None else guides[n].sum((0, 1, 2))

        found = {n: count(n).astype("float32") for n in self.compiled.network.style}
        if any((used & (m < 1)).any() for m in found.values()):
            raise KzooError(
                f"At {shape[2]}x{shape[1]} pixels a mask leaves less than one position of a region at a style layer: "
                "make it larger, or begin with a larger size (--coarsest)."
            )
        return found

    def gradient_norm(self, layer: str, picture: np.ndarray) -> float:
        """The norm of the gradient of one style layer's term at a picture (1, H, W, 3)."""
        alpha, beta = self.alpha, self.beta
        self.alpha, self.beta = dict.fromkeys(alpha, 0.0), {n: b if n == layer else 0.0 for n, b in beta.items()}
        try:
            return float(np.linalg.norm(self.feature_terms(picture)[2]))
        finally:
            self.alpha, self.beta = alpha, beta

    def feature_parts(self, x: np.ndarray) -> tuple[dict[str, float], np.ndarray]:
        """As `Objective.feature_parts`: the parts "content" and "style"."""
        content, style, gradient = self.feature_terms(x)
        parts = {
            "content": sum(float(self.alpha[n] * v) for n, v in content.items()),
            "style": sum(float(self.beta[n] * v) for n, v in style.items()),
        }
        return parts, gradient

    @cached_property
    def compared(self) -> dict:
        """What a picture in one piece is compared with, as tensors: copied once, not at each evaluation."""
        network = self.compiled.network
        return _tensors(
            {
                "content": self.content,
                "core": dict.fromkeys(network.content),
                "masks": {n: None if self.guides is None else regions(self.guides[n]) for n in network.style},
                "positions": self.positions,
                "grams": self.target,
            }
        )

    def feature_terms(self, x: np.ndarray) -> tuple[dict[str, float], dict[str, float], np.ndarray]:
        """({content layer: L_content}, {style layer: E_l}, the gradient of their weighted sum) of (1, H, W, 3)."""
        arguments = {"alpha": _floats(self.alpha), "beta": _floats(self.beta)}
        if len(self.compiled.windows(self.shape[1:3])) == 1:
            (_, terms), gradient = self.compiled.picture_terms(x, {**arguments, **self.compared})
            content, style = (_scalars(t) for t in terms)
            return content, style, np.asarray(gradient)

        # First the Gram matrices of the whole picture, which dE/dG depends on; then the gradient, tile by tile.
        grams, _ = self.compiled.grams(x, self.guides)
        means = {n: g / self.positions[n][:, None, None] for n, g in grams.items()}
        style = {n: float(losses.style_loss(means[n], self.target[n])) for n in means}
        slopes = {
            n: ops.convert_to_numpy(losses.style_slope(m, self.target[n], self.positions[n])) * np.float32(self.beta[n])
            for n, m in means.items()
        }
        gradient, content = np.zeros(self.shape, "float32"), dict.fromkeys(self.compiled.network.content, 0.0)
        for window, places, cores, masks in self.compiled.masked_windows(self.shape[1:3], self.guides):
            target = {n: self.content[n][:, places[n][0], places[n][1]] for n in content}
            (_, terms), slope = self.compiled.tile_terms(
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

    def distances(self, x: np.ndarray) -> dict[str, float]:
        """{style layer: |G - A|^2 / |A|^2}, the relative Gram distance of a picture (1, H, W, 3) from the target."""
        grams, _ = self.compiled.grams(x, self.guides)

        def square(a):
            return float(np.sum(np.square(a, dtype="float64")))

        mean = {n: g / self.positions[n][:, None, None] for n, g in grams.items()}
        return {n: square(mean[n] - a) / square(a) for n, a in self.target.items()}


def _floats(weights):
    return {n: np.float32(v) for n, v in weights.items()}


def _scalars(terms):
    return {n: float(v) for n, v in terms.items()}
