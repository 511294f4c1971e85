"""The registry: one row per model. Standard library only."""

from __future__ import annotations

from fnmatch import fnmatchcase

from kzoo.errors import KzooError, unknown
from kzoo.spec import ModelSpec, Paper, Preprocessing

_rows: dict[str, ModelSpec] = {}


def register(row, *, replace=False):
    """Add a row to the catalog; it then works by name in every function and command of this process.

    Raises KzooError if the name is taken (unless replace) or is no plain lower-case identifier.

    >>> from kzoo.spec import ModelSpec, Paper
    >>> row = ModelSpec("my_net", "my_package.nets:my_net", (32, 32, 3), 10, Paper("None yet", "I", 2026))
    >>> register(row).name
    'my_net'
    """
    if not isinstance(row, ModelSpec):
        raise KzooError(f"register() takes a kzoo.ModelSpec, got {type(row).__name__}.")
    if not (row.name.isidentifier() and row.name == row.name.lower()):
        raise KzooError(f"A model's name is lower-case letters, digits and _; got '{row.name}'.")
    if row.name in _rows and not replace:
        raise KzooError(f"A model named '{row.name}' is registered already; pass replace=True to replace it.")
    _rows[row.name] = row
    return row


def list_models(pattern="*"):
    """Names of the models that match a shell pattern, in the catalog's order.

    >>> list_models("vgg*")
    ['vgg11', 'vgg13', 'vgg16', 'vgg19']
    """
    return [name for name in _rows if fnmatchcase(name, pattern)]


def spec(name):
    """The row of a model, a ModelSpec.

    Raises UnknownName with the nearest name.

    >>> spec("vgg16").params
    138357544
    """
    if isinstance(name, ModelSpec):
        return name
    if name not in _rows:
        raise unknown("model", name, _rows, "kzoo list shows all.")
    return _rows[name]


# --- MNIST: the lecture's first networks -----------------------------------------------------------------

_ZERO_TO_ONE = Preprocessing(scale=1 / 255, offset=0.0)
_TUTORIAL = Paper("Deep MNIST for Experts (TensorFlow tutorial)", "Abadi et al.", 2015)

register(ModelSpec(
    "mnist_softmax", "kzoo.models.mnist:mnist_softmax", (28, 28, 1), 10,
    paper=Paper("MNIST for ML Beginners (TensorFlow tutorial)", "Abadi et al.", 2015),
    params=7_850, multiply_adds=7_840, preprocessing=_ZERO_TO_ONE, recipe="lecture_softmax",
))  # fmt: skip
register(ModelSpec(
    "mnist_mlp", "kzoo.models.mnist:mnist_mlp", (28, 28, 1), 10,
    config={"units": 128, "dropout": 0.2},
    paper=Paper("Delving Deep into Rectifiers (for the initialisation)", "He et al.", 2015, "1502.01852"),
    params=101_770, multiply_adds=101_632, preprocessing=_ZERO_TO_ONE, recipe="lecture_mlp",
))  # fmt: skip
register(ModelSpec(
    "mnist_cnn", "kzoo.models.mnist:mnist_cnn", (28, 28, 1), 10,
    config={"filters": (32, 64), "units": 1024},
    paper=_TUTORIAL, params=3_274_634, preprocessing=_ZERO_TO_ONE, recipe="lecture_cnn",
    deviations=("No dropout before the classifier (the tutorial has 0.5); pass dropout=0.5 for it.",),
))  # fmt: skip
register(ModelSpec(
    "mnist_shift", "kzoo.models.mnist:mnist_shift", (28, 28, 1), 10,
    config={"filters": (32, 64, 128)},
    paper=Paper("Lecture exercise: a network that is insensitive to shifts", "kzoo", 2026),
    preprocessing=_ZERO_TO_ONE, recipe="lecture_cnn",
))  # fmt: skip

# --- LeNet-5, AlexNet, VGG -------------------------------------------------------------------------------

register(ModelSpec(
    "lenet5", "kzoo.models.lenet:lenet5", (28, 28, 1), 10,
    paper=Paper("Gradient-Based Learning Applied to Document Recognition", "LeCun et al.", 1998),
    params=60_000,  # Section II.B: "340,908 connections, but only 60,000 trainable free parameters"
    # Section III.A: white -0.1, black 1.175. MNIST files hold the ink as 255.
    preprocessing=Preprocessing(scale=1.275 / 255, offset=-0.1),
    deviations=(
        "The RBF units' fixed codes are random ±1 (a choice the paper names), not drawn 7x12 bitmaps.",
        "The input is MNIST's 28x28, padded with background to the paper's 32x32 inside the network.",
        "Trained with softmax cross-entropy on minus the RBF distances: the paper's criterion (9) without "
        "the constant j of its rubbish class.",
    ),
))  # fmt: skip
register(ModelSpec(
    "alexnet", "kzoo.models.alexnet:alexnet", (227, 227, 3), 1000,
    paper=Paper("ImageNet Classification with Deep Convolutional Neural Networks", "Krizhevsky et al.", 2012),
    params=60_965_224,
    preprocessing=Preprocessing(crop=227 / 256, scale=1.0, offset=(-123.68, -116.779, -103.939)),
    recipe="alexnet",
    deviations=(
        "Input 227x227: the paper says 224, its layer sizes need 227.",
        "The mean colour is subtracted, not the mean image.",
        "Dropout scales by 1/(1-p) in training instead of by 1-p in testing: the same expectation.",
    ),
))  # fmt: skip

_VGG = Paper("Very Deep Convolutional Networks for Large-Scale Image Recognition", "Simonyan and Zisserman", 2014,
             "1409.1556")  # fmt: skip
for _name, _blocks, _params, _multiply_adds in (
    ("vgg11", (1, 1, 2, 2, 2), 132_863_336, None),
    ("vgg13", (2, 2, 2, 2, 2), 133_047_848, None),
    ("vgg16", (2, 2, 3, 3, 3), 138_357_544, None),
    ("vgg19", (2, 2, 4, 4, 4), 143_667_240, "19.6G"),  # the multiply-adds: He et al. 2015, Figure 3
):
    register(ModelSpec(
        _name, "kzoo.models.vgg:vgg", (224, 224, 3), 1000, config={"blocks": _blocks}, paper=_VGG,
        params=_params, multiply_adds=_multiply_adds,
        preprocessing=Preprocessing(crop=0.875, channel_order="bgr", scale=1.0, offset=(-103.939, -116.779, -123.68)),
        deviations=("Initialised after Glorot and Bengio (the paper's footnote in 3.1), not from a trained vgg11.",),
    ))  # fmt: skip
