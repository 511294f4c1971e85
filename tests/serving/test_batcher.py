"""The queue: all images of a request or none, batches within the limits, and one answer for each image."""

import asyncio
import threading
from contextlib import suppress
from dataclasses import replace

import pytest

from kzoo.errors import KzooError
from kzoo.serving.batcher import Batcher, Limits, Refused

LIMITS = Limits(queue=5, batch=6, pixels=100)  # batches of 3


def test_a_request_is_queued_whole_or_refused():
    async def work():
        batcher = Batcher(len, LIMITS)
        futures = batcher.submit([b"a", b"b", b"c"], [1, 1, 1])
        with pytest.raises(Refused) as refused:
            batcher.submit([b"d", b"e", b"f"], [1, 1, 1])
        assert refused.value.args[0] == 503 and len(batcher.waiting) == len(futures) == 3
        batcher.submit([b"d", b"e"], [1, 1])
        assert [image for image, _, _ in batcher.waiting] == [b"a", b"b", b"c", b"d", b"e"]

    asyncio.run(work())


@pytest.mark.parametrize(
    ("pixels", "batches"),
    [
        ([1, 1, 1, 1, 1], [3, 2]),
        ([60, 60, 30, 10, 1], [1, 3, 1]),
        ([500, 1], [1, 1]),  # too many by itself: check_pixels would have refused it; it is not held for ever
        ([100, 0, 0, 0], [3, 1]),
    ],
)
def test_batches_keep_the_limits_of_images_and_pixels_and_the_order(pixels, batches):
    async def work():
        batcher, taken = Batcher(len, LIMITS), []
        batcher.submit([bytes([i]) for i in range(len(pixels))], pixels)
        while batcher.waiting:
            taken.append([image for image, _, _ in batcher.take()])
        assert [len(batch) for batch in taken] == batches
        assert b"".join(image for batch in taken for image in batch) == bytes(range(len(pixels)))

    asyncio.run(work())


def test_cancelled_images_are_left_out():
    async def work():
        batcher = Batcher(len, LIMITS)
        futures = batcher.submit([b"a", b"b", b"c"], [1, 1, 1])
        futures[1].cancel()
        assert [image for image, _, _ in batcher.take()] == [b"a", b"c"] and not batcher.waiting

    asyncio.run(work())


def running(classify, use):
    """Run `use(batcher)` while the batcher classifies."""

    async def work():
        batcher = Batcher(classify, LIMITS)
        task = asyncio.create_task(batcher.run())
        try:
            return await use(batcher)
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            batcher.threads.shutdown(wait=True)

    return asyncio.run(work())


def test_each_image_gets_its_own_answer_and_batches_are_counted():
    sizes = []

    def classify(images):
        sizes.append(len(images))
        return [image.decode() for image in images]

    async def use(batcher):
        requests = [batcher.submit([f"{i}{j}".encode() for j in range(n)], [1] * n) for i, n in enumerate((2, 3))]
        answers = [await asyncio.gather(*futures) for futures in requests]
        return answers, batcher.batches, batcher.images

    answers, batches, images = running(classify, use)
    assert answers == [["00", "01"], ["10", "11", "12"]]
    assert sizes == [3, 2] and (batches, images) == (2, 5)


def test_the_next_batch_gathers_while_one_is_computed():
    entered, go, sizes = threading.Event(), threading.Event(), []

    def classify(images):
        sizes.append(len(images))
        entered.set()
        assert go.wait(20)
        return images

    async def use(batcher):
        first = batcher.submit([b"a"], [1])
        assert await asyncio.to_thread(entered.wait, 20)
        others = [f for image in (b"b", b"c") for f in batcher.submit([image], [1])]
        go.set()
        return await asyncio.gather(*first, *others)

    assert running(classify, use) == [b"a", b"b", b"c"] and sizes == [1, 2]


@pytest.mark.parametrize(
    ("batch", "computed", "waiting", "size"),
    [
        (6, [[1]], [1, 1], 0),  # not full: it gathers while the other is computed
        (6, [[1]], [1, 1, 1], 3),
        (6, [[1]], [1, 1, 1, 1, 1], 3),
        (6, [[1], [1, 1, 1]], [1, 1, 1], 0),  # two are the most
        (5, [[1, 1, 1]], [1, 1, 1], 2),
        (1, [[1]], [1, 1], 0),
        (6, [[60]], [30, 10, 30], 2),  # pixels count together
        (6, [[60]], [50, 1, 1], 0),
        (6, [[500]], [0, 0, 0], 0),
        (6, [], [500, 1, 1], 1),
    ],
)
def test_a_second_batch_begins_once_it_is_full_and_both_keep_the_limits(batch, computed, waiting, size):
    async def work():
        batcher = Batcher(len, replace(LIMITS, batch=batch))
        batcher.computed = [[(b"", pixels, None) for pixels in pixels_of] for pixels_of in computed]
        batcher.submit([b""] * len(waiting), waiting)
        assert len(batcher.take()) == size and len(batcher.waiting) == len(waiting) - size

    asyncio.run(work())


def test_a_full_batch_is_computed_while_another_one_is():
    both = threading.Barrier(2)

    def classify(images):
        both.wait(20)
        return images

    async def use(batcher):
        first = batcher.submit([b"a"], [1])
        while not batcher.computed:
            await asyncio.sleep(0)
        return await asyncio.gather(*first, *batcher.submit([b"b", b"c", b"d"], [1, 1, 1]))

    assert running(classify, use) == [b"a", b"b", b"c", b"d"]


def test_a_batch_that_fails_is_refused_and_the_next_one_is_tried(capsys):
    def classify(images):
        if b"bad" in images:
            raise RuntimeError("no more memory")
        return images if b"few" not in images else []

    async def use(batcher):
        found = []
        for image in (b"bad", b"few", b"good"):
            (future,) = batcher.submit([image], [1])
            found.append((await asyncio.gather(future, return_exceptions=True))[0])
        return found

    bad, few, good = running(classify, use)
    assert good == b"good"
    for refused in (bad, few):
        assert isinstance(refused, Refused) and refused.args == (500, "The model failed on this batch.")
    err = capsys.readouterr().err
    assert "a batch of 1 failed (RuntimeError: no more memory)" in err and err.count("\n") == 2


@pytest.mark.parametrize("timeout", [float("nan"), float("inf"), 0, -1, 1e9])
def test_a_timeout_is_a_time(timeout):
    with pytest.raises(KzooError, match="timeout must be a number of seconds above 0"):
        Limits(timeout=timeout)
