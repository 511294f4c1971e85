"""Reads one foreign file in a process of its own, with a limit on memory, and leaves plain bytes behind.

Run by `kzoo.weights.read`, never imported: `python worker.py KIND FILE FOLDER LIMIT BUDGET`, KIND "hdf5", "torch", or
"hdf5_names" and "torch_names", which leave out the arrays' bytes.
The C library under h5py can overflow on a crafted file and torch's reader can be made to allocate anything, so neither
runs beside the user's model. It imports the standard library, NumPy and the one library that it needs, not Keras.

Leaves in FOLDER data.bin (little-endian arrays, one after the other) and index.json ({"arrays": [{name, dtype, shape,
offset}], "config": the file's model_config or null, "notes": sentences on what was left out}); for a file that it
refuses error.txt, one line, and status 3.
"""

from __future__ import annotations

import json
import os
import re
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import ModuleType
    from typing import BinaryIO

    import h5py

PIECE = 16 << 20  # bytes that are held at a time


class Refused(Exception):
    """Why a file is not read; the message becomes error.txt."""


def main(kind: str, path: str, folder: str, limit: str, budget: str) -> int:
    """Read a file and leave its arrays, or the reason why not; the arguments are those of the command line.

    Args:
        kind: "hdf5", "hdf5_names", "torch" or "torch_names".
        path: The file.
        folder: Where to write.
        limit: Bytes that all arrays may have.
        budget: Bytes of memory that may be used.

    Returns:
        The exit status: 0, or 3 for a file that is refused.
    """
    try:
        with open(os.path.join(folder, "data.bin"), "wb") as out:
            write = Writer(out, int(limit))
            readers = {
                "hdf5": read_hdf5,
                "hdf5_names": read_hdf5_names,
                "torch": read_torch,
                "torch_names": read_torch_names,
            }
            more = readers[kind](path, write, int(budget))
        with open(os.path.join(folder, "index.json"), "w") as f:
            json.dump({"arrays": write.index, "config": None, "notes": [], **more}, f)
    except Exception as e:
        reason = str(e) if isinstance(e, Refused) else f"{type(e).__name__}: {e}"
        with open(os.path.join(folder, "error.txt"), "w") as f:
            f.write(ascii(reason.split("\n")[0][:500])[1:-1])
        return 3
    return 0


def limit_memory(budget: int) -> None:
    """Limit this process to `budget` bytes of memory more than it uses now, where the system can do that."""
    try:
        import resource

        with open("/proc/self/statm") as f:
            now = int(f.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + budget, now + budget))
    except (ImportError, OSError, ValueError):
        pass


class Writer:
    """Appends arrays to a file, and counts their bytes first.

    Args:
        out: The open file.
        limit: Bytes that all arrays may have.
    """

    def __init__(self, out: BinaryIO, limit: int) -> None:
        self.out, self.limit, self.offset, self.index, self.names = out, limit, 0, [], set()

    def declare(self, name: str, dtype: str, shape: tuple[int, ...], nbytes: int) -> None:
        """Add an array to the index; its bytes must be written next.

        Raises:
            Refused: The name occurs twice, or the array is too large.
        """
        if name in self.names:
            raise Refused(f"two arrays are called '{name}'")
        if len(shape) > 8:
            raise Refused(f"'{name}' has {len(shape)} dimensions")
        if self.offset + nbytes > self.limit:
            raise Refused(f"it declares more than {self.limit:,} bytes of arrays ('{name}' has shape {tuple(shape)})")
        self.names.add(name)
        self.index.append({"name": name, "dtype": dtype, "shape": list(shape), "offset": self.offset})
        self.offset += nbytes


def size(shape: Iterable[int], itemsize: int) -> int:
    """Return the bytes of an array, without overflow."""
    total = itemsize
    for n in shape:
        total *= int(n)  # Python's integers: no overflow
    return total


# --- HDF5 ------------------------------------------------------------------------------------------------


def read_hdf5(path: str, write: Writer, budget: int) -> dict:
    """Read a Keras file in HDF5.

    Args:
        path: The file.
        write: Takes the arrays.
        budget: As in `main`.

    Returns:
        {"config": the file's model_config, or None}.
    """
    os.environ["HDF5_PLUGIN_PATH"] = ""  # filters are native code
    import h5py

    limit_memory(budget)
    with h5py.File(path, "r", locking=False) as f:
        datasets = {}
        scan(h5py, f, "", datasets)
        root = "model_weights/" if "model_weights" in f and "layer_names" in f["model_weights"].attrs else ""
        if has_list(f[root] if root else f, "layer_names"):
            legacy(h5py, f[root] if root else f, root, datasets, write)
        else:
            numbered(h5py, f, datasets, write)
        config = texts(h5py, f, "model_config")
    return {"config": config[0] if config else None}


def read_hdf5_names(path: str, write: Writer, budget: int) -> dict:
    """Read what a file of Keras 3 calls its arrays, behind the models that they are in; arguments as in `read_hdf5`.

    Such as "vgg_image_classifier/vgg_backbone/block1_conv1/0", and ".../conv2d/0" where layers have no names. A file of
    Keras 2 gives none.
    """
    os.environ["HDF5_PLUGIN_PATH"] = ""
    import h5py

    limit_memory(budget)
    with h5py.File(path, "r", locking=False) as f:
        datasets = {}
        scan(h5py, f, "", datasets)
        whole = texts(h5py, f["vars"], "name") if "vars" in f else []
        for path, dataset in datasets.items():
            *models, layer, variables, number = ["", "", *path.split("/")]
            if variables == "vars" and layer and not path.startswith("optimizer/"):  # the state of a training
                name = texts(h5py, dataset.parent, "name") or [layer]
                models = [m for m in models if m not in ("", "layers")]
                write.declare("/".join([*whole[:1], *models, name[0], number]), "<f4", (), 0)
    return {}


def scan(h5py: ModuleType, group: h5py.Group, prefix: str, datasets: dict[str, h5py.Dataset], depth: int = 0) -> None:
    """Collect all datasets by path.

    Args:
        h5py: The package.
        group: Where to begin.
        prefix: Its path with a slash.
        datasets: {path: dataset}, to which they are added.
        depth: Of the group.

    Raises:
        Refused: A link is not a plain one, or an item is not a plain dataset.
    """
    if depth > 16:
        raise Refused(f"its groups are nested deeper than 16 at '{prefix}'")
    for name in group:
        path = f"{prefix}{name}"
        link = group.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            kind = {"SoftLink": "a soft link", "ExternalLink": "a link to another file"}.get(
                type(link).__name__, "a link"
            )
            raise Refused(f"'{path}' is {kind}; weights are stored in the file itself")
        item = group[name]
        if isinstance(item, h5py.Group):
            scan(h5py, item, path + "/", datasets, depth + 1)
        elif isinstance(item, h5py.Dataset):
            check(path, item)
            datasets[path] = item
        else:
            raise Refused(f"'{path}' is neither a group nor an array")
        if len(datasets) > 100_000:
            raise Refused("it holds more than 100,000 arrays")


def check(path: str, d: h5py.Dataset) -> None:
    """Check that a dataset holds plain numbers, in this file, as many as it declares.

    Raises:
        Refused: It does not.
    """
    if d.is_virtual or d.external:
        raise Refused(f"'{path}' takes its values from another file")
    if d.dtype.kind not in "fiu":
        raise Refused(f"'{path}' is of type {d.dtype}, not of plain numbers")
    if d.shape is None:
        raise Refused(f"'{path}' is empty")
    declared, stored = size(d.shape, d.dtype.itemsize), d.id.get_storage_size()
    plist = d.id.get_create_plist()
    filters = {plist.get_filter(i)[0] for i in range(plist.get_nfilters())}
    if filters - {1, 2, 3}:  # gzip, shuffle, checksum
        raise Refused(f"'{path}' is packed in a way that Keras does not use (filters {sorted(filters)})")
    if declared > (1100 if filters else 1) * stored:  # gzip can't do better than 1032 to 1
        raise Refused(f"'{path}' declares {declared:,} bytes, shape {d.shape}, but stores {stored:,}")
    if d.chunks and size(d.chunks, d.dtype.itemsize) > 8 * PIECE:
        raise Refused(f"'{path}' comes in pieces of {d.chunks}")


def texts(h5py: ModuleType, item: h5py.Group | h5py.File, name: str) -> list[str]:
    """Return a text attribute as a list of strings, [] if it does not exist."""
    if name not in item.attrs:
        return []
    attribute = h5py.h5a.open(item.id, name.encode())
    if size(attribute.shape, attribute.dtype.itemsize) > 64 << 20 or size(attribute.shape, 1) > 100_000:
        raise Refused(f"the attribute '{name}' is too large")
    value = item.attrs[name]
    value = value.tolist() if hasattr(value, "tolist") else value
    value = value if isinstance(value, list) else [value]
    return [v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in value]


def has_list(group: h5py.Group, name: str) -> bool:
    """Return whether a group has a list of names as an attribute, see `listed`."""
    return name in group.attrs or f"{name}0" in group.attrs


def listed(h5py: ModuleType, group: h5py.Group, name: str) -> list[str]:
    """Return a list of names; Keras splits one that is too long for an attribute into name0, name1, ..."""
    if name in group.attrs:
        return texts(h5py, group, name)
    result, i = [], 0
    while f"{name}{i}" in group.attrs:
        result += texts(h5py, group, f"{name}{i}")
        i += 1
    return result


def legacy(h5py: ModuleType, root: h5py.Group, prefix: str, datasets: dict[str, h5py.Dataset], write: Writer) -> None:
    """Read a file of Keras 1 or 2: the attributes layer_names and weight_names give the order.

    The variables of a model that is a layer of another (a backbone in a Sequential) get the names of their own layers.

    Args:
        h5py: The package.
        root: The group of the layers.
        prefix: Its path with a slash.
        datasets: {path: dataset} of the file.
        write: Takes the arrays.
    """
    for layer in listed(h5py, root, "layer_names"):
        group = root.get(layer)
        if not isinstance(group, h5py.Group):
            raise Refused(f"it lists the layer '{layer}' and does not hold it")
        weights = listed(h5py, group, "weight_names")
        owners = ["/".join(weight.split("/")[-2:-1]) for weight in weights]
        nested = len(set(owners)) > 1 and all(owners)
        for i, (weight, owner) in enumerate(zip(weights, owners, strict=True)):
            path = f"{prefix}{layer}/{weight}"
            if path not in datasets:
                raise Refused(f"it lists the array '{path}' and does not hold it")
            copy(f"{owner if nested else layer}/{variable(weight, i)}", datasets[path], write)


SUFFIXES = {
    "W": "kernel",
    "b": "bias",
    "gamma": "gamma",
    "beta": "beta",
    "running_mean": "moving_mean",
    "running_std": "moving_variance",  # Keras 1 called the variance std
}


def variable(weight: str, i: int) -> str:
    """Return the name of a variable.

    Args:
        weight: Its name in the file: "conv1/kernel:0" gives kernel; Keras 1: "block1_conv1_W_1:0" gives kernel.
        i: Its number in the layer, which stands for a name that says nothing, such as "uniform3".
    """
    name = weight.rsplit("/", 1)[-1].split(":")[0]
    stem = name[:-2] if name.endswith("_1") else name
    for suffix, meaning in SUFFIXES.items():
        if stem == suffix or stem.endswith("_" + suffix):
            return meaning
    return str(i) if any(c.isdigit() for c in name) else name


def numbered(h5py: ModuleType, f: h5py.File, datasets: dict[str, h5py.Dataset], write: Writer) -> None:
    """Read a file of Keras 3: .../vars/0, 1, ...; the layer's name is an attribute of vars.

    Args:
        h5py: The package.
        f: The file.
        datasets: {path: dataset} of the file.
        write: Takes the arrays.
    """
    found = False
    # HDF5 lists names in the order of the alphabet: 0, 1, 10, 2.
    for path in sorted(datasets, key=lambda p: (p.rpartition("/")[0], len(p), p)):
        parts = path.split("/")
        if len(parts) < 3 or parts[-2] != "vars":
            continue
        found = True
        if (
            parts[0] in ("optimizer", "metrics", "loss_tracker")
            or parts[-3] == "seed_generator"
            or "_metrics" in parts[0]
        ):
            continue  # the state of a training, not of the network
        name = texts(h5py, datasets[path].parent, "name")
        copy(f"{name[0] if name else '/'.join(parts[:-2])}/{parts[-1]}", datasets[path], write)
    if not found:
        raise Refused("it is neither a Keras weights file nor a Keras model (no layer_names, no vars)")


def copy(name: str, d: h5py.Dataset, write: Writer) -> None:
    """Copy a dataset in pieces, little-endian."""
    import numpy as np

    dtype = d.dtype.newbyteorder("<")
    write.declare(name, dtype.str, d.shape, size(d.shape, dtype.itemsize))
    if d.ndim == 0:
        write.out.write(np.asarray(d[()], dtype).tobytes())
        return
    row = max(1, size(d.shape[1:], dtype.itemsize))
    step = max(1, PIECE // row)
    for start in range(0, d.shape[0], step):
        write.out.write(np.ascontiguousarray(d[start : start + step], dtype).tobytes())


# --- torch -----------------------------------------------------------------------------------------------


# Where a checkpoint keeps the weights, beside the optimiser and the rest; of several the first. The averaged weights
# (EMA) are those that such a training measures and publishes.
STATES = (
    "state_dict_ema",
    "model_ema",
    "ema_state_dict",
    "ema",
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "net",
    "network",
    "weights",
    "params",
)
DEPTH = 4  # dictionaries within dictionaries


def read_torch(path: str, write: Writer, budget: int, *, data: bool = True) -> dict:
    """Read a state_dict, alone or in a checkpoint, by torch's weights-only loader; arguments as in `read_hdf5`.

    Args:
        path: The file.
        write: Takes the arrays.
        budget: As in `main`.
        data: Whether to write the bytes of the arrays.

    Returns:
        {"notes": sentences on what was chosen and left out}.
    """
    import torch

    limit_memory(budget)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)  # never without weights_only
    except Exception as e:
        raise Refused(reason_of(e)) from e
    state, notes = state_of(state, torch.Tensor)
    for name, t in state.items():
        if t.layout != torch.strided or t.is_quantized or t.device.type != "cpu" or t.is_complex():
            raise Refused(f"'{name}' is not a plain dense tensor")
        t = t.detach()  # a Parameter, which NumPy does not take
        nbytes = size(t.shape, t.element_size())
        dtype = "bfloat16" if t.dtype == torch.bfloat16 else None
        write.declare(name, dtype or t[()].flatten()[:0].numpy().dtype.newbyteorder("<").str, t.shape, nbytes)
        if data:
            t = t.contiguous()
            write.out.write((t.view(torch.int16) if dtype else t).numpy().tobytes())
    return {"notes": notes}


def read_torch_names(path: str, write: Writer, budget: int) -> dict:
    """Read the names, types and shapes only; arguments as in `read_torch`."""
    return read_torch(path, write, budget, data=False)


def state_of(found: Any, tensor: type[Any]) -> tuple[dict, list[str]]:
    """Find the names and tensors in what a file holds.

    Args:
        found: What torch.load gave: a state_dict, or a checkpoint with one in it.
        tensor: The class of its tensors.

    Returns:
        ({name: tensor}, sentences on what was chosen and left out).

    Raises:
        Refused: There are no tensors by name.
    """
    where, left = [], []
    for _ in range(DEPTH):
        if not isinstance(found, dict) or not found:
            raise Refused(f"it holds a {type(found).__name__}, not a state_dict (names and tensors)")
        inner = [k for k in STATES if isinstance(found.get(k), dict) and found[k]]
        tensors = {k: t for k, t in found.items() if isinstance(k, str) and isinstance(t, tensor)}
        others = [k for k in found if k not in tensors]
        if not inner and not tensors:  # a name of its own: the only entry that holds tensors
            inner = [k for k in others if holds_tensors(found[k], tensor)]
            if len(inner) != 1:
                kinds = ", ".join(f"{k!r}: {type(found[k]).__name__}" for k in others[:5])
                raise Refused(f"it holds {kinds}, not a state_dict (names and tensors)")
        if not inner:
            left += [".".join((*where, str(k))) for k in others]
            break
        left += [".".join((*where, str(k))) for k in found if k != inner[0]]
        where.append(str(inner[0]))
        found = found[inner[0]]
    else:
        raise Refused(f"its dictionaries are nested deeper than {DEPTH}")
    notes = []
    if where:
        notes.append(f"The weights are those under '{'.'.join(where)}' of the checkpoint")
    if left:
        more = f" and {len(left) - 12} more" if len(left) > 12 else ""
        notes.append(f"Left out of the checkpoint: {', '.join(left[:12])}{more}")
    return tensors, [ascii(note)[1:-1] + "." for note in notes]


def holds_tensors(item: object, tensor: type[Any]) -> bool:
    """Return whether an item is a dictionary with tensors by name, or with such a dictionary in it."""
    for _ in range(DEPTH):
        if not isinstance(item, dict):
            return False
        if any(isinstance(t, tensor) and t.ndim for t in item.values()):
            return True
        item = next((v for k, v in item.items() if k in STATES), None)
    return False


def reason_of(error: Exception) -> str:
    """Return why torch's weights-only loader refuses a file, without its advice to switch the safety off."""
    text = str(error)
    if match := re.search(r"Unsupported (?:global|class)\W+(?:GLOBAL )?([\w.]+)|GLOBAL ([\w.]+)", text):
        return (
            f"it holds a pickled {match[1] or match[2]}, a Python object and not a tensor; save the weights alone: "
            "torch.save(model.state_dict(), 'x.pth')"
        )
    if match := re.search(r"Unsupported operand \d+", text):
        return f"it is damaged, or is not what torch.save writes ({match[0]})"
    lines = [line.strip() for line in text.split("WeightsUnpickler error:")[-1].splitlines() if line.strip()]
    first = next((line for line in lines if not re.search("weights_only|trust|safe_globals", line)), "")
    return f"torch's weights-only loader refuses it ({type(error).__name__}{': ' + first[:200] if first else ''})"


if __name__ == "__main__":
    del sys.path[0]  # this folder: its modules are no part of the worker
    sys.exit(main(*sys.argv[1:]))
