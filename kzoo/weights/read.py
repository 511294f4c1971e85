"""File formats -> named arrays. No code from a file runs, nothing is unpacked to its paths, no size is trusted."""

from __future__ import annotations

import json
import math
import os
import pickletools
import re
import struct
import subprocess
import sys
import tempfile
import tokenize
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import IO, Any

import numpy as np

from kzoo.errors import WeightsError

# Suffix -> format. The content is checked by each reader.
FORMATS = {
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".keras": "keras",
    ".safetensors": "safetensors",
    ".npz": "npz",
    ".pth": "pth",
    ".pt": "pth",
    ".th": "pth",
    ".bin": "pth",
    ".ckpt": "pth",
    ".pth.tar": "pth",
}

# What a file of n bytes may unpack to. Weights hardly compress; zeros do, hence the floor.
FLOOR = 64 << 20
RATIO = 20
MEMBERS = 100_000
HEADER = 64 << 20  # bytes of JSON

# Keras classes that run code or read files when an object is made.
UNSAFE = {
    "Lambda",
    "TFSMLayer",
    "TorchModuleWrapper",
    "JaxLayer",
    "FlaxLayer",
    "StringLookup",
    "IntegerLookup",
    "IndexLookup",
    "TextVectorization",
    "Hashing",
}

# What the libraries raise on a corrupt file.
DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    KeyError,
    OverflowError,
    NotImplementedError,
    RecursionError,
    MemoryError,
    SyntaxError,
    tokenize.TokenError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


class Arrays(dict):
    """{name: array} of a file, and `notes`: a sentence on each thing that was chosen or left out in reading it."""

    def __init__(self, arrays: Mapping[str, np.ndarray] | None = None, notes: Sequence[str] = ()) -> None:
        super().__init__(arrays or {})
        self.notes = tuple(notes)


def format_of(path: str | os.PathLike) -> str | None:
    """Return the format of a file by its suffix, None for an unknown one.

    Example:
        >>> format_of("a/best.pth.tar"), format_of("model.weights.h5"), format_of("notes.txt")
        ('pth', 'hdf5', None)
    """
    name = Path(path).name.lower()
    return next((kind for suffix, kind in FORMATS.items() if name.endswith(suffix) and name != suffix), None)


def bound(path: str | os.PathLike) -> int:
    """Return the bytes that the arrays of a file may have, from the size of the file."""
    return max(FLOOR, RATIO * os.path.getsize(path))


def read(path: str | os.PathLike) -> Arrays:
    """Read all arrays of a weights file.

    Names are the file's; for Keras' files `<layer>/<variable>`, or `<layer>/<number>` where the file only numbers a
    layer's variables (Keras 3's .weights.h5 and .keras). bfloat16 becomes float32, which holds it exactly.

    Args:
        path: A file with one of the suffixes in FORMATS.

    Returns:
        {name: array}, in the file's order, with `notes` on what was chosen or left out.

    Raises:
        WeightsError: One line with the file's name: it is missing, corrupt, unsafe or of an unknown format.
    """
    path = Path(path)
    kind = format_of(path)
    if kind is None:
        raise WeightsError(f"{path}: '{path.suffix}' is not a weights format; known are {', '.join(FORMATS)}.")
    try:
        if not path.is_file():
            raise WeightsError(f"{path}: the file does not exist.")
        readers = {
            "hdf5": read_hdf5,
            "keras": read_keras,
            "safetensors": read_safetensors,
            "npz": read_npz,
            "pth": read_pth,
        }
        arrays = readers[kind](path)
    except WeightsError as e:
        text = str(e)
        raise WeightsError(text if text.startswith(str(path)) else f"{path}: {text}") from e
    except DAMAGE as e:
        raise WeightsError(f"{path} can't be read as {kind}: {shown(str(e).partition(chr(10))[0])}.") from e
    if not arrays:
        raise WeightsError(f"{path}: it holds no arrays.")
    return arrays if isinstance(arrays, Arrays) else Arrays(arrays)


def names_of(path: str | os.PathLike) -> list[str]:
    """Read the names of the arrays of a file, without the arrays.

    Args:
        path: The file.

    Returns:
        The names, in a `.weights.h5` with those of the models that they are in; none for Keras' other formats, whose
        layers have kzoo's names, or for a file that can't be read: `read` says why.
    """
    kind = format_of(path)
    try:
        if str(path).lower().endswith(".weights.h5"):
            return list(read_hdf5(path, names=True))
        if kind == "npz":
            with zipfile.ZipFile(path) as z:
                return [name.removesuffix(".npy") for name in z.namelist()[:MEMBERS]]
        if kind == "safetensors":
            return list(safetensors_header(path)[0])
        if kind == "pth":
            return list(read_pth(path, data=False))
    except (WeightsError, *DAMAGE):
        pass
    return []


def shown(text: object, length: int = 200) -> str:
    """Format text from a file for a message: one line without control characters, at most `length` of them."""
    text = str(text)
    return (text if text.isprintable() else ascii(text)[1:-1])[:length]


# --- Through the worker ----------------------------------------------------------------------------------


def worker(kind: str, path: str | os.PathLike, *, budget: int, seconds: float, limit: int) -> tuple[Arrays, str | None]:
    """Read a file by worker.py in a process of its own.

    Args:
        kind: "hdf5", "torch", or "hdf5_names" and "torch_names" for names without values.
        path: The file.
        budget: Bytes of memory that the process may use.
        seconds: Time limit.
        limit: Bytes that all arrays may have.

    Returns:
        ({name: array}, the file's model_config or None).

    Raises:
        WeightsError: It refuses the file, crashes, or takes too long.
    """
    script = Path(__file__).with_name("worker.py")
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "HDF5_PLUGIN_PATH": ""}
    with tempfile.TemporaryDirectory(prefix="kzoo-") as folder:
        command = [sys.executable, script, kind, os.path.abspath(path), folder, str(limit), str(budget)]
        try:
            done = subprocess.run(
                command,
                env=environment,
                timeout=seconds,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise WeightsError(f"reading it took longer than {seconds:.0f} s; it is corrupt or malicious.") from None
        folder = Path(folder)
        if done.returncode == 3 and (folder / "error.txt").is_file():
            raise WeightsError(f"{shown((folder / 'error.txt').read_text(), 600)}.")
        if done.returncode or not (folder / "index.json").is_file():
            raise WeightsError(
                f"the library that reads it failed (status {done.returncode}); it is corrupt or malicious."
            )
        # The worker has read an untrusted file, so its output is checked, too.
        index = json.loads((folder / "index.json").read_text())
        data = folder / "data.bin"
        if data.stat().st_size > limit:
            raise WeightsError("the reader left more than it may; the file is corrupt or malicious.")
        if kind.endswith("_names"):
            return Arrays({a["name"]: np.empty(0) for a in index["arrays"]}), None
        arrays = {a["name"]: take(data, a["dtype"], a["shape"], a["offset"]) for a in index["arrays"]}
        return Arrays(arrays, index["notes"]), index["config"]


def width(dtype: str) -> int:
    """Return the bytes of one number; NumPy has no bfloat16."""
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize


def take(path: Path, dtype: str, shape: Sequence[int], offset: int) -> np.ndarray:
    """Read an array from a file of raw numbers.

    Args:
        path: The file.
        dtype: NumPy's name, or "bfloat16".
        shape: Of the array; it is checked.
        offset: Its first byte.

    Returns:
        The array; float32 for bfloat16.

    Raises:
        WeightsError: The file is too short, or the type and shape are not those of numbers.
    """
    widen = dtype == "bfloat16"
    dtype = np.dtype("<u2" if widen else dtype)
    if dtype.hasobject or any(type(n) is not int or n < 0 for n in shape):
        raise WeightsError(f"it holds an array of type {dtype} and shape {shape}.")
    count = math.prod(shape)
    array = np.fromfile(path, dtype, count, offset=offset)
    if array.size != count:
        raise WeightsError("it is cut off.")
    return from_bfloat16(array.reshape(shape)) if widen else array.reshape(shape)


def from_bfloat16(bits: np.ndarray) -> np.ndarray:
    """Convert bfloat16, given as uint16, to float32, whose upper half it is."""
    return (bits.astype("<u4") << 16).view("<f4")


def seconds_for(path: str | os.PathLike, start: float) -> float:
    """Return a time limit: `start` for a slow machine to begin, and 5 MB a second. Some crafted files never end."""
    return start + os.path.getsize(path) / 5e6


# --- HDF5, .keras ----------------------------------------------------------------------------------------


def read_hdf5(path: str | os.PathLike, limit: int | None = None, *, names: bool = False) -> dict[str, np.ndarray]:
    """Read Keras' weights in HDF5: legacy (Keras 1 and 2, weights or whole models) and .weights.h5 of Keras 3.

    Args:
        path: The file.
        limit: Bytes that all arrays may have; by default what the file's own size allows.
        names: Read the names alone, see `names_of`; all arrays are empty.
    """
    return read_hdf5_model(path, limit, names=names)[0]


def read_hdf5_model(
    path: str | os.PathLike, limit: int | None = None, *, names: bool = False
) -> tuple[Arrays, dict[str, Any] | None]:
    """Read an HDF5 file of Keras: its arrays, and the config of a whole model, which holds Keras' own layers only.

    Args:
        path: The file.
        limit: As in `read_hdf5`.
        names: As in `read_hdf5`.

    Returns:
        ({name: array}, the config or None).
    """
    with open(path, "rb") as f:
        if f.read(8) != b"\x89HDF\r\n\x1a\n":
            raise WeightsError("it is not an HDF5 file.")
    kind, limit = "hdf5_names" if names else "hdf5", limit or bound(path)
    arrays, text = worker(kind, path, budget=768 << 20, seconds=seconds_for(path, 30), limit=limit)
    if text is None:
        return arrays, None
    config = parse_json(text)
    check_config(config)
    return arrays, config


def read_keras(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Read the weights of a .keras file. Its config.json is checked for what it holds; no object is made from it."""
    with zipfile.ZipFile(path) as z:
        members = checked_members(z, path)
        for name in ("config.json", "model.weights.h5"):
            if name not in members:
                raise WeightsError(f"it holds no {name}; Keras 3 writes one into every .keras file.")
        config = parse_json(member(z, members["config.json"], HEADER))
        check_config(config)
        # The copy gets Keras' own name, so that messages are clear; the path is ours.
        with tempfile.TemporaryDirectory(prefix="kzoo-") as folder:
            copy = Path(folder) / "model.weights.h5"
            extract(z, members["model.weights.h5"], copy)
            arrays = read_hdf5(copy, bound(path))  # of the archive: it may be small and unpack to much
    keys = layer_keys(config)
    return {named(name, keys): a for name, a in arrays.items()}


def check_config(config: Any) -> None:
    """Check that a model holds nothing but Keras' own layers and kzoo's: others could run code when they are made.

    Args:
        config: The parsed config.json or model_config.

    Raises:
        WeightsError: It holds something else.
    """
    stack, seen = [config], 0
    while stack:
        item = stack.pop()
        seen += 1
        if seen > 5_000_000:
            raise WeightsError("its config is too large.")
        if isinstance(item, list):
            stack.extend(item)
        elif isinstance(item, dict):
            name, module, package = (item.get(k) for k in ("class_name", "module", "registered_name"))
            if isinstance(name, str):
                if name in UNSAFE or name.startswith("__lambda"):
                    raise WeightsError(
                        f"it holds a {shown(name)}, which can run code; its weights are not taken from it."
                    )
                if isinstance(module, str) and module.split(".")[0] not in ("keras", "kzoo", "builtins"):
                    raise WeightsError(
                        f"it holds {shown(module)}.{shown(name)}, which is not Keras'; export the weights alone."
                    )
                if (
                    isinstance(package, str)
                    and ">" in package
                    and package.split(">")[0] not in ("keras", "kzoo", "Keras")
                ):
                    raise WeightsError(f"it holds the foreign object {shown(package)}; export the weights alone.")
            stack.extend(item.values())


def layer_keys(config: Any) -> dict[str, str]:
    """Find the names of layers in config.json. Files of early Keras 3 name no layers: a key is the class and a count.

    Args:
        config: The parsed config.json.

    Returns:
        {key in the weights file: the layer's name}.
    """
    keys, counts = {}, {}
    inner = config.get("config") if isinstance(config, dict) else None
    layers = inner.get("layers") if isinstance(inner, dict) else None
    for layer in layers if isinstance(layers, list) else []:
        own = layer.get("config") if isinstance(layer, dict) else None
        cls, name = (layer.get("class_name"), own.get("name")) if isinstance(own, dict) else (None, None)
        if not isinstance(cls, str) or not isinstance(name, str):
            continue
        words = re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", re.sub(r"\W+", "", cls))
        snake = re.sub(r"([a-z])([A-Z])", r"\1_\2", words).lower()
        n = counts.get(snake, 0)
        counts[snake] = n + 1
        keys[f"layers/{snake}_{n}" if n else f"layers/{snake}"] = name
    return keys


def named(name: str, keys: Mapping[str, str]) -> str:
    """Return `<layer>/<variable>` for an array of a .keras file; `keys` as from `layer_keys`."""
    layer, _, variable = name.rpartition("/")
    return f"{keys.get(layer, layer)}/{variable}"


# --- Zip files -------------------------------------------------------------------------------------------


def checked_members(z: zipfile.ZipFile, path: str | os.PathLike) -> dict[str, zipfile.ZipInfo]:
    """Check the names and declared sizes of a zip file's members.

    Args:
        z: The open archive.
        path: Its file, whose size bounds what may be in it.

    Returns:
        {name: member}.

    Raises:
        WeightsError: A name leads out of the archive or occurs twice, a member is encrypted or packed in an unusual
            way, or they are too large.
    """
    members, total = {}, 0
    for info in z.infolist():
        parts = info.filename.replace("\\", "/").split("/")
        if info.filename.startswith(("/", "\\")) or ".." in parts or ":" in parts[0]:
            raise WeightsError(f"it holds '{shown(info.filename)}', a path that leads out of it.")
        if info.filename in members:
            raise WeightsError(f"it holds '{shown(info.filename)}' twice.")
        if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise WeightsError(f"'{shown(info.filename)}' in it is encrypted or packed in an unusual way.")
        members[info.filename] = info
        total += info.file_size
    if len(members) > MEMBERS or total > bound(path):
        raise WeightsError(
            f"it unpacks to {total:,} bytes in {len(members):,} members: too much for a file of its size."
        )
    return members


def extract(z: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, most: int | None = None) -> None:
    """Write a checked member to a file of ours, no more than it declares.

    Args:
        z: The open archive.
        info: The member.
        path: The file.
        most: Bytes at most, if that is less.
    """
    left = info.file_size if most is None else min(info.file_size, most)
    with z.open(info) as source, open(path, "wb") as f:
        while left and (piece := source.read(min(left, 1 << 20))):
            f.write(piece)
            left -= len(piece)


def member(z: zipfile.ZipFile, info: zipfile.ZipInfo, limit: int) -> bytes:
    """Read one member.

    Args:
        z: The open archive.
        info: The member.
        limit: The most bytes that it may have.

    Raises:
        WeightsError: It has more, or another length than it declares.
    """
    if info.file_size > limit:
        raise WeightsError(f"'{shown(info.filename)}' in it is larger than {limit:,} bytes.")
    with z.open(info) as f:
        data = f.read(info.file_size + 1)
    if len(data) != info.file_size:
        raise WeightsError(f"'{shown(info.filename)}' in it is not as long as it says.")
    return data


def read_npz(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Read plain arrays, as numpy.savez writes them."""
    with zipfile.ZipFile(path) as z:
        members = checked_members(z, path)
        arrays = {}
        for filename, info in members.items():
            if not filename.endswith(".npy"):
                raise WeightsError(f"'{shown(filename)}' in it is not an array.")
            with z.open(info) as f:
                arrays[filename[:-4]] = read_npy(f, info.file_size, shown(filename))
    return arrays


def read_npy(f: IO[bytes], size: int, name: str) -> np.ndarray:
    """Read one .npy stream. The header is checked before anything is allocated.

    Args:
        f: The stream.
        size: Its bytes.
        name: For messages.

    Raises:
        WeightsError: It holds something else than plain numbers, or not as many bytes as it declares.
    """
    version = np.lib.format.read_magic(f)
    header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if header is None:
        raise WeightsError(f"'{name}' in it has the .npy version {version}; plain arrays have 1.0 or 2.0.")
    shape, fortran, dtype = header(f, max_header_size=10_000)
    if dtype.hasobject:  # a pickle
        raise WeightsError(f"'{name}' in it holds Python objects; only plain numbers are read.")
    if dtype.kind not in "fiub" or len(shape) > 8:
        raise WeightsError(f"'{name}' in it is of type {dtype} and shape {shape}, no weights.")
    nbytes = math.prod(shape) * dtype.itemsize
    if f.tell() + nbytes != size:
        raise WeightsError(f"'{name}' in it has shape {shape}, {nbytes:,} bytes, but stores {size - f.tell():,}.")
    data = f.read(nbytes + 1)  # one more: reads to the end, where zipfile compares the checksum
    if len(data) != nbytes:
        raise WeightsError(f"'{name}' in it is cut off.")
    array = np.frombuffer(data, dtype).reshape(shape[::-1] if fortran else shape)
    return array.T if fortran else array


# --- safetensors -----------------------------------------------------------------------------------------

TYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "bfloat16",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "u1",
    "BOOL": "?",
}


def read_safetensors(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Read Hugging Face's format: the length of a header, the header as JSON, then the arrays, end to end."""
    header, start = safetensors_header(path)
    return {
        name: take(path, TYPES[entry["dtype"]], entry["shape"], start + entry["data_offsets"][0])
        for name, entry in header.items()
    }


def safetensors_header(path: str | os.PathLike) -> tuple[dict[str, dict], int]:
    """Read and check the header of a safetensors file.

    Args:
        path: The file.

    Returns:
        ({name: entry}, the first byte of the arrays).

    Raises:
        WeightsError: It does not describe plain arrays that fill the file.
    """
    size = os.path.getsize(path)
    with open(path, "rb") as f:
        start = f.read(8)
        if len(start) < 8:
            raise WeightsError("it is cut off.")
        length = struct.unpack("<Q", start)[0]
        if length > min(HEADER, size - 8):
            raise WeightsError(f"its header declares {length:,} bytes in a file of {size:,}.")
        header = parse_json(f.read(length))
    if not isinstance(header, dict):
        raise WeightsError("its header is not a table of arrays.")
    header.pop("__metadata__", None)
    spans = []
    for name, entry in header.items():
        dtype, shape, span = (
            entry.get(k) if isinstance(entry, dict) else None for k in ("dtype", "shape", "data_offsets")
        )
        whole = [n for n in (shape, span) if isinstance(n, list) and all(type(i) is int and i >= 0 for i in n)]
        if len(whole) != 2 or len(span) != 2 or len(shape) > 8 or not isinstance(dtype, str) or dtype not in TYPES:
            raise WeightsError(f"its entry '{shown(name)}' is not one of a plain array (type {shown(dtype)}).")
        if span[1] - span[0] != math.prod(shape) * width(TYPES[dtype]):
            raise WeightsError(
                f"'{shown(name)}' in it has shape {shape}, which is not the {span[1] - span[0]:,} bytes it gets."
            )
        spans.append((*span, name))
    end = 0
    for a, b, name in sorted(spans):
        if a != end:
            raise WeightsError(f"'{shown(name)}' in it overlaps another array, or leaves a gap.")
        end = b
    if end != size - 8 - length:
        raise WeightsError(f"its arrays take {end:,} bytes; the file stores {size - 8 - length:,}.")

    return header, 8 + length


def parse_json(text: str | bytes) -> Any:
    """Parse JSON in which no key occurs twice.

    Raises:
        WeightsError: A key occurs twice.
    """

    def once(pairs):
        table = dict(pairs)
        if len(table) != len(pairs):
            names = [k for k, _ in pairs]
            raise WeightsError(f"'{shown(next(k for k in names if names.count(k) > 1))}' is in it twice.")
        return table

    return json.loads(text, object_pairs_hook=once)


# --- PyTorch ---------------------------------------------------------------------------------------------


# Roots of what a state_dict is pickled from, which torch's loader judges. A network's modules are no part of it.
PLAIN = re.compile(
    r"(collections|numpy|builtins|__builtin__|_codecs|copy_reg|copyreg)\..*|torch\.(?!nn\.(modules|parallel)\.|optim\.).*"
)


def pickled_class(pickled: bytes) -> str | None:
    """Find a class in a pickle that no state_dict holds. The opcodes are read as data, nothing is made from them.

    Args:
        pickled: The pickle; what follows it does no harm.

    Returns:
        Its name with its module, such as "torchvision.models.resnet.ResNet"; None if there is none.
    """
    texts = []  # the strings that the opcodes in front have pushed
    try:
        for opcode, argument, _ in pickletools.genops(pickled):
            found = None
            if opcode.name == "GLOBAL":
                found = argument.replace(" ", ".")
            elif opcode.name == "STACK_GLOBAL" and len(texts) > 1:
                found = ".".join(texts[-2:])
            if found and not PLAIN.fullmatch(found):
                return found
            if isinstance(argument, str) and opcode.name != "GLOBAL":
                texts.append(argument)
            elif opcode.name not in ("MEMOIZE", "BINPUT", "LONG_BINPUT", "PUT"):
                texts = []
    except Exception:  # whatever a damaged pickle makes of the reader: torch's loader says what is wrong
        pass
    return None


def read_pth(path: str | os.PathLike, *, data: bool = True) -> Arrays:
    """Read a PyTorch state_dict, alone or in a checkpoint.

    Float32 and integer tensors are read by `torch_file`, without torch; a file with others by torch's weights-only
    loader, in a process of its own.

    Args:
        path: The file.
        data: Whether to read the values, too; without them all arrays are empty.
    """
    from importlib.util import find_spec

    from kzoo.weights.torch_file import Unknown

    archive = zipfile.is_zipfile(path)
    if archive:
        with zipfile.ZipFile(path) as z:
            members = checked_members(z, path)
            if any(name.split("/")[1:] == ["constants.pkl"] or name.split("/")[1:2] == ["code"] for name in members):
                raise WeightsError(
                    "it is a TorchScript archive (torch.jit.save), which holds a program; save the weights alone: "
                    "torch.save(torch.jit.load(path).state_dict(), 'x.pth')."
                )
            # torch never compresses members; a compressed one would be unpacked inside torch's C++ code.
            if any(info.compress_type != zipfile.ZIP_STORED for info in members.values()):
                raise WeightsError("it holds compressed members; torch.save writes none.")
            pickles = [info for name, info in members.items() if name.split("/")[1:] == ["data.pkl"]]
            pickled = member(z, pickles[0], HEADER) if pickles else b""
            found = pickled_class(pickled)
    else:
        with open(path, "rb") as f:  # three short pickles stand in front: a number, the version, the system
            pickled = f.read(HEADER)
        found = next((c for part in parts_of(pickled) if (c := pickled_class(part))), None)
    if found:
        raise WeightsError(
            f"it holds a pickled {shown(found)}, a Python object and not a tensor; save the weights alone: "
            "torch.save(model.state_dict(), 'x.pth')."
        )
    try:
        return plain_pth(path, archive, data=data)
    except Unknown as e:
        reason = str(e)
    if find_spec("torch") is None:
        raise WeightsError(
            f"kzoo reads float32 and integer tensors without torch, but {reason}. Reading this file needs torch, which "
            "is not installed (pip install torch). Or convert it elsewhere: "
            "safetensors.torch.save_file(torch.load(path, weights_only=True), 'x.safetensors')."
        )
    arrays, _ = worker(
        "torch" if data else "torch_names",
        path,
        budget=(512 << 20) + 3 * os.path.getsize(path),
        seconds=seconds_for(path, 120),
        limit=bound(path),
    )
    return arrays


def plain_pth(path: str | os.PathLike, archive: bool, *, data: bool) -> Arrays:
    """Read a PyTorch file of float32 and integer tensors without torch.

    Args:
        path: The file.
        archive: Whether it is an archive, its members checked, and not in the format before torch 1.6.
        data: As in `read_pth`.

    Raises:
        Unknown: It holds something else.
        WeightsError: It holds no tensors by name.
    """
    from kzoo.weights.torch_file import Tensor, load
    from kzoo.weights.worker import Refused, state_of

    with zipfile.ZipFile(path) if archive else nullcontext() as z:
        value, array = load(path, z)
        try:
            state, notes = state_of(value, Tensor)
        except Refused as e:
            raise WeightsError(f"{e}.") from None
        if not data:
            return Arrays(dict.fromkeys(state, np.empty(0)), notes)
        if sum(math.prod(t.shape) * np.dtype(t.storage.dtype).itemsize for t in state.values()) > bound(path):
            raise WeightsError("its tensors unpack to far more than the file holds; it is corrupt or malicious.")
        return Arrays({name: array(t) for name, t in state.items()}, notes)


def parts_of(data: bytes, most: int = 5) -> list[bytes]:
    """Divide pickles that follow each other, as in torch's old format; no more than `most`, the last with the rest."""
    parts = []
    while data and len(parts) < most:
        parts.append(data)
        end = 0
        try:
            for opcode, _, position in pickletools.genops(data):
                if opcode.name == "STOP":
                    end = position + 1
        except Exception:
            break
        if not end:
            break
        data = data[end:]
    return parts
