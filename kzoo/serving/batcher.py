"""What a server takes (Limits), and the queue from which images of several requests are classified together."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from kzoo.progress import say


@dataclass(frozen=True)
class Limits:
    """What a server takes.

    body: bytes of a request. pixels: declared by all images of a request together, and by those that are computed at
    once. images: in a request. queue: images that wait, of all requests. batch: images that are computed at once.
    connections: at once. timeout: seconds for a client to send a request, and for an answer to wait. held: bytes of the
    bodies of all requests that are not answered yet, as declared, or the most for one that declares nothing.
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
    """An answer other than 200: (status, reason)."""


class Batcher:
    """Collects images of several requests and classifies them together, in one thread.

    classify: a list of encoded images to a dict of arrays, or lists, with a row for each.
    """

    def __init__(self, classify, limits):
        self.classify, self.limits = classify, limits
        self.waiting = []  # [(encoded, its pixels, future)]
        self.there = asyncio.Event()
        self.thread = ThreadPoolExecutor(1, "classify")
        self.batches = self.images = 0

    def submit(self, images, pixels):
        """A future for each image; Refused (503) if they don't fit into the queue, all or none."""
        if len(self.waiting) + len(images) > self.limits.queue:
            raise Refused(503, "Too many images are waiting; try again.")
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in images]
        self.waiting += zip(images, pixels, futures, strict=True)
        self.there.set()
        return futures

    def next(self):
        """Takes the next batch from what waits; who went away is left out. [(encoded, future)]"""
        n = total = 0
        for _, pixels, _ in self.waiting[: self.limits.batch]:
            total += pixels
            if n and total > self.limits.pixels:
                break
            n += 1
        batch, self.waiting = self.waiting[:n], self.waiting[n:]
        return [(image, future) for image, _, future in batch if not future.done()]

    async def run(self):
        """Classifies for ever. While one batch is computed the next one gathers, so no time is spent on waiting."""
        loop = asyncio.get_running_loop()
        while True:
            await self.there.wait()
            batch = self.next()
            if not self.waiting:
                self.there.clear()
            if not batch:
                continue
            try:
                rows = await loop.run_in_executor(self.thread, self.classify, [image for image, _ in batch])
                for (_, future), row in zip(batch, rows, strict=True):
                    if not future.done():
                        future.set_result(row)
            except Exception as e:
                say(f"Error: a batch of {len(batch)} failed ({type(e).__name__}: {str(e)[:200]}).")
                for _, future in batch:
                    if not future.done():
                        future.set_exception(Refused(500, "The model failed on this batch."))
            self.batches += 1
            self.images += len(batch)
