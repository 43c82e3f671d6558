"""Batches by total seconds, and the isolation of bad items."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from systems.batching import Batcher, bucket_of, run_halving

BUCKETS = (2.5, 5.0, 10.0, 30.0)


@given(st.lists(st.floats(0.1, 30.0), max_size=200), st.floats(5.0, 300.0), st.integers(1, 40))
def test_batches_hold_all_items_once_within_the_limits(
    lengths: list[float], batch_seconds: float, max_batch: int
) -> None:
    batcher: Batcher[int] = Batcher(batch_seconds, max_batch)
    batches = []
    for index, length in enumerate(lengths):
        full = batcher.add(index, bucket_of(length, BUCKETS))
        if full is not None:
            batches.append(full)
    batches += batcher.rest()
    assert sorted(item for _, items in batches for item in items) == list(range(len(lengths)))
    for bucket, items in batches:
        assert len(items) <= max_batch
        assert len(items) == 1 or len(items) * bucket <= batch_seconds
        # One bucket for all: no item's window depends on its neighbours.
        assert all(bucket_of(lengths[item], BUCKETS) == bucket for item in items)


def test_batches_are_as_full_as_allowed() -> None:
    batcher: Batcher[str] = Batcher(batch_seconds=30.0, max_batch=64)
    assert batcher.add("a", 10.0) is None
    assert batcher.add("b", 10.0) is None
    assert batcher.add("c", 10.0) == (10.0, ["a", "b", "c"])
    assert list(batcher.rest()) == []


def test_audio_beyond_every_bucket_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 30 s"):
        bucket_of(31.0, BUCKETS)


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_bad_items_fail_alone(good: list[bool]) -> None:
    def run(part: object) -> list[str]:
        if not all(good[index] for index in part):  # type: ignore[attr-defined]
            raise RuntimeError("bad item")
        return [f"heard {index}" for index in part]  # type: ignore[attr-defined]

    results = run_halving(range(len(good)), run, lambda index, error: f"lost {index}: {error}")
    assert results == [
        f"heard {index}" if ok else f"lost {index}: bad item" for index, ok in enumerate(good)
    ]


def test_out_of_memory_is_answered_by_smaller_batches() -> None:
    seen = []

    def run(part: object) -> list[int]:
        seen.append(len(part))  # type: ignore[arg-type]
        if len(part) > 2:  # type: ignore[arg-type]
            raise MemoryError
        return list(part)  # type: ignore[call-overload]

    def failed(item: int, error: Exception) -> int:
        raise AssertionError

    assert run_halving(range(8), run, failed) == list(range(8))
    assert seen == [8, 4, 2, 2, 4, 2, 2]


def test_an_interrupt_is_not_a_bad_item() -> None:
    def run(part: object) -> list[int]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_halving([1], run, lambda item, error: item)
