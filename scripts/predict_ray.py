"""Classify pictures with an export on Ray Data: an actor for each worker, here or on a cluster. Needs kzoo[ray].

    python scripts/predict_ray.py saved_models/lenet5 photos/ rows.jsonl --workers 2
    python scripts/predict_ray.py /nfs/export /nfs/photos /nfs/rows.jsonl --workers 64 --address auto

The rows are those of `kzoo predict`, from the signature serving_default. A row of Ray's data set is a chunk of names,
for which an actor writes a part, OUT.parts/HASH-OF-THE-NAMES.jsonl, whole or not at all, so that Ray may run it again.
Start again after a failure: names that have a row are left out. All machines must see the three paths.
"""

import argparse
import hashlib
import json
import os
import shutil
import sys
from itertools import compress, islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import ray.data

from kzoo.evaluating.names import Seen, named
from kzoo.files import finite, write_atomically


class Classifier:
    """An actor: the export, loaded once, and a function of chunks of names."""

    def __init__(self, export, parts):
        from kzoo.exporting.reader import Export

        self.export, self.parts = Export(export), parts

    def __call__(self, chunk):
        from kzoo.evaluating.prediction import answered

        names = [os.fsdecode(name) for name in chunk["names"]]
        rows = list(answered(zip(names, names, strict=True), self.export.answer, 32))
        with write_atomically(self.parts / f"{hashlib.sha256(repr(names).encode()).hexdigest()}.jsonl") as f:
            f.writelines(json.dumps(finite(row)).encode() + b"\n" for row in rows)
        return {"images": len(rows)}


def chunks(images, size, done):
    names = (name for _, name in named([images]))
    while some := list(islice(names, size)):
        if new := [os.fsencode(name) for name in compress(some, done.new(some))]:
            yield {"names": new}


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("export", type=os.path.abspath)
parser.add_argument("images", help="A folder with all below it, or a list of names (NAME.txt).")
parser.add_argument("out", type=Path, help="NAME.jsonl")
parser.add_argument("--workers", type=int, default=2)
parser.add_argument("--chunk", type=int, default=1000, help="Images of a part.")
parser.add_argument("--address", help="Of a cluster, such as auto; by default Ray is started on this machine.")
args = parser.parse_args()
if args.out.exists():
    parser.error(f"{args.out} exists.")
parts = Path(f"{args.out.absolute()}.parts")
parts.mkdir(parents=True, exist_ok=True)
done = Seen()
for part in parts.glob("[!.]*.jsonl"):  # a part that was cut off is .tmp-*
    done.new(json.loads(line)["image"] for line in part.read_text("ascii").splitlines())
# Made here, not by Ray: a chunk that is run again is the same one, and writes the same part.
if todo := list(chunks(args.images, args.chunk, done)):
    environment = {"env_vars": {"PYTHONPATH": str(Path(__file__).resolve().parents[1])}}
    ray.init(args.address, num_cpus=None if args.address else args.workers + 1, runtime_env=environment)
    data = ray.data.from_items(todo, override_num_blocks=len(todo))
    counts = data.map(Classifier, fn_constructor_args=(args.export, parts), concurrency=args.workers).iter_rows()
    print(f"{sum(count['images'] for count in counts):,} images in this call.")
seen = Seen()  # parts of two calls overlap where one was cut off from its actors
with write_atomically(args.out) as f:
    for part in sorted(parts.glob("[!.]*.jsonl")):
        lines = part.read_bytes().splitlines(keepends=True)
        f.writelines(compress(lines, seen.new(json.loads(line)["image"] for line in lines)))
shutil.rmtree(parts)
