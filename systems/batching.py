"""Fill batches by their total seconds, and keep one bad item from costing its neighbours."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

from manifests import Seconds

log = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")


def bucket_of(seconds: Seconds, buckets: Sequence[Seconds]) -> Seconds:
    """Return the shortest of the ascending ``buckets`` that holds ``seconds``.

    >>> bucket_of(2.6, (2.5, 5.0, 30.0))
    5.0
    """
    for bucket in buckets:
        if seconds <= bucket:
            return bucket
    raise ValueError(f"audio lasts {seconds:g} s, must be at most {buckets[-1]:g} s")


class Batcher(Generic[T]):
    """Collect items by bucket; a batch holds one bucket's items and is as full as allowed.

    Every item costs its bucket, which is what the encoder computes on. As an item's bucket
    depends on the item alone, so does the result: neighbours cannot change it. Feed it items
    sorted by length, so that the members of a batch also need about as many search steps.
    """

    def __init__(self, batch_seconds: Seconds, max_batch: int) -> None:
        if batch_seconds <= 0 or max_batch < 1:
            raise ValueError(
                f"batch_seconds is {batch_seconds:g} and max_batch {max_batch}, must be positive"
            )
        self._batch_seconds = batch_seconds
        self._max_batch = max_batch
        self._waiting: dict[Seconds, list[T]] = {}

    def add(self, item: T, bucket: Seconds) -> tuple[Seconds, list[T]] | None:
        """Take an item and return its bucket's batch if it is now full."""
        waiting = self._waiting.setdefault(bucket, [])
        waiting.append(item)
        # An item longer than batch_seconds is a batch of its own.
        if len(waiting) < self._max_batch and (len(waiting) + 1) * bucket <= self._batch_seconds:
            return None
        del self._waiting[bucket]
        return bucket, waiting

    def rest(self) -> Iterator[tuple[Seconds, list[T]]]:
        """Yield what is left, one batch for each bucket, longest first."""
        for bucket in sorted(self._waiting, reverse=True):
            yield bucket, self._waiting.pop(bucket)


def run_halving(
    batch: Sequence[T],
    run: Callable[[Sequence[T]], Sequence[R]],
    failed: Callable[[T, Exception], R],
) -> list[R]:
    """Return ``run(batch)``; when it raises (out of memory, one bad item), run its halves.

    An item that fails on its own gives ``failed(item, error)``.
    """
    try:
        results = list(run(batch))
    except Exception as error:  # whatever a toolkit raises: the neighbours must not pay for it
        if len(batch) == 1:
            log.warning("%s: %s", type(error).__name__, error)
            return [failed(batch[0], error)]
        reason = f"{type(error).__name__}: {error}"
    else:
        if len(results) != len(batch):
            raise AssertionError(f"{len(results)} results for {len(batch)} items")
        return results
    # Outside the except clause: there the traceback would keep the failed batch's tensors alive.
    log.warning("a batch of %d failed and is halved (%s)", len(batch), reason)
    _free_device_memory()
    middle = len(batch) // 2
    return run_halving(batch[:middle], run, failed) + run_halving(batch[middle:], run, failed)


def _free_device_memory() -> None:
    import sys

    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
