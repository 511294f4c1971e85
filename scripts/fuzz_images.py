"""Fuzz an export with corrupt and malicious images: all must be answered in bounded memory and time.

    python scripts/fuzz_images.py saved_models/mnist --n 10000

The images are JPEG (also progressive, CMYK), PNG (also 16 bit, palette, alpha), GIF (also animated), BMP and WebP
(lossy, lossless, animated) with mutated headers and bodies, truncated files, zero bytes, text, and headers that declare
sides of 50,000 pixels. Each batch also has a valid image, whose answer must not change. After a crash (a signal) or a
hang (ended by faulthandler) the last batch is in the folder --keep.
"""

import argparse
import faulthandler
import io
import json
import os
import resource
import struct
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def seeds(rng):
    """{name: valid encoded image} for every format."""
    from PIL import Image

    pixels = rng.integers(0, 256, (12, 16, 3)).astype("uint8")
    image = Image.fromarray(pixels).resize((96, 64), Image.Resampling.BICUBIC)
    frames = [image, image.rotate(90), image.rotate(180)]
    kinds = {
        "jpeg": (image, "JPEG", {}),
        "progressive": (image, "JPEG", {"progressive": True}),
        "cmyk": (image.convert("CMYK"), "JPEG", {}),
        "grey": (image.convert("L"), "JPEG", {}),
        "png": (image, "PNG", {}),
        "rgba": (image.convert("RGBA"), "PNG", {}),
        "palette": (image.convert("P"), "PNG", {}),
        "deep": (image.convert("L").convert("I;16"), "PNG", {}),
        "gif": (image, "GIF", {}),
        "film": (image, "GIF", {"save_all": True, "append_images": frames[1:]}),
        "bmp": (image, "BMP", {}),
        "webp": (image, "WEBP", {}),
        "lossless": (image, "WEBP", {"lossless": True}),
        "moving": (image, "WEBP", {"save_all": True, "append_images": frames[1:]}),
    }
    found = {}
    for name, (picture, format, options) in kinds.items():
        buffer = io.BytesIO()
        picture.save(buffer, format, **options)
        found[name] = buffer.getvalue()
    return found


def mutant(data, rng):
    """A mutated copy of an encoded image."""
    data = bytearray(data)
    kind = rng.integers(9)
    if kind == 0:
        return bytes(data[: rng.integers(len(data))])
    if kind == 1:  # a large number in the header
        at = int(rng.integers(4, min(len(data) - 4, 400)))
        data[at : at + 4] = struct.pack(rng.choice([">HH", "<HH"]), *([50_000, 65_535][rng.integers(2)],) * 2)
    elif kind == 2:
        at = int(rng.integers(0, min(len(data) - 4, 400)))
        data[at : at + 4] = struct.pack(rng.choice([">I", "<I"]), int(rng.choice([0, 1, 50_000, 2**31 - 1, 2**32 - 1])))
    elif kind == 3:
        at = int(rng.integers(len(data)))
        data[at:at] = bytes(data[at : at + rng.integers(1, 64)]) * int(rng.integers(1, 20))
    elif kind == 4:
        at = int(rng.integers(len(data)))
        del data[at : at + int(rng.integers(1, 64))]
    elif kind == 5:
        return [b"", b"\0" * 100, b"a text\n", bytes(data[:4]), b"RIFF\xff\xff\xff\xffWEBP", b"\xff\xd8\xff\xd9"][
            rng.integers(6)
        ]
    else:
        for _ in range(rng.integers(1, 12)):
            at = int(rng.integers(len(data) if kind == 6 else min(len(data), 64)))
            data[at] = int(rng.integers(256))
    return bytes(data)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("export", help="the folder of an export")
    parser.add_argument("--n", type=int, default=10_000, help="number of images")
    parser.add_argument("--batch", type=int, default=50, help="images in a batch")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", help="an existing folder, to which each batch is written before it runs")
    options = parser.parse_args()
    import numpy as np

    from kzoo.exporting.reader import Export

    rng = np.random.default_rng(options.seed)
    export, kinds = Export(options.export), seeds(rng)
    good = kinds["jpeg"]
    expected = export.run([good] * (options.batch + 1))["logits"][0]

    def peak_mib():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10

    before, slowest, reasons, answered = peak_mib(), 0.0, {}, 0
    for start in range(0, options.n, options.batch):
        names = rng.choice(list(kinds), options.batch)
        batch = [mutant(kinds[n], rng) for n in names]
        if options.keep:
            for i, data in enumerate(batch):
                Path(options.keep, f"{i}.bin").write_bytes(data)
        faulthandler.dump_traceback_later(60, exit=True)
        began = time.monotonic()
        out = export.run([*batch, good])
        slowest = max(slowest, time.monotonic() - began)
        faulthandler.cancel_dump_traceback_later()
        assert len(out["error"]) == len(batch) + 1 and not out["error"][-1], f"batch at {start}"
        assert np.isfinite(out["logits"]).all() and np.isfinite(out["probabilities"]).all()
        np.testing.assert_allclose(out["logits"][-1], expected, rtol=1e-2, atol=1e-2 * np.abs(expected).max())
        answered += len(batch)
        for error in out["error"][:-1]:
            reason = error.decode().split(" pixels")[0] if b"declares" not in error else "declares too many pixels"
            reasons[reason or "decoded"] = reasons.get(reason or "decoded", 0) + 1
    print(
        json.dumps(
            {
                "answered": answered,
                "reasons": reasons,
                "slowest_batch_s": round(slowest, 2),
                "peak_mib_before": before,
                "peak_mib": peak_mib(),
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
