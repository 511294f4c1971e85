"""The limits of a server, and the queue from which images of several requests are classified together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from kzoo.errors import first_line
from kzoo.progress import say


@dataclass(frozen=True)
class Limits:
    """The most that a server accepts.

    Args:
        body: bytes of a request.
        pixels: that the headers of all images of a request declare together; also of a batch of several images.
        images: in a request.
        queue: images of all requests that wait.
        batch: images that are computed at once.
        connections: open at the same time.
        timeout: seconds for a client to send a request, and for an answer to wait.
        held: bytes of the bodies of all requests that are not answered yet, as declared; a request that declares no
            length counts with `body`.
    """

    body: int = 16 << 20
    pixels: int = 50_000_000
    images: int = 64
    queue: int = 128
    batch: int = 32
    connections: int = 256
    timeout: float = 30.0
    held: int = 256 << 20


class Refused(Exception):
    """An answer other than 200. Its `args` are (HTTP status, reason)."""


class Batcher:
    """Collects images of several requests and classifies them together, in one thread.

    Its attributes `batches` and `images` count what was classified.

    Args:
        classify: a function of a list of encoded images that gives a list with an answer for each.
        limits: `queue`, `batch` and `pixels` count here.
    """

    def __init__(self, classify: Callable[[list[bytes]], list], limits: Limits):
        self.classify, self.limits = classify, limits
        self.waiting = []  # [(encoded image, its pixels, future)]
        self.not_empty = asyncio.Event()
        self.thread = ThreadPoolExecutor(1, "classify")
        self.batches = self.images = 0

    def submit(self, images: Sequence[bytes], pixels: Sequence[int]) -> list[asyncio.Future]:
        """Add the images of a request to the queue, all of them or none.

        Args:
            images: encoded.
            pixels: how many each of them has.

        Returns:
            A future for each image, for what `classify` gives for it.

        Raises:
            Refused: 503, if they do not all fit into the queue.
        """
        if len(self.waiting) + len(images) > self.limits.queue:
            raise Refused(503, "Too many images are waiting; try again.")
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in images]
        self.waiting += zip(images, pixels, futures, strict=True)
        self.not_empty.set()
        return futures

    def take(self) -> list[tuple[bytes, asyncio.Future]]:
        """Take the next batch from the queue, within the limits of images and pixels; cancelled images are left out."""
        n = total = 0
        for _, pixels, _ in self.waiting[: self.limits.batch]:
            total += pixels
            if n and total > self.limits.pixels:
                break
            n += 1
        batch, self.waiting = self.waiting[:n], self.waiting[n:]
        return [(image, future) for image, _, future in batch if not future.done()]

    async def run(self) -> None:
        """Classify batches until the task is cancelled. While one is computed, the queue gathers the next.

        A batch that fails is refused with 500; the next one is tried all the same.
        """
        loop = asyncio.get_running_loop()
        while True:
            await self.not_empty.wait()
            batch = self.take()
            if not self.waiting:
                self.not_empty.clear()
            if not batch:
                continue
            try:
                rows = await loop.run_in_executor(self.thread, self.classify, [image for image, _ in batch])
                for (_, future), row in zip(batch, rows, strict=True):
                    if not future.done():
                        future.set_result(row)
            except Exception as e:
                say(f"Error: a batch of {len(batch)} failed ({type(e).__name__}: {first_line(e)}).")
                for _, future in batch:
                    if not future.done():
                        future.set_exception(Refused(500, "The model failed on this batch."))
            self.batches += 1
            self.images += len(batch)
