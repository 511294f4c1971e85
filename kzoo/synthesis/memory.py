"""Whether a picture fits into memory, told before the start."""

from __future__ import annotations

from pathlib import Path

from kzoo.errors import KzooError

# Bytes at the peak of one evaluation for each number of a forward pass, as kzoo style was measured to take.
BYTES = {"float32": 12.0, "bfloat16": 8.5}
# The optimiser's vectors (10 pairs, trial points), the content features and the program itself.
PER_PIXEL, FIXED = 30 * 3 * 4, 900 << 20


def available():
    """Bytes that can still be had, or None if the system does not say: Linux, with the limit of a container."""
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
    try:
        limit, used = (Path("/sys/fs/cgroup", n).read_text().strip() for n in ("memory.max", "memory.current"))
        lines = dict(line.split() for line in Path("/sys/fs/cgroup/memory.stat").read_text().splitlines())
        # What was read from files counts as used, and is given up first.
        free = min(free, int(limit) - int(used) + int(lines.get("inactive_file", 0)))
    except (OSError, ValueError):
        pass  # no such limit
    return free


def needed(network, size, tile, precision):
    """Bytes for a picture (height, width), by what one evaluation was measured to take."""
    height, width = size
    window = height * width
    if tile is not None:
        window = min(height, tile + 2 * network.halo) * min(width, tile + 2 * network.halo)
    targets = sum(
        4 * shape[1] * shape[2] * shape[3]
        for n, shape in network.named_shapes(height, width).items()
        if n in network.content
    )
    return int(window * network.values * BYTES[precision] + height * width * PER_PIXEL + targets + FIXED)


def check(eye, size, precision, free=None):
    """KzooError, with the tile that fits, if a picture (height, width) needs more memory than there is."""
    free = available() if free is None else free
    need = needed(eye.network, size, eye.tile, precision)
    if free is None or need <= free:
        return

    def gb(n):
        return f"{n / 1e9:.1f} GB"

    text = f"{size[1]}x{size[0]} pixels need about {gb(need)} of memory, and {gb(free)} are free."
    if eye.network.halo is not None:
        fitting = [
            t
            for t in (1024, 768, 512, 384, 256, 192, 128)
            if t < (eye.tile or max(size)) and needed(eye.network, size, t, precision) <= free
        ]
        if fitting:
            raise KzooError(f"{text} In tiles it fits: --tile {fitting[0]}.")
    raise KzooError(f"{text} Choose a smaller --size.")
