"""Every row of the catalog through the same checks, on the backend that KERAS_BACKEND names; each network built once.

Pictures are small and layers narrow. What the rows cost as published, test_zoo_table.py holds against the papers.
"""

import gc
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from keras import layers
from support.networks import architecture, draw_with_numpy, error, norms, randomise, small

import kzoo
from kzoo.graph.inference import inference_form, predictor
from kzoo.graph.ledger import without_values

JAX = keras.backend.backend() == "jax"
tensorflow_only = pytest.mark.skipif(JAX, reason="the same layers and files: one backend is enough")
# Deeper rows of a family, whose blocks other rows have too. test_zoo_table.py builds and counts all of them.
DEEPER = {
    "vgg11_bn",
    "vgg13_bn",
    "vgg16_bn",
    "vgg19_bn",
    "vgg13",
    "vgg19",
    "plain34",
    "resnet34",
    "resnet101",
    "resnet152",
    "resnet101_v1_5",
    "resnet152_v1_5",
    "resnet101_v2",
    "resnet152_v2",
    "resnet56",
    "resnet110",
    "resnet44",
    "plain56",
    "wrn_28_10",
    "wrn_40_4",
    "nasnet_large",
    "googlenet",
    "inception_resnet_v1",
    "inception_resnet_v2",
    "inception_v4",
    "resnet50_v1_5",
}
# The same blocks as in another row, with other numbers of them or without batch norm.
# inception_v3 is held against keras.applications in tests/models.
ALIKE = {"resnet32", "plain18", "squeezenet1_0", "vgg11", "vgg_cifar10", "inception_v3"}
deep = pytest.mark.deep("2026-11-27")
ROWS = [pytest.param(name, marks=deep if name in DEEPER | ALIKE else ()) for name in kzoo.list_models()]
# How many numbers the features of a small network have.
FEATURES = {
    "vgg11": 16,
    "vgg16": 16,
    "resnet18": 64,
    "resnet50": 256,
    "resnet50_v2": 256,
    "resnet20": 64,
    "wrn_16_8": 128,
    "googlenet": 1024,
    "googlenet_bn": 1024,
    "inception_v3": 2048,
    "inception_v4": 1536,
    "inception_resnet_v1": 1792,
    "inception_resnet_v2": 1536,
    "mobilenet_v1": 256,
    "mobilenet_v2": 1280,
    "efficientnet_lite0": 1280,
    "squeezenet1_0": 512,
    "squeezenet1_1": 512,
    "allcnn_c": 32,
    "nasnet_mobile": 96,
    "unet": 8,
    "unet_same": 8,
}
# Batch norms that can't be folded, because something else sees their convolution: behind a sum or a pool (ResNet v2,
# wide ResNet), behind the concatenations of halved grids (NASNet).
LEFT = {"resnet50_v2": 17, "wrn_16_8": 6, "nasnet_mobile": 4}


def pictures(shape):
    """Two pictures of noise, one of little contrast."""
    one, two = np.random.default_rng(0).integers(0, 256, (2, *shape))
    return np.stack([one, two // 3]).astype("uint8")


@pytest.fixture(scope="module", params=ROWS)
def row(request):
    """A row's name, how it is made small, the network with statistics as if trained, two pictures and their logits."""
    made = small(request.param)
    with pytest.MonkeyPatch.context() as patch:
        if JAX:
            draw_with_numpy(patch)
        model = randomise(kzoo.build(request.param, num_classes=7, seed=0, **made))
    x = pictures(made["input_shape"])
    if JAX:  # compiled whole: operation by operation XLA takes several times longer
        import jax

        values = [[v.value for v in vs] for vs in (model.trainable_variables, model.non_trainable_variables)]
        logits = np.asarray(jax.jit(lambda t, n, x: model.stateless_call(t, n, x)[0])(*values, x))
    else:
        logits = model(x, training=False).numpy()
    pixelwise = kzoo.spec(request.param).task == "segmentation"
    yield SimpleNamespace(name=request.param, made=made, model=model, x=x, logits=logits, pixelwise=pixelwise)
    keras.utils.clear_session(free_memory=False)
    gc.collect()


def test_logits_are_float32_and_finite_and_tell_images_apart(row):
    model, logits = row.model, row.logits
    assert model.input_shape == (None, *row.made["input_shape"])
    assert logits.shape[1:] == model.output_shape[1:] and logits.dtype == np.float32
    assert logits.shape[::3] == (2, 7) if row.pixelwise else logits.shape == (2, 7)
    assert np.isfinite(logits).all()
    assert not np.array_equal(logits[0], logits[1])


def test_the_graph_is_flat_and_its_names_are_unique(row):
    assert row.model.get_layer("predictions").output.shape[-1] == 7
    assert not any(isinstance(layer, keras.Model) for layer in row.model.layers)
    names = [v.path for v in row.model.weights]
    assert len(set(names)) == len(names)


def test_every_trainable_variable_has_a_finite_gradient(row):
    model, y = row.model, np.eye(7, dtype="float32")[[1, 4]]
    if row.pixelwise:
        y = np.broadcast_to(y[:, None, None], row.logits.shape)
    loss_of = keras.losses.CategoricalCrossentropy(from_logits=True)
    before = [v.numpy() for v in model.non_trainable_variables]
    if JAX:
        import jax

        fixed = [v.value for v in model.non_trainable_variables]

        def loss(t):
            return loss_of(y, model.stateless_call(t, fixed, row.x, training=True)[0])

        trainable = [v.value for v in model.trainable_variables]
        if sum(v.size for v in trainable) > 1e6:  # XLA compiles for minutes: shapes and types only
            shapes = jax.eval_shape(jax.grad(loss), trainable)
            assert [s.shape for s in shapes] == [v.shape for v in trainable]
            return
        gradients = jax.jit(jax.grad(loss))(trainable)
    else:
        import tensorflow as tf

        with tf.GradientTape() as tape:
            loss = loss_of(y, model(row.x, training=True))
        gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
        for v, value in zip(model.non_trainable_variables, before, strict=True):  # the step moved the statistics
            v.assign(value)
    assert len(gradients) == len(model.trainable_variables)
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        assert gradient is not None, variable.path
        assert np.isfinite(np.asarray(gradient)).all(), variable.path


@tensorflow_only
def test_save_and_load_give_the_same_bits(row, tmp_path):
    row.model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    for a, b in zip(row.model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    np.testing.assert_array_equal(again(row.x, training=False), row.logits)


@tensorflow_only
def test_bfloat16_gives_float32_logits_near_those_of_float32(row):
    half = kzoo.build(row.name, num_classes=7, seed=0, precision="bfloat16", **row.made)
    assert keras.config.dtype_policy().name == "float32", "the global policy is put back"
    half.set_weights(row.model.get_weights())
    logits = half(row.x, training=False).numpy()
    assert logits.dtype == np.float32
    # 8 bits, some dozens of layers: a tenth of the spread of the logits, not of each of them.
    assert np.abs(logits - row.logits).max() <= 0.1 * max(np.abs(row.logits).max(), 1e-3)


@tensorflow_only
def test_without_classes_it_stops_at_the_features(row):
    """One vector for each image, or pixel, below the classifier, whose layers keep their names and places."""
    model = without_values(lambda: kzoo.build(row.name, num_classes=None, **row.made))
    positions = row.logits.shape[1:-1]
    assert model.output_shape == (None, *positions, FEATURES.get(row.name, model.output_shape[-1]))
    below, whole = ({v.path: v.shape for v in m.weights} for m in (model, row.model))
    assert below == {path: shape for path, shape in whole.items() if not path.startswith("predictions/")}
    below, whole = ([(x.name, x.output.shape) for x in m.layers if x.weights] for m in (model, row.model))
    assert below == [layer for layer in whole if layer[0] != "predictions"]


@tensorflow_only
def test_the_inference_form_equals_the_model(row):
    """To 1e-5 in float32; to 5 % of the spread of the logits in bfloat16, whose numbers have 8 bits."""
    x = row.x.astype("float32")
    folded = inference_form(row.model)
    if row.name not in DEEPER:
        assert norms(folded) == LEFT.get(row.name, 0)
    assert not [layer.name for layer in folded.layers if isinstance(layer, (layers.Dropout, layers.Rescaling))]
    assert folded.output_shape == row.model.output_shape
    f32 = np.asarray(folded(x, training=False))
    assert f32.dtype == np.float32 and f32.shape == row.logits.shape
    assert error(f32, row.logits) < 1e-5
    bf16 = predictor(row.model, "bfloat16")(x)
    assert bf16.dtype == np.float32
    print(row.name, error(f32, row.logits), error(bf16, row.logits))
    assert error(bf16, row.logits) < 5e-2


def test_every_architecture_is_made_small_without_changing_what_it_is():
    """The names in support/networks.py are those of the catalog."""
    from support.networks import SMALL

    assert set(SMALL) <= {architecture(name) for name in kzoo.list_models()}
