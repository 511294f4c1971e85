"""A network that paints one style in one pass (Johnson, Alahi and Fei-Fei 2016, arXiv:1603.08155), trained and used."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from kzoo import runs
from kzoo.catalog import Preprocessing
from kzoo.data.batches import batches, decode_split
from kzoo.data.dataset import Split, report_skipped
from kzoo.data.guards import is_picture
from kzoo.data.images import shown
from kzoo.data.listing import files_below
from kzoo.errors import DataError, KzooError, RunError
from kzoo.files import make_folder
from kzoo.hardware import auto_precision, describe, without_tensorflow_chatter
from kzoo.interrupt import Interrupted, interruptible
from kzoo.progress import progress, say
from kzoo.style.network import model_of, style_network
from kzoo.style.painter import Stylenet, build_stylenet, paint
from kzoo.style.settings import StylenetOptions
from kzoo.synthesis import losses, pictures
from kzoo.synthesis.network import FeatureNetwork
from kzoo.weights import fetch, resolve

# What must be the same where a training is resumed.
RESUME_KEYS = (*(f.name for f in fields(StylenetOptions)), "styles", "style_sha256", "images_sha256")
STEPS_PER_CHECKPOINT = 50
FORMAT = "kzoo_stylenet"  # of a training's config.json: 3; those of 0.1.0, whose networks end in a tanh, have none
METRICS = "metrics.json"
CROPS = 3  # the side of the pictures that crops are cut from, in sides of a crop
HELD_OUT, MOST_HELD_OUT = 20, 32


# --- The loss ---------------------------------------------------------------------------------------

TERMS = ("content", "style", "variation", "range")


class PerceptualLoss(layers.Layer):
    """The loss of painted pictures, its four terms for each: content, style, total variation and range.

    The terms are alpha |F - P|^2 / |P|^2, the mean over content layers; beta |G - A|^2 / |A|^2, the mean over style
    layers; gamma times the sum of the squared differences between neighbouring pixels; and delta times the sum of the
    squared distances of pixels from 0..255.

    Call it with [painted, content, which], the first two (B, H, W, 3) in 0..255, the last (B, styles), 1 at the style
    of the picture and 0 elsewhere; it gives (B, 4) float32.

    Args:
        network: the loss network.
        styles: the style pictures, each (h, w, 3) in 0..255.
        content_weight, style_weight, tv_weight, range_weight: alpha, beta, gamma and delta.

    Reference:
        Johnson, Alahi and Fei-Fei 2016, section 3.2. Departures: content and style terms are relative to their targets,
        so that the weights mean the same for every network; the last term.
    """

    def __init__(
        self,
        network: FeatureNetwork,
        styles: Sequence[np.ndarray],
        *,
        content_weight: float,
        style_weight: float,
        tv_weight: float,
        range_weight: float,
        **kwargs,
    ):
        super().__init__(trainable=False, dtype="float32", **kwargs)
        self.network, self.features = network, network.model
        self.weights_of_terms = content_weight, style_weight, tv_weight, range_weight
        found = [
            network.named(network.model(ops.convert_to_tensor(s[None].astype("float32")), training=False))
            for s in styles
        ]
        self.targets = {
            n: np.concatenate([ops.convert_to_numpy(mean_grams(f[n])) for f in found]) for n in network.style
        }

    def call(self, inputs):
        painted, content, which = inputs
        alpha, beta, gamma, delta = self.weights_of_terms
        names = self.network.content
        ours = self.network.named(self.features(painted, training=False))
        theirs = self.network.named(self.features(content, training=False))

        def summed(x):
            return ops.sum(ops.square(x), axis=tuple(range(1, len(x.shape))))

        full = losses.at_least_float32
        kept = sum(summed(full(ours[n]) - full(theirs[n])) / (summed(full(theirs[n])) + 1e-6) for n in names)
        style = 0.0
        for n, targets in self.targets.items():
            target, size = ops.tensordot(which, targets, 1), ops.matmul(which, np.sum(targets**2, axis=(1, 2)))
            style += summed(mean_grams(ours[n]) - target) / size
        rough = summed(painted[:, 1:] - painted[:, :-1]) + summed(painted[:, :, 1:] - painted[:, :, :-1])
        beyond = summed(painted - ops.clip(painted, 0, 255))
        return ops.stack(
            [alpha * kept / len(names), beta * style / len(self.targets), gamma * rough, delta * beyond], axis=1
        )


def mean_grams(features: keras.KerasTensor) -> keras.KerasTensor:
    """G / M, the Gram matrix of each picture divided by its number of positions: (B, H, W, N) to (B, N, N) float32."""
    f = losses.at_least_float32(features)
    b, h, w, n = ops.shape(f)
    f = ops.reshape(f, (b, h * w, n))
    return ops.matmul(ops.transpose(f, (0, 2, 1)), f) / ops.cast(h * w, "float32")


# --- Training --------------------------------------------------------------------------------------------


def train_stylenet(
    styles: str | os.PathLike | Sequence[str | os.PathLike],
    images: str | os.PathLike,
    *,
    out: str | os.PathLike | None = None,
    size: int = 256,
    style_size: int | None = None,
    steps: int = 2000,
    batch_size: int = 4,
    width: int = 32,
    blocks: int = 5,
    content_weight: float = 1.0,
    style_weight: float = 5.0,
    tv_weight: float = 1e-8,
    range_weight: float = 1e-6,
    learning_rate: float = 1e-3,
    model: str = "vgg19",
    weights: str | os.PathLike = "imagenet",
    content_layers: Sequence[str] | None = None,
    style_layers: Sequence[str] | None = None,
    seed: int = 0,
    precision: str | None = "auto",
    resume: bool = False,
    quiet: bool = False,
) -> Path:
    """Train a network that paints any picture in one pass, in one style or in several.

    Every `HELD_OUT`-th picture, at most `MOST_HELD_OUT`, is not trained on; the objective on these is printed at the
    end, and in metrics.json.

    Args:
        styles: the style picture, a path, or several; a style has the name of its file.
        images: a folder of pictures to train on, with its subfolders; any pictures will do, the more the better.
        out: the folder to write; None: stylenets/STYLE, with several stylenets/STYLE-STYLE.
        size: the side of the training pictures in pixels, a multiple of 4 and at least 64.
        style_size: the shorter side of the style pictures in pixels, at least 64; None: `CROPS` times `size`, or the
            smallest picture's own if that is less.
        steps: of the optimiser; the paper took 40,000.
        batch_size: pictures in a step; the styles take turns.
        width: filters of the first convolution.
        blocks: residual blocks.
        content_weight, style_weight, tv_weight, range_weight: of the terms of `kzoo.style.stylenet.PerceptualLoss`;
            more style_weight is more style.
        learning_rate: Adam's, falling to 0 along a cosine.
        model, weights, content_layers, style_layers: the loss network, as in `kzoo.stylize`.
        seed: of the initial weights and of the order and the crops of the pictures.
        precision: "float32", "bfloat16", "float16", or "auto" (or None): what this machine is fast in. The network is
            written in float32.
        resume: continue after a kill or Ctrl-C; at most 50 steps are lost.
        quiet: no progress and no messages.

    Returns:
        The folder, with config.json, model.keras, history.csv, metrics.json, the checkpoint and, unless the pictures
        are too many to be kept in memory, example.png.

    Raises:
        KzooError: pictures that can't be read, options that can't be used or differ on resume, a loss that is NaN.

    Reference:
        Johnson, Alahi and Fei-Fei 2016 (arXiv:1603.08155); Dumoulin, Shlens and Kudlur 2017 (arXiv:1610.07629) for
        several styles. Departures: see `kzoo.models.stylenet.stylenet` and `PerceptualLoss`.
    """
    given = locals()
    options = StylenetOptions(**{f.name: given[f.name] for f in fields(StylenetOptions)})
    files = [Path(s) for s in ([styles] if isinstance(styles, (str, os.PathLike)) else styles)]
    names = _names(files)
    folder = Path(out or Path("stylenets") / "-".join(names))
    paintings = [pictures.read_picture(f) for f in files]
    if options.style_size is None:
        smallest = min(min(p.shape[:2]) for p in paintings)
        options = replace(options, style_size=max(64, min(CROPS * options.size, smallest)))
    split = training_pictures(images)
    why = "as asked"
    if options.precision == "auto":
        chosen, why = auto_precision()
        options = replace(options, precision=chosen)
    options = replace(options, model=model_of(options.model, options.weights))
    config = {
        **asdict(options),
        FORMAT: 3,
        "styles": names,
        "style": [str(f) for f in files],
        "style_sha256": [_hash(p) for p in paintings],
        "images": str(images),
        "images_sha256": _hash("\n".join(split.ids).encode()),
        "hardware": describe(),
        "versions": runs.versions(),
        "command": runs.command("train_stylenet"),
    }
    if options.weights != "random":
        # Before anything is written: missing weights are reported at once.
        fetch(resolve(options.model, options.weights), progress=False if quiet else None)
    _prepare_folder(folder, config, resume)
    with runs.locked(folder):
        if not resume:
            runs.write_json(folder / runs.CONFIG, config)
        side = CROPS * size
        with progress("pictures", quiet) as bar:
            bar.start("reading", len(split))
            ready, skipped = decode_split(split, (side, side, 3), Preprocessing(), bar.advance)
        if skipped:
            say(f"Left out {report_skipped(skipped)}.")
        if not len(ready):
            raise DataError(f"No picture in {images} can be decoded.")
        ready, held_out = _divided(ready, options.seed)
        if not quiet:
            say(
                f"Training on {len(ready):,} pictures ({len(held_out)} are held out) for the styles "
                f"{', '.join(names)}, {steps:,} steps of {batch_size} crops of {size}x{size}; computing in "
                f"{options.precision}: {why}."
            )
        network, notes = _loss_network(options, paintings)
        if not quiet:
            for note in notes:
                say(note)
        terms = _terms(network, paintings, options)
        kept = "the training so far is kept, and --resume continues from there"
        with interruptible(kept) as interrupted, progress("pictures", quiet) as bar:
            trained = _train(folder, options, terms, len(names), ready, interrupted=interrupted, bar=bar)
        # In float32 whatever it was trained in: what a machine is fast in is not the same everywhere.
        painter = build_stylenet(styles=len(names), width=width, blocks=blocks)
        for v, w in zip(painter.weights, trained.weights, strict=True):
            v.assign(w)
        runs.save_model(painter, folder / runs.MODEL)
        measured = measure(painter, terms, names, held_out, size)
        runs.write_json(folder / METRICS, {"held_out": len(held_out), "styles": measured})
        if not quiet:
            for name, row in measured.items():
                say(f"{name}, on {len(held_out)} held-out pictures: {described(row)}")
        if not ready.files:  # the pictures are in memory
            example = np.asarray(ready.take(np.array([0])).images[0], "uint8")
            net = Stylenet(painter, tuple(names))
            rows = [p for n, s in zip(names, paintings, strict=True) for p in (s, paint(net, example, {n: 1.0}))]
            pictures.side_by_side(folder / "example.png", [example, *rows])
    return folder


def training_pictures(folder: str | os.PathLike) -> Split:
    """A Split of all image files below a folder, with labels 0; DataError if there is none."""
    if not Path(folder).is_dir():
        raise DataError(f"There is no folder '{folder}' with pictures to train on.")
    paths = [str(p) for p in files_below(folder) if is_picture(p)]  # what is damaged is named later
    if not paths:
        raise DataError(f"{shown(folder)} holds no JPEG, PNG, GIF, BMP or WebP image.")
    return Split(paths, np.zeros(len(paths), "int64"), [str(Path(p).relative_to(folder)) for p in paths])


def random_crops(size: int, styles: int, seed: tuple[int, int]) -> Callable:
    """A function for `tf.data.Dataset.map` that crops the pictures of enumerated batches, and gives each a style.

    Args:
        size: the side of a crop in pixels.
        styles: how many there are; they take turns.
        seed: (seed, number of the data's first picture). A crop, its mirroring and its style depend on the seed and the
            picture's number only.

    Returns:
        A function of (i, (x, y)), x being the i-th batch (B, H, W, 3), that gives ((crops (B, size, size, 3), which
        (B, styles)), y), "which" being 1 at the style and 0 elsewhere.
    """
    import tensorflow as tf

    def crop(i, batch):
        x, y = batch
        numbers = tf.cast(i, tf.int32) * tf.shape(x)[0] + tf.range(tf.shape(x)[0]) + seed[1]

        def one(pair):
            cut = tf.image.stateless_random_crop(pair[0], (size, size, 3), (seed[0], pair[1]))
            return tf.cast(tf.image.stateless_random_flip_left_right(cut, (seed[0], pair[1])), tf.float32)

        crops = tf.map_fn(one, (x, numbers), fn_output_signature=tf.TensorSpec((size, size, 3), tf.float32))
        return (crops, tf.one_hot(numbers % styles, styles)), y

    return crop


def measure(
    model: keras.Model, terms: PerceptualLoss, names: Sequence[str], held_out: Split, size: int
) -> dict[str, dict[str, float]]:
    """The objective of what a network paints, on the middle of held-out pictures.

    Args:
        model: a stylenet.
        terms: its objective. Painted pictures are rounded and cut off at 0 and 255 first, as they are written.
        names: of its styles.
        held_out: pictures, larger than `size`.
        size: the side of what is painted, in pixels.

    Returns:
        {style: {"content", "style", "loss", "at_limits"}}: the mean of the two terms and of their sum, and the share of
        values that are 0 or 255. Nothing without pictures.
    """
    rows: dict[str, list] = {name: [] for name in names}
    for x, _ in batches(held_out, (CROPS * size, CROPS * size, 3), Preprocessing(), 1) if len(held_out) else ():
        start = (x.shape[1] - size) // 2
        x = np.asarray(x[:, start : start + size, start : start + size], "float32")
        for which, name in zip(np.eye(len(names), dtype="float32"), names, strict=True):
            painted = pictures.to_uint8(ops.convert_to_numpy(model([x, which[None]], training=False)))
            content, style, *_ = ops.convert_to_numpy(terms([painted.astype("float32"), x, which[None]]))[0]
            rows[name].append((content, style, content + style, np.mean((painted == 0) | (painted == 255))))
    keys = ("content", "style", "loss", "at_limits")
    return {
        name: dict(zip(keys, (float(v) for v in np.mean(found, 0)), strict=True))
        for name, found in rows.items()
        if found
    }


def objective_of(net: Stylenet, config: Mapping[str, Any]) -> tuple[FeatureNetwork, dict[str, dict[str, float]]]:
    """Measure a stylenet again, with the objective and on the held-out pictures of its training.

    Args:
        net: the stylenet, as it is now.
        config: the config.json of its training, whose pictures must be where they were.

    Returns:
        (the loss network, what `measure` gives).
    """
    options = StylenetOptions(**{f.name: config[f.name] for f in fields(StylenetOptions)})
    paintings = [pictures.read_picture(file) for file in config["style"]]
    side = CROPS * options.size
    ready, _ = decode_split(training_pictures(config["images"]), (side, side, 3), Preprocessing())
    network, _ = _loss_network(options, paintings)
    _, held_out = _divided(ready, options.seed)
    return network, measure(net.model, _terms(network, paintings, options), net.styles, held_out, options.size)


def described(row: dict[str, float]) -> str:
    """A row of `measure` as text."""
    return (
        f"loss {row['loss']:.3f} (content {row['content']:.3f}, style {row['style']:.3f}), "
        f"{row['at_limits']:.2%} of the values at 0 or 255."
    )


def _names(files):
    """The names of styles, from their files; KzooError for none and for two of one name."""
    names = [f.stem for f in files]
    if not names:
        raise KzooError("Give at least one style picture.")
    for name in names:
        if names.count(name) > 1:
            raise KzooError(f"Two styles would both be called '{shown(name)}': rename one of the files.")
        if set(name) & set("=,"):
            raise KzooError(f"A style is called as its file, and '{shown(name)}' has a = or a comma: rename the file.")
    return names


def _divided(split, seed):
    """(pictures to train on, held-out pictures)."""
    order = np.random.default_rng([seed, 1]).permutation(len(split))
    n = min(len(split) // HELD_OUT, MOST_HELD_OUT)
    return split.take(np.sort(order[n:])), split.take(np.sort(order[:n]))


def _hash(data):
    from hashlib import sha256

    return sha256(np.ascontiguousarray(data).data if isinstance(data, np.ndarray) else data).hexdigest()[:16]


def _prepare_folder(folder, config, resume):
    """Make the folder; RunError if it holds a training already, or on resume one with other options."""
    if resume:
        before = runs.read_json(folder / runs.CONFIG)
        if before.get(FORMAT) != config[FORMAT]:
            raise RunError(
                f"{folder} holds a stylenet of another version of kzoo, which paints but can't be trained on: train "
                "anew, with another --out."
            )
        wrong = runs.differences(config, before, RESUME_KEYS)
        if wrong:
            raise RunError(f"{folder} can't be resumed with other settings. {'; '.join(wrong)}.")
    elif folder.is_dir() and any(p.name not in (runs.LOCK, runs.CONFIG) for p in folder.iterdir()):
        raise RunError(f"{folder} is not empty: add --resume to go on with what is in it, or choose another --out.")
    make_folder(folder)


class _Watch(keras.callbacks.Callback):
    """Shows each step and stops after Ctrl-C."""

    def __init__(self, interrupted, bar, batch_size):
        super().__init__()
        self.interrupted, self.bar, self.batch_size = interrupted, bar, batch_size

    def on_train_batch_end(self, batch, logs=None):
        if self.interrupted():
            raise Interrupted("")
        self.bar.advance(self.batch_size, loss=logs["loss"], content=logs["content"], style=logs["style"])


def _train(folder, options, terms, styles, ready, *, interrupted, bar):
    """Train from the start or the folder's checkpoint to the last step; the trained network."""
    size, steps, batch = options.size, options.steps, options.batch_size
    model = build_stylenet(
        styles=styles, width=options.width, blocks=options.blocks, precision=options.precision, seed=options.seed
    )
    trainer = _trainer(model, terms, options)
    variables = {f"model/{v.path}": v for v in model.weights}
    variables |= {f"optimizer/{i}": v for i, v in enumerate(trainer.optimizer.variables)}
    history = []
    if (folder / runs.CHECKPOINT).exists():
        arrays, history = runs.load_checkpoint(folder / runs.CHECKPOINT)
        for key, v in variables.items():
            v.assign(arrays[key])
    done = history[-1]["step"] if history else 0
    bar.start("training", steps * batch, done * batch)
    while done < steps:
        # The pictures up to the next checkpoint depend on the seed and the step only: a resumed run gets the same.
        n = min(STEPS_PER_CHECKPOINT, steps - done)
        chosen = np.random.default_rng([options.seed, done]).integers(0, len(ready), n * batch)
        data = batches(ready.take(chosen), (CROPS * size, CROPS * size, 3), Preprocessing(), batch)
        data = data.enumerate().map(random_crops(size, styles, (options.seed, done * batch)))
        began = time.monotonic()
        with without_tensorflow_chatter():
            logs = trainer.fit(data, verbose=0, shuffle=False, callbacks=[_Watch(interrupted, bar, batch)]).history
        row = {"step": done + n, **{k: v[0] for k, v in logs.items()}, "seconds": time.monotonic() - began}
        arrays = {k: np.asarray(v) for k, v in variables.items()}
        if not all(np.isfinite(a.astype("float32")).all() for a in arrays.values()):
            raise RunError(
                f"The loss became NaN or infinite after step {done}: lower the learning rate, "
                "or use --precision float32."
            )
        done, history = done + n, [*history, row]
        runs.save_checkpoint(folder / runs.CHECKPOINT, arrays, history)
        runs.write_csv(folder / runs.HISTORY, history, list(row))
        bar.done(
            f"step {done:,}/{steps:,}: loss {row['loss']:.4f} (content {row['content']:.4f}, style "
            f"{row['style']:.4f}), {n * batch / row['seconds']:.1f} pictures/s"
        )
    return model


def _loss_network(options, paintings):
    """(the loss network, notes for the user)."""
    return style_network(
        options.model,
        options.weights,
        content_layers=options.content_layers,
        style_layers=options.style_layers,
        precision=options.precision,
        seed=options.seed,
        picture=paintings[0].astype("float32") if options.weights == "random" else None,
    )


def _terms(network, paintings, options):
    """The objective, with the style pictures in the size that the options say."""
    styles = []
    for painting in paintings:
        longer = options.style_size * max(painting.shape[:2]) / min(painting.shape[:2])
        styles.append(np.clip(pictures.resized(painting, pictures.fitted(painting.shape, longer)), 0, 255))
    return PerceptualLoss(
        network,
        styles,
        content_weight=options.content_weight,
        style_weight=options.style_weight,
        tv_weight=options.tv_weight,
        range_weight=options.range_weight,
    )


def _trainer(model, terms, options):
    """A compiled model of pictures and their styles to the terms of the loss of what `model` paints."""
    x = keras.Input((options.size, options.size, 3), dtype="float32", name="image")
    which = keras.Input(model.inputs[1].shape[1:], dtype="float32", name="styles")
    trainer = keras.Model([x, which], terms([model([x, which]), x, which]))

    def part(i):
        return keras.metrics.MeanMetricWrapper(lambda _, y: y[:, i], name=TERMS[i])

    trainer.compile(
        # beta_2: the first, large gradients are forgotten after hundreds of steps, not thousands.
        keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(options.learning_rate, options.steps), beta_2=0.99
        ),
        loss=lambda _, y: ops.sum(y, axis=1),
        metrics=[part(0), part(1)],
        jit_compile=keras.backend.backend() != "tensorflow",
    )
    trainer.optimizer.build(trainer.trainable_variables)
    return trainer
