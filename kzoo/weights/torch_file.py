"""PyTorch's files of plain tensors, read without PyTorch: their pickle's opcodes are data for a small interpreter.

It makes tuples, dictionaries, numbers, texts and descriptions of tensors, and knows four globals. Nothing is imported
or called by name. What it does not know it refuses, so that a file with anything else in it is left to torch's own
weights-only loader.
"""

from __future__ import annotations

import math
import mmap
import os
import pickletools
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

# The globals of a state_dict of float and integer tensors; no other is known.
ORDERED_DICT, REBUILD = "collections OrderedDict", "torch._utils _rebuild_tensor_v2"
STORAGES = {"torch FloatStorage": "<f4", "torch LongStorage": "<i8"}
MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # torch.serialization's
OPCODES = 1_000_000  # of one pickle; a state_dict of 1,000 tensors has 50,000
DIMENSIONS = 32
PICKLES = 64 << 20  # bytes of the pickles of a file

# Opcodes that push their argument, and the constants that others push.
ARGUMENT = {"BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE", "SHORT_BINUNICODE", "BINFLOAT"}
CONSTANT = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
MARK = object()


class Unknown(Exception):
    """Something in a file that this reader does not know; the text says what."""


@dataclass(frozen=True)
class Global:
    """A name of a module and of something in it, as text: it is never looked up."""

    name: str


@dataclass(frozen=True)
class Storage:
    """A run of numbers in a file: its key, and how many of which type."""

    key: str
    dtype: str
    length: int


@dataclass(frozen=True)
class Tensor:
    """A view of a storage.

    Attributes:
        storage: What it is a view of.
        offset: Where it begins, in elements.
        shape: Of the tensor.
        strides: Steps between neighbours along each axis, in elements; channels-last tensors have them out of order.
    """

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def ndim(self) -> int:
        """How many axes it has."""
        return len(self.shape)

    def of(self, numbers: np.ndarray) -> np.ndarray:
        """Return it as an array, from the numbers of its storage. No element outside of them is touched."""
        size = numbers.itemsize
        view = np.lib.stride_tricks.as_strided(
            numbers[self.offset :], self.shape, [s * size for s in self.strides], writeable=False
        )
        return np.ascontiguousarray(view).reshape(self.shape)


def whole(value: object, what: str, most: int = 1 << 40) -> int:
    """Return a number that a file states, if it is a whole one in 0..most.

    Raises:
        Unknown: It is not.
    """
    if type(value) is not int or not 0 <= value <= most:
        raise Unknown(f"its {what} is no number of 0 or more, or a huge one")
    return value


def tensor(arguments: object) -> Tensor:
    """Describe a tensor by the arguments of torch's _rebuild_tensor_v2: (storage, offset, shape, strides, ...).

    Raises:
        Unknown: They are no such arguments, or the tensor leaves its storage.
    """
    if not isinstance(arguments, tuple) or len(arguments) < 4 or not isinstance(arguments[0], Storage):
        raise Unknown("a tensor in it is not made of a storage, an offset, a shape and strides")
    storage, offset, shape, strides = arguments[:4]
    if not (isinstance(shape, tuple) and isinstance(strides, tuple) and len(shape) == len(strides) <= DIMENSIONS):
        raise Unknown("the shape and the strides of a tensor in it do not belong together")
    shape = tuple(whole(n, "size of a tensor") for n in shape)
    strides = tuple(whole(n, "stride of a tensor") for n in strides)
    elements = math.prod(shape)
    last = whole(offset, "offset") + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    # A stride of 0 would make a large tensor of few numbers; torch.save writes none of a network's weights so.
    if elements and (last >= storage.length or elements > storage.length):
        raise Unknown("a tensor in it is larger than its storage")
    return Tensor(storage, offset, shape, strides)


def storage_of(pid: object) -> Storage:
    """Describe the storage that a persistent id names: ("storage", type, key, device, length, ...).

    Raises:
        Unknown: It is no such id.
    """
    if not isinstance(pid, tuple) or len(pid) not in (5, 6) or pid[0] != "storage" or not isinstance(pid[1], Global):
        raise Unknown("a storage in it is described in another way than torch.save's")
    if len(pid) == 6 and pid[5] is not None:
        raise Unknown("a storage in it is a part of another one")
    _, kind, key, _, length = pid[:5]
    if kind.name not in STORAGES or not isinstance(key, str):
        raise Unknown(f"it holds a {ascii(kind.name)[1:-1]}")
    return Storage(key, STORAGES[kind.name], whole(length, "number of elements"))


def interpret(data: Any, start: int = 0) -> tuple[Any, int]:
    """Read the value of a pickle from its opcodes.

    Args:
        data: Bytes.
        start: Where the pickle begins.

    Returns:
        (value, where the pickle ends). Values are numbers, texts, tuples, lists, dictionaries with texts as keys,
        and `Tensor`s.

    Raises:
        Unknown: An opcode or a global that is not known, or a damaged pickle.
    """
    stack: list[Any] = []
    memo: dict[Any, Any] = {}
    file: Any = _Reader(data, start)

    def items() -> list[Any]:
        at = next(i for i in range(len(stack) - 1, -1, -1) if stack[i] is MARK)
        found = stack[at + 1 :]
        del stack[at:]
        return found

    def put(target: object, pairs: list[Any]) -> None:
        if not isinstance(target, dict) or len(pairs) % 2 or any(type(k) not in (str, int) for k in pairs[::2]):
            raise Unknown("it has a dictionary whose keys are no texts")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if key in target:
                raise Unknown(f"'{ascii(str(key)[:80])[1:-1]}' is in it twice")
            target[key] = value

    def reduce() -> Any:
        arguments, function = stack.pop(), stack.pop()
        name = function.name if isinstance(function, Global) else ""
        if name == ORDERED_DICT and arguments == ():
            return {}
        if name == REBUILD:
            return tensor(arguments)
        raise Unknown(f"it calls {ascii(name)[1:-1] or 'what is no function'}")

    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
            name = opcode.name
            if count > OPCODES:
                raise Unknown(f"its pickle has more than {OPCODES:,} opcodes")
            if name in ("PROTO", "FRAME"):
                continue
            if name in ARGUMENT:
                stack.append(argument)
            elif name in CONSTANT:
                stack.append(CONSTANT[name])
            elif name in ("BINPUT", "LONG_BINPUT"):
                memo[argument] = stack[-1]
            elif name == "MEMOIZE":
                memo[len(memo)] = stack[-1]
            elif name in ("BINGET", "LONG_BINGET"):
                stack.append(memo[argument])
            elif name == "MARK":
                stack.append(MARK)
            elif name == "GLOBAL":
                if argument not in (ORDERED_DICT, REBUILD, *STORAGES):
                    raise Unknown(f"it names {ascii(argument)[1:81]}")
                stack.append(Global(argument))
            elif name in ("EMPTY_TUPLE", "EMPTY_LIST", "EMPTY_DICT"):
                stack.append({"EMPTY_TUPLE": (), "EMPTY_LIST": [], "EMPTY_DICT": {}}[name])
            elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
                n = int(name[-1])
                stack[-n:] = [tuple(stack[-n:])]
            elif name == "TUPLE":
                stack.append(tuple(items()))
            elif name in ("APPEND", "APPENDS"):
                more = items() if name == "APPENDS" else [stack.pop()]
                if not isinstance(stack[-1], list):
                    raise Unknown("it appends to what is no list")
                stack[-1].extend(more)
            elif name in ("SETITEM", "SETITEMS"):
                pairs = items() if name == "SETITEMS" else [stack.pop(-2), stack.pop()]
                put(stack[-1], pairs)
            elif name == "BINPERSID":
                stack.append(storage_of(stack.pop()))
            elif name == "REDUCE":
                stack.append(reduce())
            elif name == "BUILD":  # the attributes of an OrderedDict: torch keeps versions of its modules there
                stack.pop()
                if not isinstance(stack[-1], dict):
                    raise Unknown("it sets attributes of what is no dictionary")
            elif name == "STOP":
                value = stack.pop()
                if stack:
                    raise Unknown("its pickle is damaged")
                return value, file.position
            else:
                raise Unknown(f"its pickle uses the opcode {name}")
    except (ValueError, KeyError, IndexError, StopIteration, OverflowError, struct.error, Warning) as e:
        raise Unknown("its pickle is damaged") from e
    raise Unknown("its pickle is damaged")


class _Reader:
    """What pickletools reads from: bytes from a position on, whose reads never go past the limit on pickles."""

    def __init__(self, data: Any, start: int) -> None:
        self.data, self.position, self.end = data, start, min(len(data), start + PICKLES)

    def read(self, n: int) -> bytes:
        got = bytes(self.data[self.position : min(self.end, self.position + max(n, 0))])
        self.position += len(got)
        return got

    def readline(self) -> bytes:
        end = self.data.find(b"\n", self.position, min(self.end, self.position + 1024))
        return self.read(end + 1 - self.position) if end >= 0 else b""

    def tell(self) -> int:
        return self.position


def load(path: str | os.PathLike, archive: zipfile.ZipFile | None = None) -> tuple[Any, Callable[[Tensor], np.ndarray]]:
    """Read what torch.save wrote, without torch.

    Args:
        path: The file.
        archive: The file as an archive, if it is one (torch 1.6 and later), its members checked; None for the old
            format.

    Returns:
        (value, a function from a `Tensor` in it to an array). The arrays do not hold the file open.

    Raises:
        Unknown: It holds something else than plain tensors, or is damaged.
    """
    return _load_archive(archive) if archive else _load_old(path)


def _load_archive(archive: zipfile.ZipFile) -> tuple[Any, Callable[[Tensor], np.ndarray]]:
    infos = {i.filename: i for i in archive.infolist()}
    root = next((name.rpartition("/")[0] for name in infos if name.split("/")[1:] == ["data.pkl"]), None)
    if root is None:
        raise Unknown("it has no data.pkl")
    order = infos.get(f"{root}/byteorder")
    if order is not None and (order.file_size > 16 or archive.read(order) != b"little"):
        raise Unknown("its numbers are big-endian")
    if infos[f"{root}/data.pkl"].file_size > PICKLES:
        raise Unknown(f"its pickle has more than {PICKLES >> 20} MiB")
    value, _ = interpret(archive.read(infos[f"{root}/data.pkl"]))
    kept: dict[str, np.ndarray] = {}

    def array(t: Tensor) -> np.ndarray:
        s = t.storage
        if s.key not in kept:
            info = infos.get(f"{root}/data/{s.key}")
            if info is None or info.file_size != s.length * np.dtype(s.dtype).itemsize:
                raise Unknown(f"the numbers of '{ascii(s.key)[1:41]}' are not there or not as many as stated")
            kept.clear()  # weights follow each other; views of one storage, too
            kept[s.key] = np.frombuffer(archive.read(info), s.dtype)
        return t.of(kept[s.key])

    return value, array


def _load_old(path: str | os.PathLike) -> tuple[Any, Callable[[Tensor], np.ndarray]]:
    if not os.path.getsize(path):
        raise Unknown("it is empty")
    with open(path, "rb") as f:
        data = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
    magic, at = interpret(data)
    version, at = interpret(data, at)
    system, at = interpret(data, at)
    if magic != MAGIC or version != PROTOCOL or not isinstance(system, Mapping):
        raise Unknown("it does not begin as torch.save's files do")
    if system.get("little_endian") is not True:
        raise Unknown("its numbers are big-endian")
    value, at = interpret(data, at)
    keys, at = interpret(data, at)
    storages = {}
    for s in _storages(value):
        if storages.setdefault(s.key, s) != s:
            raise Unknown(f"the storage '{ascii(s.key)[1:41]}' has two types or lengths")
    named = isinstance(keys, list) and all(isinstance(key, str) for key in keys)
    if not named or len(set(keys)) != len(keys) or set(keys) != set(storages):
        raise Unknown("its list of storages does not fit its tensors")
    starts = {}
    for key in keys:  # a number of elements, then the elements
        s, end = storages[key], at + 8 + storages[key].length * np.dtype(storages[key].dtype).itemsize
        if end > len(data) or struct.unpack("<q", data[at : at + 8])[0] != s.length:
            raise Unknown("it ends early, or its storages are not as long as stated")
        starts[key], at = at + 8, end

    def array(t: Tensor) -> np.ndarray:
        s = t.storage
        size = s.length * np.dtype(s.dtype).itemsize
        return t.of(np.frombuffer(data[starts[s.key] : starts[s.key] + size], s.dtype))

    return value, array


def _storages(value: Any) -> list[Storage]:
    """All storages of the tensors in a value; nested ones are visited without recursion, each container once."""
    found, seen, left = [], set(), [value]
    while left:
        item = left.pop()
        if isinstance(item, Tensor):
            found.append(item.storage)
        elif isinstance(item, (dict, list, tuple)) and id(item) not in seen:
            seen.add(id(item))
            left.extend(item.values() if isinstance(item, dict) else item)
    return found
