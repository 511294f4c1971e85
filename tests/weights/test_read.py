"""Formats are read exactly; hostile and damaged files are refused in one line, in bounded memory, and run nothing."""

import contextlib
import io
import json
import pickle
import random
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kzoo.errors import WeightsError
from kzoo.weights import read

ARRAYS = {
    "conv1/kernel": np.arange(54, dtype="float32").reshape(3, 3, 2, 3),
    "conv1/bias": np.float32([1, 2, 3]),
    "scale": np.float32(7),
}


def legacy_h5(path, arrays=ARRAYS):
    """As Keras 2 writes weights."""
    layers = {}
    for name, a in arrays.items():
        layer, _, variable = name.rpartition("/")
        layers.setdefault(layer or "top", []).append((f"{layer or 'top'}/{variable}:0", a))
    with h5py.File(path, "w") as f:
        f.attrs["layer_names"] = [name.encode() for name in layers]
        for layer, weights in layers.items():
            group = f.create_group(layer)
            group.attrs["weight_names"] = [name.encode() for name, _ in weights]
            for name, a in weights:
                group.create_dataset(name, data=a)


def safetensors(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    Path(path).write_bytes(struct.pack("<Q", len(text)) + text + data)


def npy(array=None, *, header=None, data=b""):
    f = io.BytesIO()
    if header is None:
        np.save(f, array)
    else:
        np.lib.format.write_array_header_1_0(f, header)
        f.write(data)
    return f.getvalue()


def zipped(path, members, **options):
    with zipfile.ZipFile(path, "w", **options) as z:
        for name, data in members:
            z.writestr(name, data)


def refused(path, match=None):
    with pytest.raises(WeightsError, match=match) as e:
        read(path)
    message = str(e.value)
    assert message.startswith(str(path)) and "\n" not in message and message.isprintable(), message
    return message


# --- What is good is read exactly ------------------------------------------------------------------------


def same(found, expected):
    assert list(found) == list(expected)
    for name in expected:
        assert found[name].dtype == expected[name].dtype and found[name].shape == expected[name].shape
        np.testing.assert_array_equal(found[name], expected[name])


def test_npz(tmp_path):
    arrays = {
        **ARRAYS,
        "fortran": np.asfortranarray(ARRAYS["conv1/kernel"]),
        "int": np.arange(3),
        "empty": np.zeros((0, 2)),
    }
    np.savez(tmp_path / "a.npz", **arrays)
    same(read(tmp_path / "a.npz"), arrays)
    np.savez_compressed(tmp_path / "b.npz", **arrays)
    same(read(tmp_path / "b.npz"), arrays)


def test_legacy_h5(tmp_path):
    legacy_h5(tmp_path / "a.h5")
    same(
        read(tmp_path / "a.h5"),
        {"conv1/kernel": ARRAYS["conv1/kernel"], "conv1/bias": ARRAYS["conv1/bias"], "top/scale": ARRAYS["scale"]},
    )


def test_h5_in_pieces_and_packed(tmp_path):
    """Larger than what the worker holds at a time; chunked, gzipped, big-endian."""
    big = np.random.default_rng(0).normal(size=(5_000_000,)).astype(">f4")
    with h5py.File(tmp_path / "a.h5", "w") as f:
        f.attrs["layer_names"] = [b"l"]
        f.create_group("l").attrs["weight_names"] = [b"kernel"]
        f["l"].create_dataset("kernel", data=big, chunks=(100_000,), compression="gzip", shuffle=True)
    np.testing.assert_array_equal(read(tmp_path / "a.h5")["l/kernel"], big)


@pytest.mark.parametrize("legacy", [True, False])
def test_pth(tmp_path, legacy):
    torch = pytest.importorskip("torch")
    state = {
        "a.weight": torch.arange(6.0).reshape(2, 3).T,
        "a.half": torch.ones(3).half(),
        "a.bfloat": torch.tensor([1.0, 3.140625]).bfloat16(),
        "a.num_batches_tracked": torch.tensor(5),
        "a.bias": torch.nn.Parameter(torch.ones(2)),
    }
    for content in (state, {"state_dict": state, "epoch": 3}):
        torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=not legacy)
        same(
            read(tmp_path / "a.pth"),
            {
                "a.weight": np.float32([[0, 3], [1, 4], [2, 5]]),
                "a.half": np.ones(3, "float16"),
                "a.bfloat": np.float32([1, 3.140625]),
                "a.num_batches_tracked": np.array(5),
                "a.bias": np.ones(2, "float32"),
            },
        )


@pytest.mark.parametrize(
    "text", ["{'descr': '<f4', (", "{[]: 1}", "{'descr': '<f4', 'fortran_order': False, 'shape': (True,)}"]
)
def test_npy_headers_that_are_no_python(tmp_path, text):
    header = text.encode().ljust(117) + b"\n"
    member = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as z:
        z.writestr("w.npy", member)
    refused(tmp_path / "a.npz")


def test_what_an_archive_may_unpack_to_is_bounded_by_the_archive(tmp_path):
    """A small .keras with a large .h5 with much larger arrays."""
    with h5py.File(tmp_path / "a.h5", "w") as f:
        group = f.create_group("layers/dense/vars")
        group.create_dataset("0", data=np.zeros(8_000_000, "float32"))
        group.create_dataset("1", shape=(25_000_000,), dtype="float32", chunks=(1_000_000,), compression="gzip")[:] = 0
    with zipfile.ZipFile(tmp_path / "a.keras", "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr("config.json", "{}")
        z.write(tmp_path / "a.h5", "model.weights.h5")
    assert (tmp_path / "a.keras").stat().st_size < 1 << 20 and (tmp_path / "a.h5").stat().st_size > 30 << 20
    refused(tmp_path / "a.keras")


def test_pth_without_torch(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (tmp_path / "a.pth").write_bytes(b"PK")
    refused(tmp_path / "a.pth", "needs torch, which is not installed")


def test_safetensors(tmp_path):
    library = pytest.importorskip("safetensors.numpy")
    arrays = {
        "b": np.ones((2, 3), "float16"),
        "a": np.arange(4, dtype="float32"),
        "i": np.arange(3),
        "t": np.array([True]),
    }
    library.save_file(arrays, tmp_path / "a.safetensors", metadata={"made": "by a test"})
    found = read(tmp_path / "a.safetensors")
    same({k: found[k] for k in sorted(found)}, {k: arrays[k] for k in sorted(arrays)})
    safetensors(
        tmp_path / "b.safetensors", {"x": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}, b"\x80\x3f\x49\x40"
    )
    same(read(tmp_path / "b.safetensors"), {"x": np.float32([1, 3.140625])})


# --- Names, suffixes -------------------------------------------------------------------------------------


def test_missing_unknown_empty(tmp_path):
    refused(tmp_path / "no.h5", "the file does not exist")
    refused(tmp_path / "x.pkl", "'.pkl' is not a weights format")
    for suffix in ("h5", "weights.h5", "keras", "safetensors", "npz", "pth"):
        path = tmp_path / f"a.{suffix}"
        path.write_bytes(b"")
        refused(path)
        path.write_bytes(b"<html>Not found</html>" * 20)
        refused(path)
    np.savez(tmp_path / "none.npz")
    refused(tmp_path / "none.npz", "holds no arrays")


# --- Code in files ---------------------------------------------------------------------------------------


class Payload:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return (open, (str(self.canary), "w"))


def test_pickles_are_never_run(tmp_path):
    torch = pytest.importorskip("torch")
    canary = tmp_path / "canary"
    attack = Payload(canary)
    files = []

    def add(name, write):
        files.append(tmp_path / name)
        write(files[-1])

    add("plain.pth", lambda p: p.write_bytes(pickle.dumps(attack)))
    add("protocol0.pt", lambda p: p.write_bytes(pickle.dumps({"a": attack}, protocol=0)))
    for i, content in enumerate([attack, {"state_dict": {"w": torch.ones(2), "a": [{"b": attack}]}}]):
        add(f"zip{i}.pth", lambda p, c=content: torch.save(c, p))
        add(f"legacy{i}.pth", lambda p, c=content: torch.save(c, p, _use_new_zipfile_serialization=False))
    objects = np.array([attack, 1], dtype=object)
    add("objects.npz", lambda p: np.savez(p, a=np.ones(2), b=objects))
    header = {"descr": [("x", "O")], "fortran_order": False, "shape": (1,)}
    add("nested.npz", lambda p: zipped(p, [("a.npy", npy(header=header, data=pickle.dumps(attack)))]))
    add("pickle.npz", lambda p: p.write_bytes(pickle.dumps(attack)))
    add("member.npz", lambda p: zipped(p, [("a.pkl", pickle.dumps(attack))]))
    for path in files:
        refused(path)
        assert not canary.exists(), path
    with open(files[0], "rb") as f:  # the canary sings where a pickle is run
        pickle.load(f).close()
    assert canary.exists()


def keras_file(path, config, h5=None, more=()):
    legacy_h5(path.with_suffix(".h5"))
    weights = path.with_suffix(".h5").read_bytes() if h5 is None else h5
    zipped(path, [("metadata.json", "{}"), ("config.json", json.dumps(config)), ("model.weights.h5", weights), *more])


def model_config(*layers):
    return {
        "class_name": "Functional",
        "module": "keras",
        "registered_name": "Functional",
        "config": {"layers": layers},
    }


@pytest.mark.parametrize(
    ("layer", "match"),
    [
        ({"class_name": "Lambda", "module": "keras.layers", "config": {"name": "l"}}, "Lambda, which can run code"),
        ({"class_name": "__lambda__", "config": {}}, "__lambda__"),
        ({"class_name": "TFSMLayer", "module": "keras.layers"}, "TFSMLayer"),
        ({"class_name": "StringLookup", "module": "keras.layers"}, "StringLookup"),
        (
            {"class_name": "Dense", "module": "keras.layers", "config": {"activation": {"class_name": "Lambda"}}},
            "Lambda",
        ),
        ({"class_name": "system", "module": "os", "config": {}}, "os.system, which is not Keras'"),
        ({"class_name": "X", "module": None, "registered_name": "evil>X", "config": {}}, "foreign object evil>X"),
    ],
)
def test_models_that_could_run_code(tmp_path, layer, match):
    keras_file(tmp_path / "a.keras", model_config(layer))
    refused(tmp_path / "a.keras", match)
    with h5py.File(tmp_path / "a.h5", "a") as f:  # the same in a legacy model
        f.attrs["model_config"] = json.dumps(model_config(layer))
    refused(tmp_path / "a.h5", match)


def test_keras_saves_a_lambda(tmp_path):
    """Keras itself writes the file."""
    import keras

    x = keras.Input((4,))
    model = keras.Model(x, keras.layers.Lambda(lambda t: t * 2)(keras.layers.Dense(2, name="d")(x)))
    model.save(tmp_path / "a.keras")
    refused(tmp_path / "a.keras", "Lambda, which can run code")


# --- Paths and members -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../evil.npy", "/tmp/evil.npy", "a/../../evil.npy", "..\\evil.npy", "C:\\evil.npy"])
def test_paths_that_lead_out(tmp_path, name):
    (tmp_path / "in").mkdir()
    zipped(tmp_path / "in" / "a.npz", [("a.npy", npy(np.ones(2))), (name, npy(np.ones(2)))])
    refused(tmp_path / "in" / "a.npz", "a path that leads out of it")
    keras_file(tmp_path / "in" / "a.keras", model_config(), more=[(name, b"x")])
    refused(tmp_path / "in" / "a.keras", "a path that leads out of it")
    assert not list(tmp_path.rglob("*evil*"))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_duplicates(tmp_path):
    zipped(tmp_path / "a.npz", [("a.npy", npy(np.ones(2))), ("a.npy", npy(np.zeros(2)))])
    refused(tmp_path / "a.npz", "twice")
    entry = '{"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}'
    safetensors(tmp_path / "a.safetensors", f'{{"a": {entry}, "a": {entry}}}'.encode(), b"\0" * 4)
    refused(tmp_path / "a.safetensors", "'a' is in it twice")
    with h5py.File(tmp_path / "a.h5", "w") as f:
        f.attrs["layer_names"] = [b"l", b"l"]
        f.create_group("l").attrs["weight_names"] = [b"kernel"]
        f["l/kernel"] = np.ones(2)
    refused(tmp_path / "a.h5", "two arrays are called 'l/kernel'")


def test_names_are_escaped(tmp_path):
    zipped(tmp_path / "a.npz", [("a\n\x1b[31mb.pkl", b"x")])
    assert "\\n\\x1b[31mb.pkl" in refused(tmp_path / "a.npz")


def test_keras_file_without_parts(tmp_path):
    zipped(tmp_path / "a.keras", [("config.json", "{}")])
    refused(tmp_path / "a.keras", "no model.weights.h5")


# --- HDF5 that points elsewhere --------------------------------------------------------------------------


def test_h5_links(tmp_path):
    secret = tmp_path / "secret.h5"
    legacy_h5(secret)
    (tmp_path / "raw").write_bytes(b"\0" * 400)

    def make(name, change):
        legacy_h5(tmp_path / name)
        with h5py.File(tmp_path / name, "a") as f:
            change(f)
        return tmp_path / name

    def replace(f, item):
        del f["conv1/conv1/bias:0"]
        f["conv1/conv1/bias:0"] = item

    refused(
        make("external.h5", lambda f: replace(f, h5py.ExternalLink(str(secret), "conv1/conv1/bias:0"))), "another file"
    )
    refused(make("soft.h5", lambda f: replace(f, h5py.SoftLink("/conv1/conv1/kernel:0"))), "soft link")
    refused(make("dangling.h5", lambda f: f.__setitem__("elsewhere", h5py.SoftLink("/nothing"))), "soft link")

    def stored_outside(f):
        f.create_dataset("outside", (100,), "f4", external=[(str(tmp_path / "raw"), 0, 400)])

    def virtual(f):
        layout = h5py.VirtualLayout((3,), "f4")
        layout[:] = h5py.VirtualSource(str(secret), "conv1/conv1/bias:0", (3,))
        f.create_virtual_dataset("virtual", layout)

    refused(make("outside.h5", stored_outside), "values from another file")
    refused(make("virtual.h5", virtual), "values from another file")
    refused(make("cycle.h5", lambda f: f["conv1"].__setitem__("again", f["conv1"])), "nested deeper than 16")
    refused(make("text.h5", lambda f: f.__setitem__("text", "a string")), "not of plain numbers")
    refused(
        make("reference.h5", lambda f: f.create_dataset("r", data=f["conv1"].ref, dtype=h5py.ref_dtype)),
        "plain numbers",
    )
    refused(make("lost.h5", lambda f: f["conv1"].__delitem__("conv1")), "lists the array")
    refused(make("gone.h5", lambda f: f.__delitem__("conv1")), "lists the layer")
    with h5py.File(tmp_path / "other.h5", "w") as f:
        f["a"] = np.ones(2)
    refused(tmp_path / "other.h5", "neither a Keras weights file")


# --- Sizes that lie --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entries", "data", "match"),
    [
        ({"a": ("F32", [2], [0, 8]), "b": ("F32", [2], [4, 12])}, 12, "overlaps"),
        ({"a": ("F32", [2], [0, 8]), "b": ("F32", [2], [0, 8])}, 8, "overlaps"),
        ({"a": ("F32", [1], [0, 4]), "b": ("F32", [1], [8, 12])}, 12, "leaves a gap"),
        ({"a": ("F32", [2**32, 2**32], [0, 0])}, 0, "which is not the 0 bytes"),
        ({"a": ("F32", [2**62], [0, 0])}, 0, "which is not the 0 bytes"),
        ({"a": ("F32", [2**40], [0, 2**42])}, 8, "the file stores 8"),
        ({"a": ("F32", [-2], [0, 8])}, 8, "not one of a plain array"),
        ({"a": ("F32", [True], [0, 4])}, 4, "not one of a plain array"),
        ({"a": ("F32", [1.0], [0, 4])}, 4, "not one of a plain array"),
        ({"a": ("F4", [1], [0, 4])}, 4, "not one of a plain array"),
        ({"a": (["F32"], [1], [0, 4])}, 4, "not one of a plain array"),
        ({"a": ("F32", [1], [4, 0])}, 4, "bytes it gets"),
        ({"a": ("F32", [1], [0, 4, 8])}, 8, "not one of a plain array"),
        ({"a": ("F32", [1], [0, 4])}, 12, "the file stores 12"),
        ({"a": ("F32", [1] * 9, [0, 4])}, 4, "not one of a plain array"),
    ],
)
def test_safetensors_that_lie(tmp_path, entries, data, match):
    header = {k: dict(zip(("dtype", "shape", "data_offsets"), v, strict=True)) for k, v in entries.items()}
    safetensors(tmp_path / "a.safetensors", header, b"\0" * data)
    refused(tmp_path / "a.safetensors", match)


@pytest.mark.parametrize(
    "header", [b"[]", b"{", b"nothing", b'{"a": 1}', b'{"a": []}', b"[" * 100_000, b"1" * 5000, b"\xff"]
)
def test_safetensors_headers(tmp_path, header):
    safetensors(tmp_path / "a.safetensors", header)
    refused(tmp_path / "a.safetensors")
    (tmp_path / "b.safetensors").write_bytes(struct.pack("<Q", 2**63) + header)
    refused(tmp_path / "b.safetensors", "header declares")


@pytest.mark.parametrize(
    ("header", "data"),
    [
        ({"descr": "<f4", "fortran_order": False, "shape": (10**12,)}, 4),
        ({"descr": "<f4", "fortran_order": False, "shape": (2**32, 2**32)}, 0),
        ({"descr": "<f4", "fortran_order": False, "shape": (-1, -2)}, 8),
        ({"descr": "<f4", "fortran_order": False, "shape": (2,)}, 4),
        ({"descr": "<f4", "fortran_order": False, "shape": (2,)}, 12),
        ({"descr": "|V9999", "fortran_order": False, "shape": (1,)}, 9999),
        ({"descr": "<c8", "fortran_order": False, "shape": (1,)}, 8),
        ({"descr": "|S4", "fortran_order": False, "shape": (1,)}, 4),
    ],
)
def test_npy_that_lies(tmp_path, header, data):
    zipped(tmp_path / "a.npz", [("a.npy", npy(header=header, data=b"\0" * data))])
    refused(tmp_path / "a.npz")


def bombs(folder):
    """Small files that unpack to, or declare, more than 1 GiB."""
    zeros = 1500 << 20
    packer, packed = zlib.compressobj(1, wbits=-15), []
    for _ in range(zeros >> 20):
        packed.append(packer.compress(b"\0" * (1 << 20)))
    packed = b"".join(packed) + packer.flush()

    def packed_zip(path, member, others=()):
        """A zip file around a stream that is packed already."""
        with zipfile.ZipFile(path, "w") as z:
            for name, data in others:
                z.writestr(name, data)
            at = z.fp.tell()
            info = zipfile.ZipInfo(member)
            info.compress_type, info.file_size, info.compress_size = zipfile.ZIP_DEFLATED, zeros, len(packed)
            info.header_offset, info.CRC = at, 0
            z.fp.write(info.FileHeader() + packed)
            z.filelist.append(info)
            z.NameToInfo[member] = info
            z.start_dir = z.fp.tell()
            z._didModify = True
        return path

    yield packed_zip(folder / "bomb.npz", "a.npy")
    yield packed_zip(folder / "bomb.keras", "model.weights.h5", [("config.json", "{}")])
    yield packed_zip(folder / "bomb2.keras", "config.json", [("model.weights.h5", "x")])
    with h5py.File(folder / "shape.h5", "w") as f:
        f.attrs["layer_names"] = [b"l"]
        f.create_group("l").attrs["weight_names"] = [b"kernel"]
        f["l"].create_dataset("kernel", (2**40,), "f4", chunks=(2**20,))
    yield folder / "shape.h5"
    with h5py.File(folder / "sparse.h5", "w") as f:  # one of many pieces is stored
        f.attrs["layer_names"] = [b"l"]
        f.create_group("l").attrs["weight_names"] = [b"kernel"]
        f["l"].create_dataset("kernel", (2**29,), "f4", chunks=(2**20,), compression="gzip")[:10] = 1
    yield folder / "sparse.h5"
    with h5py.File(folder / "packed.h5", "w") as f:
        f.attrs["layer_names"] = [b"l"]
        f.create_group("l").attrs["weight_names"] = [b"kernel"]
        d = f["l"].create_dataset("kernel", (2**29,), "f4", chunks=(2**20,), compression="gzip")
        piece = zlib.compress(b"\0" * 2**22)
        for i in range(2**9):
            d.id.write_direct_chunk((i * 2**20,), piece)
    yield folder / "packed.h5"
    with h5py.File(folder / "piece.h5", "w") as f:  # one piece of 2 GiB
        f.attrs["layer_names"] = [b"l"]
        f.create_group("l").attrs["weight_names"] = [b"kernel"]
        d = f["l"].create_dataset("kernel", (2**29,), "f4", chunks=(2**29,), compression="gzip")
        d.id.write_direct_chunk((0,), zlib.compress(b"\0" * 2**20))
    yield folder / "piece.h5"
    safetensors(folder / "a.safetensors", {"a": {"dtype": "F32", "shape": [2**29], "data_offsets": [0, 2**31]}})
    yield folder / "a.safetensors"
    try:
        import torch
    except ImportError:
        return
    torch.save({"a": torch.zeros(1).expand(2**30)}, folder / "expanded.pth")
    yield folder / "expanded.pth"
    torch.save({"a": torch.zeros(3)}, folder / "small.pth")
    with zipfile.ZipFile(folder / "small.pth") as z:  # a storage, and a shape, of 2**31 - 1 numbers
        members = [(i.filename, z.read(i).replace(b"K\x03", b"J\xff\xff\xff\x7f")) for i in z.infolist()]
    zipped(folder / "numel.pth", members)
    yield folder / "numel.pth"
    zipped(folder / "deflated.pth", members, compression=zipfile.ZIP_DEFLATED)
    yield folder / "deflated.pth"


READ_ALL = """
import resource, sys
from kzoo.errors import WeightsError
from kzoo.weights import read
def children():  # processor time, which other work on the machine does not lengthen
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
for path in sys.argv[1:]:
    used = children()
    try:
        read(path)
        print("READ", path)
    except WeightsError as e:
        assert children() - used < 30, path
    with open("/proc/self/status") as f:  # not ru_maxrss: a new process inherits it from the one that started it
        own = int(next(line for line in f if line.startswith("VmHWM")).split()[1])
    peak = max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
    if peak > 1 << 20:
        print("PEAK", peak, path)
"""


def test_bombs_in_bounded_memory(tmp_path):
    files = list(bombs(tmp_path))
    assert all(f.stat().st_size < 8 << 20 for f in files)
    done = subprocess.run([sys.executable, "-c", READ_ALL, *files], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


# --- Damage ----------------------------------------------------------------------------------------------


def samples(folder):
    np.savez(folder / "a.npz", **ARRAYS)
    np.savez_compressed(folder / "packed.npz", **ARRAYS)
    entries, data = {}, b""
    for name, a in ARRAYS.items():
        entries[name] = {"dtype": "F32", "shape": a.shape, "data_offsets": [len(data), len(data) + a.nbytes]}
        data += a.tobytes()
    safetensors(folder / "a.safetensors", entries, data)
    legacy_h5(folder / "a.h5")
    keras_file(folder / "a.keras", model_config())


@pytest.mark.parametrize(
    ("name", "step"), [("a.npz", 7), ("packed.npz", 7), ("a.safetensors", 1), ("a.h5", 1500), ("a.keras", 2000)]
)
def test_truncated(tmp_path, name, step):
    samples(tmp_path)
    whole = (tmp_path / name).read_bytes()
    read(tmp_path / name)
    cut = tmp_path / f"cut-{name}"
    for n in [*range(0, len(whole), step), len(whole) - 1]:
        cut.write_bytes(whole[:n])
        refused(cut)


def test_truncated_pth(tmp_path):
    torch = pytest.importorskip("torch")
    for legacy in (True, False):
        torch.save({"a": torch.arange(100.0)}, tmp_path / "a.pth", _use_new_zipfile_serialization=not legacy)
        whole = (tmp_path / "a.pth").read_bytes()
        for n in (len(whole) // 2, len(whole) - 3):
            (tmp_path / "cut.pth").write_bytes(whole[:n])
            refused(tmp_path / "cut.pth")


@pytest.mark.parametrize("name", ["a.npz", "packed.npz", "a.safetensors"])
def test_mutants_are_read_or_refused(tmp_path, name):
    """No mutant gives another exception than WeightsError, or arrays that its bytes can't hold."""
    samples(tmp_path)
    whole = (tmp_path / name).read_bytes()
    path = tmp_path / f"mutant-{name}"

    @settings(max_examples=300, deadline=None, database=None, derandomize=True)
    @given(
        st.lists(
            st.tuples(st.integers(0, len(whole) - 1), st.binary(max_size=9), st.integers(0, 9)), min_size=1, max_size=4
        )
    )
    def check(changes):
        data = whole
        for at, new, removed in changes:
            data = data[:at] + new + data[at + removed :]
        path.write_bytes(data)
        try:
            arrays = read(path)
        except WeightsError:
            return
        assert sum(a.nbytes for a in arrays.values()) <= 64 << 20

    check()


def test_mutants_of_hdf5(tmp_path):
    """Each runs in a process of its own: a crash of the library is an error like any other."""
    samples(tmp_path)
    whole = (tmp_path / "a.h5").read_bytes()
    rng = random.Random(0)
    for _ in range(15):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 30)):
            data[rng.randrange(8, len(data))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        (tmp_path / "mutant.h5").write_bytes(data)
        with contextlib.suppress(WeightsError):
            read(tmp_path / "mutant.h5")
