"""PyTorch's files without PyTorch: what torch.save writes, made by hand, and what it never writes."""

import io
import pickle
import struct
import sys
import types
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kzoo.errors import WeightsError
from kzoo.weights.read import read
from kzoo.weights.torch_file import Unknown, interpret, load

DTYPES = {"FloatStorage": "<f4", "LongStorage": "<i8", "HalfStorage": "<f2"}


class Stored:
    """A tensor to save: an array that is the memory of a storage, and the view of it."""

    def __init__(self, memory, offset, shape, strides, kind="FloatStorage", key="0"):
        self.memory, self.offset, self.shape, self.strides = memory, offset, shape, strides
        self.kind, self.key = kind, key


def stored(array, key, kind="FloatStorage"):
    """An array as a tensor; its own strides are kept, as torch does with channels-last kernels."""
    strides = tuple(s // array.itemsize for s in array.strides)
    return Stored(array.ravel(order="K"), 0, array.shape, strides, kind, key)


class Saver(pickle.Pickler):
    """Pickles as torch.save does: globals by the names of torch's modules, storages as persistent ids."""

    def __init__(self, file, old):
        super().__init__(file, protocol=2)
        self.old, self.storages = old, {}

    def persistent_id(self, item):
        if isinstance(item, tuple) and item and item[0] == "storage":
            _, kind, tensor = item
            self.storages[tensor.key] = tensor
            return ("storage", kind, tensor.key, "cpu", len(tensor.memory), *((None,) if self.old else ()))
        return None

    def reducer_override(self, item):
        if isinstance(item, Stored):
            import collections

            import torch
            from torch._utils import _rebuild_tensor_v2

            storage = ("storage", getattr(torch, item.kind), item)
            return _rebuild_tensor_v2, (
                storage,
                item.offset,
                item.shape,
                item.strides,
                False,
                collections.OrderedDict(),
            )
        return NotImplemented


@pytest.fixture
def torchs_names(monkeypatch):
    """Modules with the names that a pickle of torch's refers to, so that this process can write one."""

    def named(name, module):
        f = type(name, (), {}) if name.endswith("Storage") else types.FunctionType((lambda: None).__code__, {})
        f.__name__ = f.__qualname__ = name
        f.__module__ = module
        return f

    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for kind in DTYPES:
        setattr(torch, kind, named(kind, "torch"))
    utils._rebuild_tensor_v2 = named("_rebuild_tensor_v2", "torch._utils")
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)
    # Nothing that reads may use them.
    yield
    monkeypatch.undo()
    assert "torch._utils" not in sys.modules or hasattr(sys.modules["torch._utils"], "__file__")


def save(path, value, old):
    """Write a file as torch.save does: an archive, or the format before torch 1.6."""
    pickled = io.BytesIO()
    saver = Saver(pickled, old)
    saver.dump(value)
    data = {k: np.ascontiguousarray(t.memory, DTYPES[t.kind]) for k, t in saver.storages.items()}
    if old:
        system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
        with open(path, "wb") as f:
            for part in (0x1950A86A20F9469CFC6C, 1001, system):
                pickle.dump(part, f, protocol=2)
            f.write(pickled.getvalue())
            pickle.dump(sorted(data), f, protocol=2)
            for key in sorted(data):
                f.write(struct.pack("<q", data[key].size) + data[key].tobytes())
    else:
        with zipfile.ZipFile(path, "w") as z:
            z.writestr("archive/data.pkl", pickled.getvalue())
            z.writestr("archive/byteorder", "little")
            for key, array in data.items():
                z.writestr(f"archive/data/{key}", array.tobytes())
            z.writestr("archive/version", "3\n")


RNG = np.random.default_rng(0)
KERNEL = RNG.normal(size=(4, 3, 5, 2)).astype("float32")


@pytest.mark.parametrize("old", [True, False])
def test_arrays_keep_their_values_whatever_their_strides(old, tmp_path, torchs_names):
    shared = np.arange(12, dtype="float32")
    state = {
        "plain.weight": stored(KERNEL, "1"),
        # Channels last: the values lie in another order than the axes.
        "last.weight": stored(np.asfortranarray(KERNEL), "2"),
        "turned.weight": stored(KERNEL.transpose(0, 2, 3, 1), "3"),
        "part": Stored(shared, 3, (2, 2), (4, 1), key="4"),
        "other_part": Stored(shared, 0, (3,), (1,), key="4"),
        "num_batches_tracked": Stored(np.array([7]), 0, (), (), "LongStorage", "5"),
        "empty": Stored(np.zeros(0), 0, (0, 3), (3, 1), key="6"),
    }
    save(tmp_path / "a.pth", state, old)
    found = read(tmp_path / "a.pth")
    assert list(found) == list(state) and not found.notes
    for name in ("plain.weight", "last.weight"):
        np.testing.assert_array_equal(found[name], KERNEL)
    np.testing.assert_array_equal(found["turned.weight"], KERNEL.transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(found["part"], [[3, 4], [7, 8]])
    np.testing.assert_array_equal(found["other_part"], [0, 1, 2])
    assert found["num_batches_tracked"] == 7 and found["num_batches_tracked"].dtype == np.int64
    assert found["empty"].shape == (0, 3)


@pytest.mark.parametrize("old", [True, False])
def test_the_weights_of_a_checkpoint_are_found(old, tmp_path, torchs_names):
    state = {"epoch": 3, "optimizer": {"state": {0: {"step": 1}}}, "state_dict": {"a": stored(KERNEL, "0")}}
    save(tmp_path / "a.pth", state, old)
    found = read(tmp_path / "a.pth")
    assert list(found) == ["a"]
    assert found.notes == (
        "The weights are those under 'state_dict' of the checkpoint.",
        "Left out of the checkpoint: epoch, optimizer.",
    )


def without_torch(monkeypatch):
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *a: None if name == "torch" else real(name, *a))


@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize(
    ("tensor", "reason"),
    [
        (stored(KERNEL.astype("float16"), "0", "HalfStorage"), "it names torch HalfStorage"),
        (Stored(np.zeros(4), 0, (5,), (1,)), "a tensor in it is larger than its storage"),
        (Stored(np.zeros(4), 3, (2,), (1,)), "a tensor in it is larger than its storage"),
        (Stored(np.zeros(4), 0, (1 << 30, 4), (0, 1)), "a tensor in it is larger than its storage"),
        (Stored(np.zeros(4), -1, (2,), (1,)), "its offset is no number of 0 or more"),
        (Stored(np.zeros(4), 0, (2,), (-1,)), "its stride of a tensor is no number of 0 or more"),
        (Stored(np.zeros(4), 0, (2, 2), (1,)), "the shape and the strides of a tensor in it do not belong together"),
    ],
)
def test_what_is_no_plain_tensor_is_left_to_torch(tensor, reason, old, tmp_path, monkeypatch, torchs_names):
    save(tmp_path / "a.pth", {"a": tensor}, old)
    without_torch(monkeypatch)
    with pytest.raises(WeightsError, match=f"without torch, but {reason}.*pip install torch"):
        read(tmp_path / "a.pth")


def test_many_views_of_one_storage_do_not_fill_the_memory(tmp_path, monkeypatch, torchs_names):
    monkeypatch.setattr(sys.modules["kzoo.weights.read"], "FLOOR", 1 << 16)
    memory = np.zeros(5000)
    save(tmp_path / "a.pth", {f"a{i}": Stored(memory, 0, (5000,), (1,)) for i in range(60)}, True)
    with pytest.raises(WeightsError, match="unpack to far more than the file holds"):
        read(tmp_path / "a.pth")


class Harm:
    def __reduce__(self):
        import os

        return os.system, ("touch harm",)


@pytest.mark.parametrize("old", [True, False])
def test_no_other_global_is_known(old, tmp_path, monkeypatch, torchs_names):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "a.pth", {"a": stored(KERNEL, "0"), "b": Harm()}, old)
    with pytest.raises(WeightsError, match=r"it holds a pickled posix.system"):
        read(tmp_path / "a.pth")
    with pytest.raises(Unknown, match="it names posix system"):
        interpret(pickle.dumps(Harm(), protocol=2))
    for value in (np.float32, set, len):
        with pytest.raises(Unknown, match="it names"):
            interpret(pickle.dumps(value, protocol=2))
    with pytest.raises(Unknown, match="opcode STACK_GLOBAL"):
        interpret(pickle.dumps(len, protocol=4))
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    ("pickled", "reason"),
    [
        (b"", "damaged"),
        (b"\x80\x02.", "damaged"),
        (b"\x80\x02K\x01K\x02.", "damaged"),  # two values
        (b"\x80\x02h\x05.", "damaged"),  # nothing was kept under 5
        (b"\x80\x02}K\x01K\x02s" * 1 + b"K\x01K\x02s.", "twice"),
        (b"\x80\x02})K\x01s.", "keys are no texts"),
        (b"\x80\x02K\x01)R.", "it calls what is no function"),
        (b"\x80\x02ccollections\nOrderedDict\nK\x01\x85R.", "it calls collections OrderedDict"),
        (b"\x80\x02K\x01K\x02a.", "appends to what is no list"),
        (b"\x80\x02K\x01Q.", "in another way than torch.save's"),
        (b"\x80\x02" + b"(" * 10 + b".", "damaged"),
    ],
)
def test_damaged_pickles(pickled, reason):
    with pytest.raises(Unknown, match=reason):
        interpret(pickled)


def test_deep_and_circular_values_end():
    """Neither is made by torch.save; nothing here recurses into them."""
    deep = b"\x80\x02" + b")" + b"\x85" * 200_000 + b"."
    assert interpret(deep)[0]
    with pytest.raises(Unknown, match="keys are no texts"):
        interpret(b"\x80\x02})" + b"\x85" * 200_000 + b"K\x01s.")
    circular = b"\x80\x02]q\x00h\x00a."
    value, end = interpret(circular)
    assert value[0] is value and end == len(circular)


@pytest.mark.parametrize("old", [True, False])
def test_a_cut_file_is_refused(old, tmp_path, monkeypatch, torchs_names):
    save(tmp_path / "a.pth", {"a": stored(KERNEL, "0")}, old)
    without_torch(monkeypatch)
    whole = (tmp_path / "a.pth").read_bytes()
    for n in (0, 1, 20, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "b.pth").write_bytes(whole[:n])
        with pytest.raises(WeightsError):
            read(tmp_path / "b.pth")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_changed_file_gives_arrays_or_one_kind_of_error(data):
    """An old file with changed bytes: no other exception leaves the reader, and shapes stay within the storage."""
    file = bytearray(test_a_changed_file_gives_arrays_or_one_kind_of_error.file)
    for _ in range(data.draw(st.integers(1, 4))):
        file[data.draw(st.integers(0, len(file) - 1))] = data.draw(st.integers(0, 255))
    path = test_a_changed_file_gives_arrays_or_one_kind_of_error.path
    path.write_bytes(file)
    try:
        value, array = load(path)
        if isinstance(value, dict) and hasattr(value.get("a"), "strides"):
            array(value["a"])
    except Unknown:
        pass


@pytest.fixture(autouse=True)
def _file_to_change(request, tmp_path):
    if request.node.name.startswith("test_a_changed_file"):
        request.getfixturevalue("torchs_names")
        save(tmp_path / "a.pth", {"a": stored(KERNEL[:1, :1, :2], "0"), "b": 3}, True)
        test = test_a_changed_file_gives_arrays_or_one_kind_of_error
        test.path, test.file = tmp_path / "b.pth", (tmp_path / "a.pth").read_bytes()


def test_as_torch_reads_it(tmp_path):
    """Against torch itself, where it is installed."""
    torch = pytest.importorskip("torch")
    state = {
        "a": torch.randn(4, 3, 5, 5).to(memory_format=torch.channels_last),
        "b": torch.arange(10)[3:7],
        "c": torch.randn(3, 4).T,
    }
    for old in (True, False):
        torch.save(state, tmp_path / "a.pth", _use_new_zipfile_serialization=not old)
        found = read(tmp_path / "a.pth")
        for name, t in state.items():
            np.testing.assert_array_equal(found[name], t.numpy())
