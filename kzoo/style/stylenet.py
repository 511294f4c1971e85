"""A network that paints one style in one pass (Johnson, Alahi and Fei-Fei 2016, arXiv:1603.08155), trained and used."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path

import keras
import numpy as np
from keras import layers, ops

from kzoo import runs
from kzoo.builder import computing_in
from kzoo.catalog import Preprocessing
from kzoo.data.batches import batches, decode_split
from kzoo.data.dataset import Split, report_skipped
from kzoo.data.images import fault, shown
from kzoo.data.listing import files_below
from kzoo.errors import DataError, KzooError, RunError
from kzoo.files import make_folder
from kzoo.hardware import auto_precision, describe
from kzoo.interrupt import Interrupted, interruptible
from kzoo.models.stylenet import stylenet
from kzoo.progress import progress, say
from kzoo.style.network import model_of, style_network
from kzoo.style.settings import StylenetOptions
from kzoo.synthesis import losses, pictures
from kzoo.synthesis.memory import available_memory
from kzoo.synthesis.network import FeatureNetwork
from kzoo.weights import fetch, resolve

# What must be the same where a training is resumed.
RESUME_KEYS = (*(f.name for f in fields(StylenetOptions)), "style_sha256", "images_sha256")
STEPS_PER_CHECKPOINT = 50


def build_stylenet(*, width: int = 32, blocks: int = 5, precision: str = "float32", seed: int = 0) -> keras.Model:
    """Build the untrained network.

    Args:
        width: filters of the first convolution.
        blocks: residual blocks.
        precision: what it computes in, "float32", "bfloat16" or "float16".
        seed: of the initial weights; Keras' global seed is set to it.

    Returns:
        A model of pictures (B, H, W, 3) in 0..255 to such pictures, of any size in multiples of 4.

    Example:
        >>> build_stylenet(width=4, blocks=1).count_params()
        9651
    """
    keras.utils.set_random_seed(seed)
    with computing_in(precision):
        x = keras.Input((None, None, 3), dtype="float32", name="image")
        return keras.Model(x, stylenet(x, width=width, blocks=blocks), name="stylenet")


# --- The loss ---------------------------------------------------------------------------------------


class PerceptualLoss(layers.Layer):
    """The loss of painted pictures, its three terms for each: content, style and total variation.

    The terms are alpha |F - P|^2 / |P|^2, the mean over content layers; beta |G - A|^2 / |A|^2, the mean over style
    layers; and gamma times the sum of the squared differences between neighbouring pixels.

    Call it with [painted, content], each (B, H, W, 3) in 0..255; it gives (B, 3) float32.

    Args:
        network: the loss network.
        style: the style picture, (1, h, w, 3) in 0..255.
        content_weight, style_weight, tv_weight: alpha, beta and gamma.

    Reference:
        Johnson, Alahi and Fei-Fei 2016, section 3.2. Departure: content and style terms are relative to their targets,
        so that the weights mean the same for every network.
    """

    def __init__(
        self,
        network: FeatureNetwork,
        style: np.ndarray,
        *,
        content_weight: float,
        style_weight: float,
        tv_weight: float,
        **kwargs,
    ):
        super().__init__(trainable=False, dtype="float32", **kwargs)
        self.network, self.features = network, network.model
        self.weights_of_terms = content_weight, style_weight, tv_weight
        found = network.named(network.model(ops.convert_to_tensor(style), training=False))
        self.targets = {n: ops.convert_to_numpy(mean_grams(found[n])[0]) for n in network.style}

    def call(self, inputs):
        painted, content = inputs
        alpha, beta, tv = self.weights_of_terms
        names = self.network.content
        ours = self.network.named(self.features(painted, training=False))
        theirs = self.network.named(self.features(content, training=False))

        def summed(x):
            return ops.sum(ops.square(x), axis=tuple(range(1, len(x.shape))))

        full = losses.at_least_float32
        kept = sum(summed(full(ours[n]) - full(theirs[n])) / (summed(full(theirs[n])) + 1e-6) for n in names)
        style = sum(summed(mean_grams(ours[n]) - a) / np.sum(a**2) for n, a in self.targets.items())
        rough = summed(painted[:, 1:] - painted[:, :-1]) + summed(painted[:, :, 1:] - painted[:, :, :-1])
        return ops.stack([alpha * kept / len(names), beta * style / len(self.targets), tv * rough], axis=1)


def mean_grams(features: keras.KerasTensor) -> keras.KerasTensor:
    """G / M, the Gram matrix of each picture divided by its number of positions: (B, H, W, N) to (B, N, N) float32."""
    f = losses.at_least_float32(features)
    b, h, w, n = ops.shape(f)
    f = ops.reshape(f, (b, h * w, n))
    return ops.matmul(ops.transpose(f, (0, 2, 1)), f) / ops.cast(h * w, "float32")


# --- Training --------------------------------------------------------------------------------------------


def train_stylenet(
    style: str | os.PathLike,
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
    style_weight: float = 10.0,
    tv_weight: float = 1e-8,
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
    """Train a network that paints any picture in one style, in one pass.

    Args:
        style: the style picture, a path.
        images: a folder of pictures to train on, with its subfolders; any pictures will do, the more the better.
        out: the folder to write; None: stylenets/STYLE.
        size: the side of the training pictures in pixels, a multiple of 4 and at least 64.
        style_size: the shorter side of the style picture in pixels, at least 64; None: twice `size`, or the picture's
            own if that is less.
        steps: of the optimiser; the paper took 40,000.
        batch_size: pictures in a step.
        width: filters of the first convolution.
        blocks: residual blocks.
        content_weight, style_weight, tv_weight: of the terms of `kzoo.style.stylenet.PerceptualLoss`; more
            style_weight is more style.
        learning_rate: Adam's, falling to 0 along a cosine.
        model, weights, content_layers, style_layers: the loss network, as in `kzoo.stylize`.
        seed: of the initial weights and of the order and the crops of the pictures.
        precision: "float32", "bfloat16", "float16", or "auto" (or None): what this machine is fast in.
        resume: continue after a kill or Ctrl-C; at most 50 steps are lost.
        quiet: no progress and no messages.

    Returns:
        The folder, with config.json, model.keras, history.csv, the checkpoint and, unless the pictures are too many to
        be kept in memory, example.png.

    Raises:
        KzooError: pictures that can't be read, options that can't be used or differ on resume, a loss that is NaN.

    Reference:
        Johnson, Alahi and Fei-Fei 2016 (arXiv:1603.08155). Departures: see `kzoo.models.stylenet.stylenet` and
        `PerceptualLoss`.
    """
    given = locals()
    options = StylenetOptions(**{f.name: given[f.name] for f in fields(StylenetOptions)})
    folder = Path(out or Path("stylenets") / Path(style).stem)
    painting = pictures.read_picture(style)
    if options.style_size is None:
        options = replace(options, style_size=max(64, min(2 * options.size, *painting.shape[:2])))
    split = training_pictures(images)
    why = "as asked"
    if options.precision == "auto":
        chosen, why = auto_precision()
        options = replace(options, precision=chosen)
    options = replace(options, model=model_of(options.model, options.weights))
    config = {
        **asdict(options),
        "style": str(style),
        "style_sha256": _hash(painting),
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
        if not quiet:
            say(
                f"Training on {len(split):,} pictures of {size}x{size} for the style {Path(style).name}, {steps:,} "
                f"steps of {batch_size}; computing in {options.precision}: {why}."
            )
        with progress("pictures", quiet) as bar:
            bar.start("reading", len(split))
            ready, skipped = decode_split(split, (2 * size, 2 * size, 3), Preprocessing(), bar.advance)
        if skipped:
            say(f"Left out {report_skipped(skipped)}.")
        if not len(ready):
            raise DataError(f"No picture in {images} can be decoded.")
        network, notes = style_network(
            options.model,
            options.weights,
            content_layers=options.content_layers,
            style_layers=options.style_layers,
            precision=options.precision,
            seed=options.seed,
            picture=painting.astype("float32") if options.weights == "random" else None,
        )
        if not quiet:
            for note in notes:
                say(note)
        with interruptible("the training so far is kept, and --resume continues from there") as interrupted:
            with progress("pictures", quiet) as bar:
                model = _train(folder, options, network, painting, ready, interrupted=interrupted, bar=bar)
            runs.save_model(model, folder / runs.MODEL)
            if not ready.files:  # the pictures are in memory
                example = np.asarray(ready.take(np.array([0])).images[0], "uint8")
                pictures.side_by_side(folder / "example.png", [example, painting, paint(model, example)])
    return folder


def training_pictures(folder: str | os.PathLike) -> Split:
    """A Split of all image files below a folder, with labels 0; DataError if there is none."""
    if not Path(folder).is_dir():
        raise DataError(f"There is no folder '{folder}' with pictures to train on.")
    paths = [str(p) for p in files_below(folder) if fault(p) is None]
    if not paths:
        raise DataError(f"{shown(folder)} holds no JPEG, PNG, GIF, BMP or WebP image.")
    return Split(paths, np.zeros(len(paths), "int64"), [str(Path(p).relative_to(folder)) for p in paths])


def random_crops(size: int, seed: tuple[int, int]) -> Callable:
    """A function for `tf.data.Dataset.map` that crops the pictures of enumerated batches.

    Args:
        size: the side of a crop in pixels.
        seed: (seed, number of the data's first picture). A crop depends on the seed and the picture's number only.

    Returns:
        A function of (i, (x, y)), x being the i-th batch (B, H, W, 3), that gives (crops (B, size, size, 3), y).
    """
    import tensorflow as tf

    def crop(i, batch):
        x, y = batch
        numbers = tf.cast(i, tf.int32) * tf.shape(x)[0] + tf.range(tf.shape(x)[0]) + seed[1]

        def one(pair):
            return tf.image.stateless_random_crop(pair[0], (size, size, 3), (seed[0], pair[1]))

        return tf.map_fn(one, (x, numbers), fn_output_signature=tf.TensorSpec((size, size, 3), x.dtype)), y

    return crop


def _hash(data):
    from hashlib import sha256

    return sha256(np.ascontiguousarray(data).data if isinstance(data, np.ndarray) else data).hexdigest()[:16]


def _prepare_folder(folder, config, resume):
    """Make the folder; RunError if it holds a training already, or on resume one with other options."""
    if resume:
        before = runs.read_json(folder / runs.CONFIG)
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


def _train(folder, options, network, painting, ready, *, interrupted, bar):
    """Train from the start or the folder's checkpoint to the last step; the trained network."""
    size, steps, batch = options.size, options.steps, options.batch_size
    model = build_stylenet(width=options.width, blocks=options.blocks, precision=options.precision, seed=options.seed)
    trainer = _trainer(model, network, painting, options)
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
        data = batches(ready.take(chosen), (2 * size, 2 * size, 3), Preprocessing(), batch)
        data = data.enumerate().map(random_crops(size, (options.seed, done * batch)))
        began = time.monotonic()
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


def _trainer(model, network, painting, options):
    """A compiled model of pictures to the terms of the loss of what `model` paints."""
    longer = options.style_size * max(painting.shape[:2]) / min(painting.shape[:2])
    style = pictures.resized(painting, pictures.fitted(painting.shape, longer))
    terms = PerceptualLoss(
        network,
        np.clip(style, 0, 255)[None],
        content_weight=options.content_weight,
        style_weight=options.style_weight,
        tv_weight=options.tv_weight,
    )
    x = keras.Input((options.size, options.size, 3), dtype="float32", name="image")
    trainer = keras.Model(x, terms([model(x), x]))

    def part(i, name):
        return keras.metrics.MeanMetricWrapper(lambda _, y: y[:, i], name=name)

    trainer.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(options.learning_rate, options.steps)),
        loss=lambda _, y: ops.sum(y, axis=1),
        metrics=[part(0, "content"), part(1, "style")],
        jit_compile=keras.backend.backend() != "tensorflow",
    )
    trainer.optimizer.build(trainer.trainable_variables)
    return trainer


# --- Painting -------------------------------------------------------------------------------------------------


def load_stylenet(path: str | os.PathLike) -> keras.Model:
    """Read the model of a folder that `train_stylenet` wrote; RunError for a damaged or foreign one."""
    model = runs.read_model(Path(path) / runs.MODEL)
    if model.name != "stylenet":
        raise RunError(f"{path} holds {model.name}, not a stylenet: kzoo stylenet train writes one.")
    return model


def paint(model: keras.Model, picture: np.ndarray) -> np.ndarray:
    """Paint one picture.

    Args:
        model: a trained stylenet.
        picture: (H, W, 3) uint8; it is padded by reflection to multiples of 4 and cut back.

    Returns:
        (H, W, 3) uint8.
    """
    h, w = picture.shape[:2]
    x = np.pad(picture, ((0, -h % 4), (0, -w % 4), (0, 0)), mode="reflect").astype("float32")[None]
    y = ops.convert_to_numpy(model(x, training=False))
    return pictures.to_uint8(y[0, :h, :w])


def apply_stylenet(
    net: str | os.PathLike,
    images: Sequence[str | os.PathLike],
    *,
    out: str | os.PathLike | None = None,
    size: int | None = None,
    force: bool = False,
    quiet: bool = False,
) -> list[Path]:
    """Paint pictures with a trained stylenet, one pass each.

    Memory grows with the pixels of a picture: it is computed in one piece, as instance norms depend on all of it.

    Args:
        net: a folder that `train_stylenet` wrote.
        images: paths; a folder stands for its pictures.
        out: the folder for PNGs of the same names, made if need be; None: NET-painted.
        size: the longer side in pixels; None: as it is.
        force: replace pictures that exist.
        quiet: no progress.

    Returns:
        The paths written.

    Raises:
        DataError: some pictures can't be painted. Each is named and the others are painted first; the error says how
            many there were, and has the paths written as `results`.
        KzooError: two pictures would have one result, one exists already, or the folder holds no stylenet.
    """
    model = load_stylenet(net)
    files = [p for i in images for p in (pictures.picture_files(i) if Path(i).is_dir() else [Path(i)])]
    folder = Path(out or f"{Path(net).name}-painted")
    (twice, n), *_ = Counter(p.stem for p in files).most_common(1) or [("", 0)]
    if n > 1:
        raise KzooError(f"Two pictures would both become {shown(folder / twice)}.png: rename one.")
    there = next((p for f in files if os.path.lexists(p := folder / f"{f.stem}.png")), None)
    if there and not force and there.resolve() not in {f.resolve() for f in files}:
        raise KzooError(f"{shown(there)} exists: --force (force=True) replaces it, or give another --out.")
    make_folder(folder)
    width = model.get_layer("conv1").filters
    written, bad = [], []
    with progress("pictures", quiet) as bar:
        bar.start("painting", len(files))
        for file in files:
            target = folder / f"{file.stem}.png"
            try:
                if target.resolve() == file.resolve():
                    raise DataError(f"{shown(file)} would be overwritten by its result: give another folder.")
                picture = pictures.read_picture(file)
                if size:
                    picture = pictures.to_uint8(pictures.resized(picture, pictures.fitted(picture.shape, size)))
                    pictures.checked(picture, shown(file))
                need, free = picture.shape[0] * picture.shape[1] * width * 24, available_memory()
                if free is not None and need > free:
                    raise DataError(
                        f"{shown(file)} needs about {need / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB "
                        "are free: give a --size."
                    )
                pictures.write_picture(target, paint(model, picture), {"settings": {}, "stylenet": str(net)})
                written.append(target)
            except DataError as e:
                bad.append(file)
                say(str(e))
            bar.advance(1)
    if bad:
        raise pictures.failed_pictures(bad, files, written)
    return written
