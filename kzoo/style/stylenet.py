"""A network that paints one style in one pass (Johnson, Alahi and Fei-Fei 2016, arXiv:1603.08155), trained and used."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import keras
import numpy as np
from keras import layers, ops

from kzoo import runs
from kzoo.builder import computing_in
from kzoo.catalog import Preprocessing
from kzoo.data.batches import batches, decode_split
from kzoo.data.dataset import Split, report_skipped
from kzoo.data.images import shown
from kzoo.errors import DataError, KzooError, RunError
from kzoo.files import make_folder
from kzoo.hardware import auto_precision, describe
from kzoo.interrupt import Interrupted, interruptible
from kzoo.models.stylenet import stylenet
from kzoo.progress import progress, say
from kzoo.synthesis import losses, pictures
from kzoo.synthesis.network import model_of, network
from kzoo.weights import fetch, resolve

SAME = (
    "model",
    "weights",
    "content_layers",
    "style_layers",
    "style_sha256",
    "images_sha256",
    "size",
    "style_size",
    "width",
    "blocks",
    "steps",
    "batch_size",
    "content_weight",
    "style_weight",
    "tv_weight",
    "learning_rate",
    "seed",
    "precision",
)
ROUND = 50  # steps between checkpoints


def build_stylenet(*, width=32, blocks=5, precision="float32", seed=0):
    """The untrained network as a keras.Model for pictures of any size in multiples of 4.

    >>> build_stylenet(width=4, blocks=1).count_params()
    9651
    """
    keras.utils.set_random_seed(seed)
    with computing_in(precision):
        x = keras.Input((None, None, 3), dtype="float32", name="image")
        return keras.Model(x, stylenet(x, width=width, blocks=blocks), name="stylenet")


# --- The objective ---------------------------------------------------------------------------------------


class Perceptual(layers.Layer):
    """(B, 3): alpha |F - P|^2 / |P|^2, beta sum_l w_l |G - A|^2 / |A|^2 and tv sum of squares, for each of B pictures.

    Call it with [painted, content], each (B, H, W, 3) in 0..255. net: a kzoo.style Network; style: (1, h, w, 3).
    """

    def __init__(self, net, style, content_weight, style_weight, tv_weight, **kwargs):
        super().__init__(trainable=False, dtype="float32", **kwargs)
        self.net, self.features = net, net.model
        self.weights_of_terms = content_weight, style_weight, tv_weight
        found = net.named(net.model(ops.convert_to_tensor(style), training=False))
        self.targets = {n: ops.convert_to_numpy(grams(found[n])[0]) for n in net.style}

    def call(self, inputs):
        painted, content = inputs
        alpha, beta, tv = self.weights_of_terms
        ours = self.net.named(self.features(painted, training=False))
        theirs = self.net.named(self.features(content, training=False))

        def summed(x):
            return ops.sum(ops.square(x), axis=tuple(range(1, len(x.shape))))

        full = losses.at_least_float32
        kept = sum(summed(full(ours[n]) - full(theirs[n])) / (summed(full(theirs[n])) + 1e-6) for n in self.net.content)
        style = sum(summed(grams(ours[n]) - a) / np.sum(a**2) for n, a in self.targets.items())
        rough = summed(painted[:, 1:] - painted[:, :-1]) + summed(painted[:, :, 1:] - painted[:, :, :-1])
        return ops.stack([alpha * kept / len(self.net.content), beta * style / len(self.targets), tv * rough], axis=1)


def grams(features):
    """G / M of each picture: (B, N, N) from (B, H, W, N), in float32."""
    f = losses.at_least_float32(features)
    b, h, w, n = ops.shape(f)
    f = ops.reshape(f, (b, h * w, n))
    return ops.matmul(ops.transpose(f, (0, 2, 1)), f) / ops.cast(h * w, "float32")


# --- Training --------------------------------------------------------------------------------------------


def train_stylenet(
    style,
    images,
    *,
    out=None,
    size=256,
    style_size=None,
    steps=2000,
    batch_size=4,
    width=32,
    blocks=5,
    content_weight=1.0,
    style_weight=10.0,
    tv_weight=1e-8,
    learning_rate=1e-3,
    model="vgg19",
    weights="imagenet",
    content_layers=None,
    style_layers=None,
    seed=0,
    precision=None,
    resume=False,
    quiet=False,
):
    """Train a network that paints any picture in one style, in one pass.

    style: a path. images: a folder of pictures to learn on (its subfolders too); any will do, the more the better.
    out: the folder to write; stylenets/STYLE by default. size: side of the training pictures, in pixels.
    steps, batch_size, learning_rate: of Adam. width, blocks: of the network.
    content_weight, style_weight, tv_weight: of the terms of `Perceptual`; more style_weight is more style.
    model, weights, content_layers, style_layers: the network that looks at the pictures, as in `kzoo.stylize`.
    seed, precision: as in `kzoo.train`. resume: go on after a kill or Ctrl-C; at most 50 steps are lost.

    Leaves config.json, model.keras, history.csv, the checkpoint and, unless the pictures are too many to be kept
    prepared, example.png. Returns the folder.
    Raises KzooError: pictures that can't be read, settings that differ on resume, a loss that is NaN.
    """
    for name, value in (("size", size), ("steps", steps), ("batch_size", batch_size), ("width", width)):
        if not isinstance(value, int) or value < 1:
            raise KzooError(f"{name} must be a whole number of at least 1, got {value!r}.")
    if size < 64 or size % 4:
        raise KzooError(f"size must be a multiple of 4 and at least 64, got {size}.")
    folder = Path(out or Path("stylenets") / Path(style).stem)
    painting = pictures.read(style)
    style_size = max(64, min(2 * size, *painting.shape[:2])) if style_size is None else style_size
    if not isinstance(style_size, int) or style_size < 64:
        raise KzooError(f"style_size must be a whole number of at least 64, got {style_size!r}.")
    split = photos(images)
    why = "as asked"
    if precision in (None, "auto"):
        precision, why = auto_precision()
    model = model_of(model, str(weights))
    settings = {
        "model": model,
        "weights": str(weights),
        "content_layers": content_layers and list(content_layers),
        "style_layers": style_layers and list(style_layers),
        "style": str(style),
        "style_sha256": _hash(painting),
        "images": str(images),
        "images_sha256": _hash("\n".join(split.ids).encode()),
        "size": size,
        "style_size": style_size,
        "width": width,
        "blocks": blocks,
        "steps": steps,
        "batch_size": batch_size,
        "content_weight": content_weight,
        "style_weight": style_weight,
        "tv_weight": tv_weight,
        "learning_rate": learning_rate,
        "seed": seed,
        "precision": precision,
        "hardware": describe(),
        "versions": runs.versions(),
        "command": runs.command("train_stylenet"),
    }
    if weights != "random":
        # Before anything is written: what is not there is told at once.
        fetch(resolve(model, weights), progress=False if quiet else None)
    _claim(folder, settings, resume)
    with runs.locked(folder):
        if not resume:
            runs.write_json(folder / runs.CONFIG, settings)
        if not quiet:
            say(
                f"Learning {Path(style).name} on {len(split):,} pictures of {size}x{size}, {steps:,} steps of "
                f"{batch_size}; computing in {precision}: {why}."
            )
        with progress("pictures", quiet) as bar:
            bar.start("reading", len(split))
            ready, skipped = decode_split(split, (2 * size, 2 * size, 3), Preprocessing(), bar.advance)
        if skipped:
            say(f"Left out {report_skipped(skipped)}.")
        if not len(ready):
            raise DataError(f"No picture in {images} can be decoded.")
        net = network(
            model,
            weights,
            content_layers=content_layers,
            style_layers=style_layers,
            precision=precision,
            seed=seed,
            picture=painting.astype("float32") if weights == "random" else None,
        )
        if not quiet:
            for note in net.notes:
                say(note)
        with interruptible("what was learnt is kept, and --resume goes on from there") as interrupted:
            _learn(folder, settings, net, painting, ready, interrupted, quiet)
    return folder


def photos(folder):
    """A Split of all image files below a folder; labels are 0."""
    from kzoo.data.images import fault
    from kzoo.data.sources.folder import files_below

    if not Path(folder).is_dir():
        raise DataError(f"There is no folder '{folder}' with pictures to learn on.")
    paths = [str(p) for p in files_below(Path(folder), set()) if fault(p) is None]
    if not paths:
        raise DataError(f"{shown(folder)} holds no JPEG, PNG, GIF, BMP or WebP image.")
    return Split(paths, np.zeros(len(paths), "int64"), [str(Path(p).relative_to(folder)) for p in paths])


def pieces(size, seed):
    """A function for enumerated batches: of each picture a piece of size x size, where the seed and its number say."""
    import tensorflow as tf

    def cut(i, batch):
        x, y = batch
        numbers = tf.cast(i, tf.int32) * tf.shape(x)[0] + tf.range(tf.shape(x)[0]) + seed[1]

        def one(pair):
            return tf.image.stateless_random_crop(pair[0], (size, size, 3), (seed[0], pair[1]))

        return tf.map_fn(one, (x, numbers), fn_output_signature=tf.TensorSpec((size, size, 3), x.dtype)), y

    return cut


def _hash(data):
    from hashlib import sha256

    return sha256(np.ascontiguousarray(data).data if isinstance(data, np.ndarray) else data).hexdigest()[:16]


def _claim(folder, settings, resume):
    if resume:
        before = runs.read_json(folder / runs.CONFIG)
        wrong = runs.differences(settings, before, SAME)
        if wrong:
            raise RunError(f"{folder} can't be resumed with other settings. {'; '.join(wrong)}.")
    elif folder.is_dir() and any(p.name not in (runs.LOCK, runs.CONFIG) for p in folder.iterdir()):
        raise RunError(f"{folder} is not empty: add --resume to go on with what is in it, or choose another --out.")
    make_folder(folder)


def _learn(folder, settings, net, painting, ready, interrupted, quiet):
    size, steps, batch = settings["size"], settings["steps"], settings["batch_size"]
    student = build_stylenet(
        width=settings["width"], blocks=settings["blocks"], precision=settings["precision"], seed=settings["seed"]
    )
    longer = settings["style_size"] * max(painting.shape[:2]) / min(painting.shape[:2])
    fitted = pictures.resized(painting, pictures.fitted(painting.shape, longer))
    weights = (settings[f"{k}_weight"] for k in ("content", "style", "tv"))
    terms = Perceptual(net, np.clip(fitted, 0, 255)[None], *weights)
    x = keras.Input((size, size, 3), dtype="float32", name="image")
    trainer = keras.Model(x, terms([student(x), x]))

    def part(i, name):
        return keras.metrics.MeanMetricWrapper(lambda _, y: y[:, i], name=name)

    trainer.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(settings["learning_rate"], steps)),
        loss=lambda _, y: ops.sum(y, axis=1),
        metrics=[part(0, "content"), part(1, "style")],
        jit_compile=keras.backend.backend() != "tensorflow",
    )
    trainer.optimizer.build(trainer.trainable_variables)
    variables = {f"model/{v.path}": v for v in student.weights}
    variables |= {f"optimizer/{i}": v for i, v in enumerate(trainer.optimizer.variables)}
    history = []
    if (folder / runs.CHECKPOINT).exists():
        arrays, history = runs.load_checkpoint(folder / runs.CHECKPOINT)
        for key, v in variables.items():
            v.assign(arrays[key])
    with progress("pictures", quiet) as bar:
        done = history[-1]["step"] if history else 0
        bar.start("learning", steps * batch, done * batch)
        while done < steps:
            # The pictures of a round depend on the seed and its first step only, so a resumed run sees the same.
            n = min(ROUND, steps - done)
            chosen = np.random.default_rng([settings["seed"], done]).integers(0, len(ready), n * batch)
            data = batches(ready.take(chosen), (2 * size, 2 * size, 3), Preprocessing(), batch)
            data = data.enumerate().map(pieces(size, (settings["seed"], done * batch)))
            began, count = time.monotonic(), done * batch

            class Watch(keras.callbacks.Callback):
                def on_train_batch_end(self, i, logs=None):
                    if interrupted():
                        raise Interrupted("")
                    bar.advance(batch, loss=logs["loss"], content=logs["content"], style=logs["style"])

            logs = trainer.fit(data, verbose=0, shuffle=False, callbacks=[Watch()]).history
            row = {"step": done + n, **{k: v[0] for k, v in logs.items()}, "seconds": time.monotonic() - began}
            arrays = {k: ops.convert_to_numpy(v) for k, v in variables.items()}
            if not all(np.isfinite(a.astype("float32")).all() for a in arrays.values()):
                raise RunError(
                    f"The loss became NaN or infinite after step {count // batch}: lower the learning rate, "
                    "or use --precision float32."
                )
            done, history = done + n, [*history, row]
            runs.save_checkpoint(folder / runs.CHECKPOINT, arrays, history)
            runs.write_csv(folder / runs.HISTORY, history, list(row))
            bar.done(
                f"step {done:,}/{steps:,}: loss {row['loss']:.4f} (content {row['content']:.4f}, style "
                f"{row['style']:.4f}), {n * batch / row['seconds']:.1f} pictures/s"
            )
    runs.save_model(student, folder / runs.MODEL)
    examples = [np.asarray(x, "uint8") for x in ready.take([0]).images] if not ready.files else []
    if examples:
        painted = paint(student, examples[0])
        pictures.side_by_side(folder / "example.png", [examples[0], painting, painted])


# --- Use -------------------------------------------------------------------------------------------------


def load_stylenet(path):
    """The keras.Model of a folder that `train_stylenet` wrote; RunError for a damaged or foreign one."""
    model = runs.read_model(Path(path) / runs.MODEL)
    if model.name != "stylenet":
        raise RunError(f"{path} holds {model.name}, no stylenet: kzoo stylenet train writes one.")
    return model


def paint(model, picture):
    """(H, W, 3) uint8 to (H, W, 3) uint8: padded by reflection to multiples of 4 and cut back."""
    h, w = picture.shape[:2]
    x = np.pad(picture, ((0, -h % 4), (0, -w % 4), (0, 0)), mode="reflect").astype("float32")[None]
    y = ops.convert_to_numpy(model(x, training=False))
    return pictures.as_uint8(y[0, :h, :w])


def apply_stylenet(net, images, *, out=None, size=None, quiet=False):
    """Paint pictures by a trained stylenet, one pass each.

    net: a folder that `train_stylenet` wrote. images: paths; a folder stands for its pictures. out: the folder for
    PNGs of the same names (NET's name by default), made if need be. size: the longer side; as it is by default.

    Returns the paths written. Pictures that can't be read are named and the others painted; DataError at the end says
    how many there were, and has the paths written as `results`. Memory grows with the pixels of one picture: the whole
    picture decides its instance norms.
    """
    from kzoo.synthesis.memory import available

    model = load_stylenet(net)
    files = [p for i in images for p in (pictures.listed(i) if Path(i).is_dir() else [Path(i)])]
    folder = Path(out or f"{Path(net).name}-painted")
    (twice, n), *_ = Counter(p.stem for p in files).most_common(1) or [("", 0)]
    if n > 1:
        raise KzooError(f"Two pictures would both become {shown(folder / twice)}.png: rename one.")
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
                picture = pictures.read(file)
                if size:
                    picture = pictures.as_uint8(pictures.resized(picture, pictures.fitted(picture.shape, size)))
                    pictures.checked(picture, shown(file))
                need, free = picture.shape[0] * picture.shape[1] * width * 24, available()
                if free is not None and need > free:
                    raise DataError(
                        f"{shown(file)} needs about {need / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB "
                        "are free: give a --size."
                    )
                pictures.write(target, paint(model, picture), {"settings": {}, "stylenet": str(net)})
                written.append(target)
            except DataError as e:
                bad.append(file)
                say(str(e))
            bar.advance(1)
    if bad:
        raise pictures.unpainted(bad, files, written)
    return written
