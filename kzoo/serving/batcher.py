"""The limits of a server, and the queue from which images of several requests are classified together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from kzoo.errors import KzooError, first_line, out_of_memory
from kzoo.progress import say

DAY = 86_400  # seconds


@dataclass(frozen=True)
class Limits:
    """The most that a server accepts.

    Args:
        body: bytes of a request.
        pixels: that the headers of all images of a request declare together; also of several images that are computed
            at once.
        images: in a request.
        queue: images of all requests that wait.
        batch: images that are computed at once, in two batches of half as many.
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

    def __post_init__(self):
        if not 0 < self.timeout <= DAY:
            raise KzooError(f"timeout must be a number of seconds above 0 and at most {DAY:,}, got {self.timeout!r}.")


class Refused(Exception):
    """An answer other than 200. Its `args` are (HTTP status, reason)."""


SHORT = "The server has too little memory at the moment; try again."


def no_room(error: BaseException) -> bool:
    """Whether memory did not suffice, or the system gave no other thread, which takes memory, too."""
    return bool(out_of_memory(error)) or "can't start new thread" in str(error)


class Batcher:
    """Collects images of several requests and classifies them together, in two threads.

    While one batch is computed, the queue gathers the next, which begins as soon as it is full: the threads of a
    network rarely keep all cores busy at every moment. Together the two stay within the limits of one batch.

    Its attributes `batches` and `images` count what was classified.

    Args:
        classify: a function of a list of encoded images that gives a list with an answer for each; it is called from
            two threads.
        limits: `queue`, `batch` and `pixels` count here.
    """

    def __init__(self, classify: Callable[[list[bytes]], list], limits: Limits):
        self.classify, self.limits = classify, limits
        self.waiting = []  # [(encoded image, its pixels, future)]
        self.computed = []  # the batches that are computed now, lists of the same
        self.changed = asyncio.Event()  # an image came, or a batch is done
        self.threads = ThreadPoolExecutor(2, "classify")
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
        self.changed.set()
        return futures

    def take(self) -> list[tuple[bytes, int, asyncio.Future]]:
        """Take the next batch from the queue: at most half of the images that may be computed at once.

        Beside another batch it must be full, and both together keep the limits of images and pixels. Cancelled images
        are left out.

        Returns:
            [(encoded image, its pixels, future)], empty if no batch is to begin now.
        """
        self.waiting = [item for item in self.waiting if not item[2].done()]
        now = [pixels for batch in self.computed for _, pixels, _ in batch]
        room = min((self.limits.batch + 1) // 2, self.limits.batch - len(now))
        if len(self.computed) == 2 or (now and not 0 < room <= len(self.waiting)):
            return []
        n, total = 0, sum(now)
        for _, pixels, _ in self.waiting[:room]:
            total += pixels
            if total > self.limits.pixels and (n or now):
                break
            n += 1
        batch, self.waiting = self.waiting[:n], self.waiting[n:]
        return batch

    async def run(self) -> None:
        """Classify batches until the task is cancelled.

        A batch that fails is refused with 500; the next one is tried all the same.
        """
        loop = asyncio.get_running_loop()
        while True:
            await self.changed.wait()
            self.changed.clear()
            while batch := self.take():
                self.computed.append(batch)
                work = loop.run_in_executor(self.threads, self.classify, [image for image, _, _ in batch])
                work.add_done_callback(partial(self._answer, batch))

    def _answer(self, batch, work):
        """Give the images of a batch their answers, once it is computed."""
        self.computed = [other for other in self.computed if other is not batch]
        self.changed.set()  # the next batch begins before these answers are sent
        self.batches += 1
        self.images += len(batch)
        if work.cancelled():
            return
        try:
            for (_, _, future), row in zip(batch, work.result(), strict=True):
                if not future.done():
                    future.set_result(row)
        except Exception as e:
            say(f"Error: a batch of {len(batch)} failed ({type(e).__name__}: {first_line(e)}).")
            answer = (503, SHORT) if no_room(e) else (500, "The model failed on this batch.")
            for _, _, future in batch:
                if not future.done():
                    future.set_exception(Refused(*answer))
