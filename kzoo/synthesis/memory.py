"""Whether a picture fits into memory, checked before the start."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kzoo.errors import KzooError

if TYPE_CHECKING:
    from kzoo.synthesis.network import FeatureNetwork
    from kzoo.synthesis.objective import CompiledNetwork

# Bytes at the peak of one evaluation for each number of a forward pass, as kzoo style was measured to take.
BYTES = {"float32": 12.0, "bfloat16": 8.5}
# The optimiser's vectors (10 pairs, trial points), the content features and the program itself.
PER_PIXEL, FIXED = 30 * 3 * 4, 900 << 20


def available_memory() -> int | None:
    """The free memory of the system, within the limit of a container.

    Returns:
        Bytes, or None where the system does not say (it is read from /proc/meminfo, so other systems than Linux don't).
    """
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
    try:
        limit, used = (Path("/sys/fs/cgroup", n).read_text().strip() for n in ("memory.max", "memory.current"))
        lines = dict(line.split() for line in Path("/sys/fs/cgroup/memory.stat").read_text().splitlines())
        # The cache of files that were read counts as used, but the system gives it up first.
        free = min(free, int(limit) - int(used) + int(lines.get("inactive_file", 0)))
    except (OSError, ValueError):
        pass  # no such limit
    return free


def needed_memory(network: FeatureNetwork, size: tuple[int, int], tile: int | None, precision: str) -> int:
    """The memory that style transfer needs, from what one evaluation was measured to take.

    Args:
        network: the feature network.
        size: (height, width) of the picture in pixels.
        tile: the side of a tile in pixels; None: the picture is computed in one piece.
        precision: "float32" or "bfloat16".

    Returns:
        Bytes.
    """
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


def check_memory(
    compiled: CompiledNetwork, size: tuple[int, int], precision: str, free: int | None = None, margin: int = 0
) -> None:
    """Refuse a picture that needs more memory than is free.

    Args:
        compiled: the network, with its tile.
        size: (height, width) of the picture in pixels.
        precision: "float32" or "bfloat16".
        free: bytes; None: what the system says. Where it says nothing, nothing is refused.
        margin: pixels at each side of the picture that are not part of the result.

    Raises:
        KzooError: the picture does not fit; the message names the largest tile that would.
    """
    free = available_memory() if free is None else free
    need = needed_memory(compiled.network, size, compiled.tile, precision)
    if free is None or need <= free:
        return

    def gb(n):
        return f"{n / 1e9:.1f} GB"

    inner = (size[0] - 2 * margin, size[1] - 2 * margin)
    by_margin = margin > 0 and needed_memory(compiled.network, inner, compiled.tile, precision) <= free
    what = f", of which --margin adds {margin:,} at each side," if by_margin else ""
    text = f"{size[1]}x{size[0]} pixels{what} need about {gb(need)} of memory, and {gb(free)} are free."
    if compiled.network.halo is not None:
        fitting = [
            t
            for t in (1024, 768, 512, 384, 256, 192, 128)
            if t < (compiled.tile or max(size)) and needed_memory(compiled.network, size, t, precision) <= free
        ]
        if fitting:
            raise KzooError(f"{text} In tiles it fits: --tile {fitting[0]}.")
    raise KzooError(f"{text} Choose a smaller {'--margin or ' if by_margin else ''}--size.")
