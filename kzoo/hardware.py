"""What the processor or accelerator is, and in which precision it is fast. Keras is imported only where needed."""

from __future__ import annotations

import gc
import json
import logging
import os
import platform
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from glob import glob
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras

# The precisions that a network may compute in -> Keras' dtype policy. Variables stay float32.
POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}
SMALL = 1_000_000_000  # multiply-adds for an image, below which a second core hardly makes a batch faster


def processor() -> tuple[str, frozenset[str]]:
    """Return (name, flags) of the processor. Flags are known on Linux only."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine(), frozenset()

    def get(key):
        return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), "")

    return get("model name") or platform.machine(), frozenset(get("flags").split())


def backend() -> str:
    """Return the name of Keras' backend without importing Keras: from $KERAS_BACKEND, else Keras' keras.json."""
    if "keras" in sys.modules:
        import keras

        return keras.backend.backend()
    if os.environ.get("KERAS_BACKEND"):
        return os.environ["KERAS_BACKEND"]
    try:
        file = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "keras.json"
        return json.loads(file.read_text("utf-8"))["backend"]
    except (OSError, ValueError, KeyError, TypeError):
        return "tensorflow"


def without_devices() -> bool:
    """Return whether there can be no GPU or TPU: Linux shows no device file of one. This saves importing TensorFlow."""
    kinds = ("nvidia[0-9]*", "accel*", "kfd", "dri/*", "vfio/*", "dxg")
    return sys.platform == "linux" and not any(glob(f"/dev/{kind}") for kind in kinds)


@cache
def _accelerator():
    """(name, computes bfloat16) of the first GPU or TPU of the backend, or None."""
    if without_devices():
        return None
    if backend() == "jax":
        import jax

        device = jax.devices()[0]
        if device.platform == "cpu":
            return None
        capability = getattr(device, "compute_capability", None)
        return device.device_kind, device.platform == "tpu" or (capability is not None and float(capability) >= 8)
    import tensorflow as tf

    devices = tf.config.list_physical_devices("GPU") + tf.config.list_physical_devices("TPU")
    if not devices:
        return None
    details = tf.config.experimental.get_device_details(devices[0])
    return details.get("device_name", devices[0].name), details.get("compute_capability", (8,)) >= (8,)


def cores() -> int:
    """Count the cores that this process may use: fewer than the machine has under taskset or in many containers.

    Example:
        >>> 1 <= cores() <= os.cpu_count()
        True
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def two_at_once(multiply_adds: float) -> None:
    """Let TensorFlow compute two batches at once, unless it has begun to compute or the environment says otherwise.

    More operations run at a time than there are cores, since some of them wait; those of a small network take half of
    the cores each, because its parts are so short that waiting for each other takes longer than computing them.

    Args:
        multiply_adds: of the network for one image, or an upper limit to them.
    """
    os.environ.setdefault("TF_NUM_INTEROP_THREADS", str(2 * cores()))
    if multiply_adds < SMALL:
        os.environ.setdefault("TF_NUM_INTRAOP_THREADS", str(max(1, cores() // 2)))


def describe() -> str:
    """Name the accelerator, or the processor and its cores, for the record."""
    found, mine, all_ = _accelerator(), cores(), os.cpu_count() or 1
    return found[0] if found else f"{processor()[0]}, {mine}{f' of {all_}' if mine < all_ else ''} cores"


def auto_precision(model: keras.Model | None = None) -> tuple[str, str]:
    """Choose the precision in which this machine is fast.

    A GPU of compute capability 8 or a TPU: bfloat16. A processor with bfloat16 instructions (AMX or AVX-512 BF16):
    bfloat16 for networks with convolutions on the TensorFlow backend, whose library uses them. Everything else:
    float32.

    Args:
        model: The model to run; None for any network with convolutions.

    Returns:
        ("bfloat16" or "float32", the reason in a few words).
    """
    found = _accelerator()
    if found:
        name, fast = found
        return ("bfloat16", f"{name} computes in it") if fast else ("float32", f"{name} has no bfloat16 units")
    has = processor()[1] & {"amx_bf16", "avx512_bf16"}
    if not has:
        return "float32", "this processor has no bfloat16 instructions"
    if backend() != "tensorflow":
        return "float32", f"{backend()} does not use this processor's bfloat16 instructions"
    if model is not None:
        import keras

        if not any(isinstance(layer, keras.layers.Conv2D) for layer in model.layers):
            return "float32", "a network without convolutions gains nothing from bfloat16"
    return "bfloat16", f"this processor has {sorted(has)[0]}"


# What TensorFlow's C++ code writes while it is imported and looks for devices; the last is the rest of a message.
NOISE = re.compile(
    rb"WARNING: All log messages before absl::|[IWEF]\d{4} \d\d:\d\d:|\d{4}-\d\d-\d\d .*: [IWEF] |"
    rb"To enable the following instructions:"
)
_loading = threading.Lock()  # two threads would take each other's file for stderr
_loaded = False
# What Keras and TensorFlow import where it is installed, for what no command of kzoo uses: wrappers of scikit-learn,
# galleries of pictures, the conversion of JAX functions to TensorFlow Lite. It takes 1.3 of 3.2 seconds.
UNUSED = ("jax", "matplotlib", "sklearn")
_in_own_process = False


def load_keras() -> None:
    """Import Keras and its backend without the messages that their C++ code writes.

    TensorFlow 2.21 writes some lines to file descriptor 2 while it is imported, whatever the environment says. They are
    dropped, unless the import fails or TF_CPP_MIN_LOG_LEVEL is 0; what others write to stderr meanwhile follows
    afterwards.
    """
    global _loaded
    with _loading:
        if _loaded:
            return
        level = quiet_tensorflow()
        try:
            stderr = os.dup(2)
        except OSError:  # closed, as in a daemon: nobody can see it
            stderr = None
        if level == "0" or stderr is None:
            _import_keras()
        else:
            _import_keras_holding(stderr)
        _loaded = True


def in_own_process(alone: bool = True) -> None:
    """Tell whether this process runs a command of kzoo and nothing else: what Keras needs for others may be left out.

    Args:
        alone: False if code of the user's will run, too, which may use all of Keras.
    """
    global _in_own_process
    _in_own_process = alone


def quiet_tensorflow() -> str:
    """Ask TensorFlow for errors only as long as it isn't imported and the user's environment says nothing else.

    Returns:
        The value of TF_CPP_MIN_LOG_LEVEL.
    """
    if "tensorflow" in sys.modules:
        return os.environ.get("TF_CPP_MIN_LOG_LEVEL", "")
    return os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@contextmanager
def without_tensorflow_chatter() -> Iterator[None]:
    """Drop what TensorFlow logs of functions that are traced again, and of files that it writes into a hidden folder.

    Each training in a process has functions of its own. The lines would stand in a notebook's cell, or between a
    progress bar and its end.
    """
    logger = logging.getLogger("tensorflow")

    def told(record):
        text = record.getMessage()
        return "triggered tf.function retracing" not in text and not text.startswith("Assets written to")

    logger.addFilter(told)
    try:
        yield
    finally:
        logger.removeFilter(told)


class _LeftOut(MetaPathFinder, Loader):
    """Lets imports of UNUSED fail in the thread that makes it. That they are installed is seen, and others get them."""

    def __init__(self):
        self.thread = threading.get_ident()
        self.names = {n for n in UNUSED if n != backend()}

    def find_spec(self, name, path=None, target=None):
        """A module that can't be made, where it is one of these; None leaves it to the other finders."""
        here = name in self.names and threading.get_ident() == self.thread
        return ModuleSpec(name, self) if here else None

    def create_module(self, spec):
        """Refuse it."""
        raise ModuleNotFoundError(f"{spec.name} is left out while Keras is imported", name=spec.name)

    def exec_module(self, module):
        """Never called, but asked for."""


@contextmanager
def _importing_quickly():
    """Import without looking for garbage, of which there is none; in a process of kzoo's own without UNUSED."""
    collecting, left_out = gc.isenabled(), _LeftOut()
    gc.disable()
    if _in_own_process:
        sys.meta_path.insert(0, left_out)
    try:
        yield
    finally:
        if _in_own_process:
            sys.meta_path.remove(left_out)
            gc.freeze()  # half a million objects, which need not be looked through again and again
        if collecting:
            gc.enable()


@_importing_quickly()
def _import_keras():
    import keras

    on_tensorflow = keras.backend.backend() == "tensorflow"
    try:
        import tensorflow
    except ModuleNotFoundError as e:
        if on_tensorflow or e.name != "tensorflow":
            raise
        return  # training on arrays on JAX needs none
    tensorflow.config.list_physical_devices()  # looks for GPUs, and complains if there is none
    if not on_tensorflow:  # else reading a picture would take the memory of the GPU, which the backend computes on
        with suppress(RuntimeError):  # in use already
            tensorflow.config.set_visible_devices([], "GPU")


def _import_keras_holding(stderr):
    """Import with file descriptor 2 held back; `stderr` is a copy of it."""
    with tempfile.TemporaryFile() as held:
        if sys.stderr is not None:
            sys.stderr.flush()
        os.dup2(held.fileno(), 2)
        noise = NOISE
        try:
            _import_keras()
        except BaseException:
            noise = None
            raise
        finally:
            os.dup2(stderr, 2)
            held.seek(0)
            for line in held:
                if noise is None or not noise.match(line):
                    os.write(stderr, line)
            os.close(stderr)
