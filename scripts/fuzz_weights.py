"""Fuzz the readers of weights: mutants of every format, truncated files, killed downloads.

    python scripts/fuzz_weights.py --mutants 10000 --kills 200 --seed 0

Every mutant must be read or refused with a WeightsError. After any other exception the file is kept, its path is
printed, and the script ends with exit code 1. HDF5 and PyTorch files are read in a process each, so they are slow:
about six HDF5 files or one PyTorch file in a second.
"""

import argparse
import contextlib
import hashlib
import json
import random
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import h5py
import numpy as np

from kzoo.errors import WeightsError
from kzoo.weights import read

ARRAYS = {"conv/kernel": np.arange(108, dtype="float32").reshape(3, 3, 3, 4), "conv/bias": np.ones(4, "float32")}
SPECIAL_VALUES = (b"\0", b"\x01", b"\x7f", b"\x80", b"\xff", b"\0" * 8, b"\xff" * 8, b"\xff\xff\xff\x7f", b"\x80" * 4)


def samples(folder):
    """One small file of each format."""
    np.savez(folder / "a.npz", **ARRAYS)
    np.savez_compressed(folder / "packed.npz", **ARRAYS)
    header, data = {}, b""
    for name, a in ARRAYS.items():
        header[name] = {"dtype": "F32", "shape": a.shape, "data_offsets": [len(data), len(data) + a.nbytes]}
        data += a.tobytes()
    text = json.dumps(header).encode()
    (folder / "a.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    with h5py.File(folder / "a.h5", "w") as f:
        f.attrs["layer_names"] = [b"conv"]
        f.create_group("conv").attrs["weight_names"] = [b"kernel:0", b"bias:0"]
        f["conv"].create_dataset("kernel:0", data=ARRAYS["conv/kernel"], chunks=(3, 3, 3, 2), compression="gzip")
        f["conv"]["bias:0"] = ARRAYS["conv/bias"]
    try:
        import torch

        torch.save({k: torch.from_numpy(v) for k, v in ARRAYS.items()}, folder / "a.pth")
    except ImportError:
        print("torch is not installed: no .pth", file=sys.stderr)
    return sorted(folder.glob("*.*"))


def mutant(whole, rng):
    """A mutated copy: bytes set to special values, pieces removed, doubled or swapped, or the end cut off."""
    data = bytearray(whole)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at, n = rng.randrange(len(data)), rng.randrange(1, 33)
        match rng.randrange(6):
            case 0:
                del data[at : at + n]
            case 1:
                data[at:at] = data[at : at + n]
            case 2:
                other = rng.randrange(len(data))
                data[at : at + n], data[other : other + n] = data[other : other + n], data[at : at + n]
            case 3:
                del data[at:]
            case _:
                value = rng.choice(SPECIAL_VALUES)
                data[at : at + len(value)] = value
        if not data:
            break
    return bytes(data)


def attack(path, mutants, rng):
    """Read mutants of a file; returns how many raised anything else than a WeightsError."""
    whole, name = path.read_bytes(), path.with_name("mutant-" + path.name)
    counts = {"read": 0, "refused": 0, "slow": 0, "FAULT": 0}
    cuts = [whole[:n] for n in range(len(whole))] if path.suffix in (".npz", ".safetensors") else []
    for data in [*cuts, *(mutant(whole, rng) for _ in range(mutants))]:
        name.write_bytes(data)
        start = time.monotonic()
        try:
            read(name)
            counts["read"] += 1
        except WeightsError:
            counts["refused"] += 1
        except Exception as e:
            counts["FAULT"] += 1
            kept = Path(tempfile.mkstemp(prefix="fuzz-", suffix=path.suffix)[1])
            kept.write_bytes(data)
            print(f"{path.name}: {type(e).__name__}: {e}: {kept}")
        counts["slow"] += time.monotonic() - start > 10
    print(path.name, counts, flush=True)
    return counts["FAULT"]


FETCH = """
import sys
from kzoo.catalog import Weights
from kzoo.weights import fetch
fetch(Weights("imagenet", sys.argv[1], sys.argv[2]))
"""


class Slow(SimpleHTTPRequestHandler):
    """Serves the file in about a second, so that the kills happen during the transfer."""

    def copyfile(self, source, out):
        with contextlib.suppress(OSError):  # the other side was killed
            while piece := source.read(1 << 16):
                out.write(piece)
                time.sleep(0.005)

    def log_message(self, *args):
        pass


def killed_downloads(kills, rng, folder):
    """Kill downloads at random times: the final path must have the complete file or not exist."""
    content = rng.randbytes(8 << 20)
    (folder / "net.h5").write_bytes(content)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Slow, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url, digest = f"http://127.0.0.1:{server.server_port}/net.h5", hashlib.sha256(content).hexdigest()
    faults = whole = 0
    for i in range(kills):
        cache = folder / f"cache{i // 5}"  # five attempts in each: the later ones find what the earlier ones left
        environment = {"KZOO_CACHE": str(cache), "PATH": "", "KERAS_HOME": str(folder), "TORCH_HOME": str(folder)}
        process = subprocess.Popen([sys.executable, "-c", FETCH, url, f"sha256:{digest}"], env=environment)
        time.sleep(rng.uniform(0.1, 0.9))
        process.send_signal(signal.SIGKILL)
        process.wait()
        final = cache / "net.h5"
        if final.exists():
            whole += 1
            faults += final.read_bytes() != content
    print(f"{kills} kills: {whole} complete files, {faults} faults")
    if not whole:
        print("No download was completed, so nothing was tested: the machine is too slow for these delays.")
    return faults + (not whole)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutants", type=int, default=10_000, help="number of mutants for each format")
    parser.add_argument("--kills", type=int, default=200, help="number of killed downloads")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="only formats whose file name contains this")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        files = [f for f in samples(Path(folder)) if options.only in f.name]
        faults = sum(attack(f, options.mutants, rng) for f in files)
        faults += killed_downloads(options.kills, rng, Path(folder)) if options.kills else 0
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
