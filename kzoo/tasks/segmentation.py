"""Segmentation: each pixel has one of several classes; a network gives a logit for each class at each pixel.

A mask holds a class number for each pixel, uint8; 255 is a pixel without a label (or, in an answer, without an
answer), which counts nowhere. A network whose output is smaller than its input, such as the U-Net of the paper, answers
for the middle of the picture, and is compared with the middle of the mask.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from kzoo.data.guards import shown
from kzoo.data.masks import IGNORED, MAX_CLASSES, MaskFile
from kzoo.errors import DataError, ExportError, RunError
from kzoo.tasks.task import Evaluation, Task, refuse_probabilities

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from kzoo.catalog import Preprocessing
    from kzoo.data.dataset import DataSet

GAMMA = 2.0  # of the focal loss
MAX_FLIPS = 0.01  # the share of pixels that may get clearly another class in "the same" answer
CLEAR = 0.02  # of the largest logit: what a class is lower by than the best one, to be clearly another one


# --- losses: (masks (B, H, W), logits (B, h, w, C)) to (B,) or () ------------------------------------------------


def central(masks: Any, height: int, width: int) -> Any:
    """Cut the middle out of masks, for a network whose output is smaller than its input.

    Args:
        masks: (B, H, W).
        height, width: of the output.

    Raises:
        RunError: the output is larger than the masks.

    Example:
        >>> central(np.arange(16).reshape(1, 4, 4), 2, 2).tolist()
        [[[5, 6], [9, 10]]]
    """
    tall, wide = masks.shape[1:3]
    if height > tall or width > wide:
        raise RunError(f"The network gives {height} x {width} pixels and the masks have {tall} x {wide}.")
    top, left = (tall - height) // 2, (wide - width) // 2
    return masks[:, top : top + height, left : left + width]


def _compared(y, z):
    """(one-hot targets, log-probabilities, both (B, h, w, C), 1 where a pixel has a label (B, h, w)), float32."""
    from keras import ops

    z = ops.cast(z, "float32")
    y = ops.cast(central(y, *z.shape[1:3]), "int32")
    labelled = ops.cast(y < z.shape[-1], "float32")
    hot = ops.one_hot(ops.where(y < z.shape[-1], y, 0), z.shape[-1], dtype="float32") * labelled[..., None]
    return hot, ops.log_softmax(z, -1), labelled


def _pixel_mean(values, hot, labelled, weights):
    """The mean over the labelled pixels of an image, each with the weight of its class: (B,)."""
    from keras import ops

    if weights is not None:
        values = values * ops.sum(hot * np.asarray(weights, "float32"), -1)
    return ops.sum(values * labelled, (1, 2)) / ops.maximum(ops.sum(labelled, (1, 2)), 1)


def cross_entropy(recipe: Any = None, weights: np.ndarray | None = None) -> Callable:
    """Cross-entropy of masks and logits: the mean over the labelled pixels of an image.

    Args:
        recipe: a `kzoo.training.recipes.Recipe`, which gives label smoothing and must not have a rubbish class.
        weights: of the classes, (C,): what a pixel of the class is multiplied by; None: all by 1.

    Returns:
        A loss: (masks (B, H, W), logits (B, h, w, C)) to (B,); 0 for an image without a labelled pixel.

    Raises:
        RunError: the recipe has a rubbish class.
    """
    _without("cross_entropy", recipe, smoothing=False)
    smoothing = recipe.label_smoothing if recipe else 0.0

    def loss(y, z):
        from keras import ops

        hot, logs, labelled = _compared(y, z)
        target = hot * (1 - smoothing) + smoothing / z.shape[-1] if smoothing else hot
        return _pixel_mean(-ops.sum(target * logs, -1), hot, labelled, weights)

    return loss


def focal(recipe: Any = None, weights: np.ndarray | None = None) -> Callable:
    """Focal loss: cross-entropy times (1 - p)^2, p of the true class, so that easy pixels weigh less.

    Args:
        recipe: as for `cross_entropy`, and it must not smooth labels.
        weights: as for `cross_entropy`.

    Returns:
        As for `cross_entropy`.

    Raises:
        RunError: the recipe does.

    Reference:
        Lin et al. 2017, arXiv:1708.02002, equation 4, with gamma = 2 and without alpha.
    """
    _without("focal", recipe)

    def loss(y, z):
        from keras import ops

        hot, logs, labelled = _compared(y, z)
        own = ops.sum(hot * logs, -1)
        return _pixel_mean(-((1 - ops.exp(own)) ** GAMMA) * own, hot, labelled, weights)

    return loss


def dice(recipe: Any = None, weights: np.ndarray | None = None) -> Callable:
    """Dice loss: 1 - 2 |A and B| / (|A| + |B|), with the probabilities of a class as A and its pixels as B.

    The sums run over all labelled pixels of a batch; the loss is the mean over the classes that occur in its masks.

    Args:
        recipe: as for `focal`.
        weights: of the classes, (C,), in the mean over them; None: all alike.

    Returns:
        A loss: (masks (B, H, W), logits (B, h, w, C)) to ().

    Raises:
        RunError: the recipe smooths labels or has a rubbish class.

    Reference:
        Milletari et al. 2016, arXiv:1606.04797, section 3, for several classes and without the squares.
    """
    _without("dice", recipe)
    return lambda y, z: _overlap(y, z, weights, lambda both, total: 2 * both / total)


def jaccard(recipe: Any = None, weights: np.ndarray | None = None) -> Callable:
    """Jaccard loss, or soft IoU: 1 - |A and B| / |A or B|, else as `dice`.

    Args:
        recipe: as for `dice`.
        weights: as for `dice`.

    Returns:
        As for `dice`.

    Raises:
        RunError: the recipe smooths labels or has a rubbish class.

    Reference:
        Rahman and Wang 2016, Optimizing Intersection-Over-Union, equation 3.
    """
    _without("jaccard", recipe)
    return lambda y, z: _overlap(y, z, weights, lambda both, total: both / (total - both))


def _overlap(y, z, weights, score):
    from keras import ops

    hot, logs, labelled = _compared(y, z)
    p = ops.exp(logs) * labelled[..., None]
    true = ops.sum(hot, (0, 1, 2))
    there = ops.cast(true > 0, "float32")
    if weights is not None:
        there = there * np.asarray(weights, "float32")
    scores = score(ops.sum(hot * p, (0, 1, 2)), ops.maximum(true + ops.sum(p, (0, 1, 2)), 1e-6))
    return ops.sum((1 - scores) * there) / ops.maximum(ops.sum(there), 1e-6)


def _sum(first, second):
    def loss(recipe=None, weights=None):
        a = first(recipe, weights)
        b = second(recipe.changed(label_smoothing=0.0) if recipe else None, weights)  # smoothing is the first one's
        return lambda y, z: a(y, z) + b(y, z)

    return loss


def _without(loss, recipe, smoothing=True):
    wrong = "a rubbish class" if recipe and recipe.rubbish is not None else ""
    if recipe and smoothing and recipe.label_smoothing:
        wrong = f"labels smoothed by {recipe.label_smoothing:g}"
    if wrong:
        raise RunError(
            f"The loss {loss} takes one class for each pixel, and the recipe {recipe.name} has {wrong}: choose a "
            "recipe without, such as lecture_cnn."
        )


# --- figures from a confusion matrix, for NumPy and Keras alike ---------------------------------------------------


def mean_iou(confusion: Any) -> Any:
    """The mean over the classes of |A and B| / |A or B|, without those in neither the masks nor the answers: ().

    Args:
        confusion: pixels (C, C), true classes in rows.
    """
    from keras import ops

    both = ops.diagonal(confusion)
    either = ops.sum(confusion, 0) + ops.sum(confusion, 1) - both
    return ops.sum(both / ops.maximum(either, 1)) / ops.maximum(ops.sum(ops.cast(either > 0, "float32")), 1)


def pixel_accuracy(confusion: Any) -> Any:
    """The share of the labelled pixels whose class is right: (). confusion: as for `mean_iou`."""
    from keras import ops

    return ops.sum(ops.diagonal(confusion)) / ops.maximum(ops.sum(confusion), 1)


def _tracker(figure, name, classes, several):
    """A metric of Keras that counts all pixels of a pass and gives a figure of the confusion matrix."""
    import keras
    from keras import ops

    class Counted(keras.metrics.Metric):
        def __init__(self):
            super().__init__(name=name, dtype="float32")
            self.counts = self.add_variable((classes, classes), "zeros", dtype="float32", name="counts")

        def update_state(self, y, z, sample_weight=None):
            z = z[:, 0] if several else z
            y = ops.cast(central(y, *z.shape[1:3]), "int32")
            # A cell for each pair of classes, and one for the pixels without a label. int32, because sums of ones in
            # float32 end at 2**24.
            cell = ops.where(y < classes, y * classes + ops.cast(ops.argmax(z, -1), "int32"), classes**2)
            cell = ops.reshape(cell, (-1,))
            found = ops.segment_sum(ops.ones_like(cell), cell, num_segments=classes**2 + 1)[:-1]
            self.counts.assign_add(ops.cast(ops.reshape(found, (classes, classes)), "float32"))

        def result(self):
            return figure(self.counts)

    return Counted()


@dataclass
class SegmentationEvaluation(Evaluation):
    """IoU and Dice of each class, from one confusion matrix over all labelled pixels of all images.

    Attributes:
        mean_iou: the mean over the classes that are in the masks or in the answers.
        mean_dice: likewise.
        pixel_accuracy: the share of right pixels.
        per_class: a dict for each class: class, iou, dice (None if it is nowhere), pixels (in the masks).
        confusion: pixels (C, C), true classes in rows; images with outputs that are not finite are left out.
        pixels: the number of labelled pixels.
        not_finite: the number of images with outputs that are not finite; all of their pixels count as wrong.
    """

    mean_iou: float
    mean_dice: float
    pixel_accuracy: float
    per_class: list[dict] = field(repr=False)
    confusion: np.ndarray = field(repr=False)
    pixels: int
    not_finite: int = 0

    def __str__(self):
        names = [shown(c)[:24] for c in self.classes]
        width = max(5, *map(len, names))
        lines = [
            f"{self.run} on {self.data} ({self.split}, {self.images:,} images, {self.pixels:,} labelled pixels): "
            f"mean IoU {self.mean_iou:.2%}, mean Dice {self.mean_dice:.2%}, pixel accuracy {self.pixel_accuracy:.2%}, "
            f"cross-entropy {self.loss:.4f}",
            "",
            f"{'class':{width}}      IoU    Dice          pixels",
        ]
        if self.not_finite:
            lines.insert(1, f"{self.not_finite:,} images have outputs that are NaN or infinite: counted as wrong.")
        for name, row in zip(names, self.per_class, strict=True):
            figures = ["-" if row[k] is None else f"{row[k]:.2%}" for k in ("iou", "dice")]
            lines.append(f"{name:{width}}  {figures[0]:>7} {figures[1]:>7} {row['pixels']:15,}")
        return "\n".join(lines)


def count(outputs: np.ndarray, masks: np.ndarray) -> tuple[np.ndarray, float, int]:
    """Compare logits with masks.

    Args:
        outputs: logits (N, h, w, C).
        masks: uint8 (N, H, W).

    Returns:
        (pixels int64 (C, C + 1), true classes in rows, the last column for images whose outputs are not finite; the
        sum of the cross-entropy over the labelled pixels of the others; the number of images that are not finite).

    Raises:
        RunError: a mask holds a number that is neither a class nor 255.

    Example:
        >>> count(np.array([[[[2.0, 0.0], [0.0, 2.0]]]]), np.array([[[0, 255]]], "uint8"))[0].tolist()
        [[1, 0, 0], [0, 0, 0]]
    """
    classes = outputs.shape[-1]
    y = central(np.asarray(masks), *outputs.shape[1:3]).astype("int64")
    check_numbers(y, classes)
    finite = np.isfinite(outputs).all((1, 2, 3))
    z = np.where(finite[:, None, None, None], outputs, 0)
    predicted = np.where(finite[:, None, None], z.argmax(-1), classes)
    labelled = y != IGNORED
    cells = (y * (classes + 1) + predicted)[labelled]
    pixels = np.bincount(cells, minlength=classes * (classes + 1)).reshape(classes, classes + 1)
    good = labelled & finite[:, None, None]
    rows = z[good].astype("float64")
    highest = rows.max(-1, keepdims=True)
    own = np.take_along_axis(rows - highest, y[good][:, None], 1)[:, 0]
    entropy = float((np.log(np.exp(rows - highest).sum(-1)) - own).sum())
    return pixels, entropy, int((~finite).sum())


def check_numbers(masks: np.ndarray, classes: int) -> None:
    """Raise a RunError if a mask holds a number that is neither a class (below `classes`) nor 255."""
    outside = masks[(masks >= classes) & (masks != IGNORED)]
    if outside.size:
        raise RunError(
            f"A mask holds the number {outside.flat[0]}; there are {classes} classes, so pixels are 0 to {classes - 1}"
            f", or {IGNORED} for those without a label."
        )


def palette() -> np.ndarray:
    """The colours of classes: those of PASCAL VOC, black for class 0.

    Returns:
        uint8 (256, 3); 255, the pixels without a class, are nearly white.

    Example:
        >>> palette()[1:3].tolist()
        [[128, 0, 0], [0, 128, 0]]
    """
    found = np.zeros((256, 3), int)
    numbers = np.arange(256)
    for bit in range(8):  # the lowest three bits of a number are the highest ones of its red, green and blue
        for channel in range(3):
            found[:, channel] |= (numbers >> (3 * bit + channel) & 1) << (7 - bit)
    return found.astype(np.uint8)


class Segmentation(Task):
    """A class for each pixel: softmax over logits. The methods are described in `Task`."""

    name = "segmentation"
    output = "logits"
    ending = "softmax"
    losses = {  # noqa: RUF012  never changed
        "cross_entropy": cross_entropy,
        "focal": focal,
        "dice": dice,
        "jaccard": jaccard,
        "cross_entropy+dice": _sum(cross_entropy, dice),
        "cross_entropy+jaccard": _sum(cross_entropy, jaccard),
        "focal+dice": _sum(focal, dice),
        "focal+jaccard": _sum(focal, jaccard),
    }
    metrics = {"mean_iou": mean_iou, "pixel_accuracy": pixel_accuracy}  # noqa: RUF012
    weighted = True
    judged_by = ("1 - IoU of a picture", "mean IoU", "mean_iou")
    dense = True
    pictures = ("mask",)
    headline_name = "Mean IoU"
    array_example = 'print(out["logits"][0].argmax(-1))  # class numbers, of the size of the network\'s output'
    example = 'print(out["labels"][0], out["shares"][0], tf.io.decode_png(out["mask"][0]).shape, out["error"][0])'

    # --- training ---

    def trackers(self, outputs: int, several: bool = False) -> list[keras.metrics.Metric]:
        return [_tracker(figure, name, outputs, several) for name, figure in self.metrics.items()]

    def outputs(self, classes: Sequence[str]) -> int:
        return len(classes)

    def targets(self, labels: np.ndarray, classes: Sequence[str]) -> np.ndarray:
        return np.asarray(labels, "uint8")

    def head(self, features: keras.KerasTensor, classes: Sequence[str], **options) -> keras.KerasTensor:
        raise RunError("kzoo has no new last layer for segmentation yet: train a network of the task instead.")

    def check_data(self, data: DataSet) -> None:
        if not all(split.masks for split in data.splits.values()):
            raise RunError(
                f"'{data.name}' has one class for each picture; segmentation needs a mask for each, such as a folder "
                "of images/ and masks/, or tfds:NAME#FEATURE."
            )

    def check_outputs(self, network: keras.Model) -> None:
        shape, (height, width) = network.outputs[0].shape, network.inputs[0].shape[1:3]
        if len(shape) != 4 or None in shape[1:] or shape[1] > height or shape[2] > width:
            raise RunError(
                f"{network.name} gives {tuple(shape[1:])} for {height} x {width} pixels; segmentation needs logits "
                "(height, width, classes) of at most the size of the input."
            )

    def check_labels(self, labels: np.ndarray, classes: Sequence[str]) -> None:
        if len(classes) > MAX_CLASSES:
            raise RunError(f"A mask can hold {MAX_CLASSES} classes; there are {len(classes)}.")
        if labels.dtype == object:  # a part that is decoded on the fly; its numbers were checked when it was read
            return
        found = np.zeros(256, bool)
        for mask in labels:
            found[np.unique(mask)] = True
        check_numbers(np.flatnonzero(found), len(classes))
        if not found[: len(classes)].any():
            raise RunError("No pixel of the training masks has a label.")

    def counts(self, labels: np.ndarray, classes: int) -> np.ndarray:
        found = np.zeros(256, "int64")
        for mask in labels:
            found += np.bincount((mask.read() if isinstance(mask, MaskFile) else mask).reshape(-1), minlength=256)
        return found[:classes]

    def shown(self, metric: str, value: float) -> str:
        return f"{value:.2%}"

    def judge(self, batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, float]:
        """(1 - IoU of each picture, the mean over the classes in its mask or its answer; the mean IoU of all)."""
        losses, total = [], np.zeros(1, "int64")
        for outputs, masks in batches:
            for i in range(len(masks)):
                pixels = count(outputs[i : i + 1], masks[i : i + 1])[0]
                losses.append(1 - _ious(pixels)[1])
                total = total + pixels
        return np.array(losses), _ious(total)[1]

    # --- answers ---

    def answer(self, outputs: np.ndarray, classes: Sequence[str], top: int, temperature: float = 1.0) -> list[dict]:
        return [self._top(shares, classes, top) for shares in _shares(outputs)]

    def of_mask(self, mask: np.ndarray, classes: Sequence[str], top: int) -> dict[str, Any]:
        from PIL import Image

        counts = np.bincount(mask.reshape(-1), minlength=len(classes))[: len(classes)]
        answer = self._top(counts / max(counts.sum(), 1), classes, top)
        return {**answer, "mask": base64.b64encode(_png(Image.fromarray(mask))).decode()}

    @staticmethod
    def _top(shares, classes, top):
        order = np.argsort(-shares, kind="stable")[:top]
        return {"top": [{"class": classes[i], "share": float(shares[i])} for i in order if shares[i] > 0]}

    def row_text(self, row: Mapping[str, Any]) -> str:
        return ", ".join(f"{shown(t['class'])} {t['share']:.1%}" for t in row["top"])

    def columns(self, top: int) -> list[str]:
        return [f"{what}_{i + 1}" for i in range(top) for what in ("class", "share")]

    def cells(self, row: Mapping[str, Any], top: int) -> list[str]:
        cells = [x for t in row.get("top", ()) for x in (t["class"], f"{t['share']:.6f}")]
        return [*cells, *[""] * (2 * top - len(cells))]

    def drawn(self, row: Mapping[str, Any], encoded: bytes) -> dict[str, bytes]:
        """The mask with colours, and the picture under it.

        Args:
            row: of `rows`, with "mask".
            encoded: the picture.

        Returns:
            "": a PNG with a palette, whose numbers are the classes; "-overlay": the picture in RGB with the colours of
            the classes over it, except for class 0; not for a picture of other than 1 or 3 channels.
        """
        import tensorflow as tf
        from PIL import Image

        from kzoo.data.images import decode, decoding

        with Image.open(io.BytesIO(base64.b64decode(row["mask"]))) as image:
            numbers = np.asarray(image)
        colours = palette()
        indexed = Image.fromarray(numbers)
        indexed.putpalette(colours.tobytes())
        found = {"": indexed}
        try:
            with decoding():
                picture = decode(tf.constant(encoded), 3).numpy()
        except DataError:
            return {"": _png(indexed)}
        over = ((numbers > 0) & (numbers != IGNORED))[..., None]
        found["-overlay"] = Image.fromarray(np.where(over, picture // 2 + colours[numbers] // 2, picture))
        return {name: _png(image) for name, image in found.items()}

    # --- measuring ---

    def evaluate(self, outputs: np.ndarray, labels: np.ndarray, classes: Sequence[str], **about: str) -> Evaluation:
        return self.evaluate_batches([(outputs, labels)], classes, **about)

    def evaluate_batches(
        self, batches: Iterable[tuple[np.ndarray, np.ndarray]], classes: Sequence[str], **about: str
    ) -> Evaluation:
        pixels, entropy, not_finite, images = np.zeros((len(classes), len(classes) + 1), "int64"), 0.0, 0, 0
        for outputs, masks in batches:
            for i in range(0, len(masks), 4):  # its intermediate results are in float64
                found = count(outputs[i : i + 4], masks[i : i + 4])
                pixels, entropy, not_finite = pixels + found[0], entropy + found[1], not_finite + found[2]
            images += len(masks)
        iou, mean = _ious(pixels)
        both, true = np.diagonal(pixels).astype(float), pixels.sum(1)
        total = true + pixels[:, :-1].sum(0)
        there, dice = total > 0, 2 * both / np.maximum(total, 1)
        answered = int(pixels[:, :-1].sum())
        return SegmentationEvaluation(
            **about,
            classes=tuple(classes),
            images=images,
            loss=entropy / answered if answered else float("nan"),
            mean_iou=mean,
            mean_dice=float(dice[there].mean()) if there.any() else 0.0,
            pixel_accuracy=float(both.sum() / max(pixels.sum(), 1)),
            per_class=[
                {"class": c, "iou": float(i) if t else None, "dice": float(d) if t else None, "pixels": int(n)}
                for c, i, d, t, n in zip(classes, iou, dice, there, true, strict=True)
            ],
            confusion=pixels[:, :-1],
            pixels=int(pixels.sum()),
            not_finite=not_finite,
        )

    def scores(self, outputs: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
        names = [str(i) for i in range(outputs.shape[-1])]
        found = self.evaluate(outputs, labels, names, run="", data="", split="")
        assert isinstance(found, SegmentationEvaluation)
        return {"images": len(labels), "mean_iou": found.mean_iou, "pixel_accuracy": found.pixel_accuracy}

    def described(self, classes: Sequence[str]) -> str:
        more = ", ..." if len(classes) > 10 else ""
        return (
            f"A network for segmentation, {len(classes)} classes for each pixel: {', '.join(classes[:10])}{more}. For "
            "an encoded picture mask is a PNG of its size: the number of the class of each pixel, from the nearest "
            f"pixel of the network's answer, and {IGNORED} outside of the central crop for which it answers."
        )

    def headline(self, scores: Mapping[str, Any]) -> str:
        return f"{scores['mean_iou']:.2%}"

    # --- export ---

    def check_network(self, model: keras.Model, classes: Sequence[str], name: str) -> None:
        refuse_probabilities(model, name)
        shape = model.output_shape
        if len(shape) != 4 or shape[3] != len(classes) or None in shape[1:]:
            raise ExportError(
                f"The output of {name} has the shape {shape}, but there are {len(classes)} class names; segmentation "
                "needs (batch, height, width, classes)."
            )

    def signature(
        self, outputs: tf.Tensor, classes: Sequence[str], *, top: int, temperature: float, threshold: float | None
    ) -> dict[str, tf.Tensor]:
        """The outputs of a SavedModel.

        Args:
            outputs: logits (B, h, w, C).
            classes, top, temperature, threshold: as in `Task.signature`.

        Returns:
            "labels" and "shares" (B, top): the classes with the largest shares of the pixels. "logits" (B, h, w, C).
        """
        import tensorflow as tf

        best = tf.argmax(outputs, -1, output_type=tf.int32)
        hits = [tf.reduce_mean(tf.cast(best == c, tf.float32), (1, 2)) for c in range(len(classes))]
        first = tf.math.top_k(tf.stack(hits, -1), min(top, len(classes)))
        return {
            "labels": tf.gather(tf.constant(list(classes)), first.indices),
            "shares": first.values,
            "logits": outputs,
        }

    def of_pictures(
        self, outputs: tf.Tensor, sizes: tf.Tensor, shape: tuple[int, int, int], preprocessing: Preprocessing
    ) -> dict[str, tf.Tensor]:
        """The masks of pictures: class numbers, {"mask": PNG files (B,)}; see `kzoo.data.images.png_masks`."""
        import tensorflow as tf

        from kzoo.data.images import png_masks

        best = tf.cast(tf.argmax(outputs, -1, output_type=tf.int32), tf.uint8)
        return {"mask": png_masks(best, sizes, shape, preprocessing)}

    def check_signature(self, found: Mapping[str, np.ndarray], expected: np.ndarray, card: Mapping) -> list[tuple]:
        from PIL import Image

        shares = -np.sort(-_shares(found["logits"]), -1)[:, : found["shares"].shape[1]]
        difference = float(np.abs(found["shares"] - shares).max())
        # Where two classes have nearly the same share their order may change.
        number = {name: i for i, name in enumerate(card["classes"])}
        own = [number.get(label.decode(), 0) for label in found["labels"][:, 0]]
        expected_shares = _shares(expected)
        wrong = int((expected_shares.max(-1) - expected_shares[np.arange(len(own)), own] > 2 * MAX_FLIPS).sum())
        strange = 0
        for png, logits in zip(found["mask"], found["logits"], strict=True):
            with Image.open(io.BytesIO(png)) as image:
                strange += not np.isin(np.asarray(image), [*np.unique(logits.argmax(-1)), IGNORED]).all()
        return [
            ("masks", not strange, f"{strange} have other classes" if strange else "of the classes of the logits"),
            ("shares", difference <= 1e-3, f"those of the logits up to {difference:.2g}"),
            ("labels", not wrong, f"{wrong} are wrong" if wrong else "as in the card"),
        ]

    def same(self, outputs: np.ndarray, expected: np.ndarray) -> np.ndarray:
        """Whether at most one pixel in a hundred (but one in any case) has clearly another class, bool (N,).

        Clearly: its new class was lower than the best one by more than 2 % of the largest logit. At the edge between
        two classes rounding decides.
        """
        own = np.take_along_axis(expected, outputs.argmax(-1)[..., None], -1)[..., 0]
        flips = (expected.max(-1) - own > CLEAR * np.abs(expected).max()).sum((1, 2))
        return flips <= max(1, MAX_FLIPS * expected[0, ..., 0].size)

    def certainty(self, outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        ordered = np.sort(outputs, -1)
        margin = ordered[..., -1] - ordered[..., -2] if outputs.shape[-1] > 1 else ordered[..., -1]
        return _shares(outputs).argmax(-1), margin.mean((1, 2))


def _ious(pixels):
    """(IoU of each class (C,); the mean over those in the masks or the answers) of `count`'s pixels."""
    both = np.diagonal(pixels)
    either = pixels.sum(1) + pixels[:, :-1].sum(0) - both
    iou = both / np.maximum(either, 1)
    return iou, float(iou[either > 0].mean()) if (either > 0).any() else 0.0


def _png(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def _shares(outputs):
    """The share of the pixels of each class (N, C)."""
    best = outputs.argmax(-1)
    return np.stack([(best == c).mean((1, 2)) for c in range(outputs.shape[-1])], -1)


TASK = Segmentation()
