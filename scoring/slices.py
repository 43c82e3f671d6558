"""Parts of a test set that are scored on their own: by age, noise, source, duration, speaker."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from manifests import AGE_BUCKETS, Seconds, Utterance

ALL = "all"
DURATION_BINS: tuple[Seconds, ...] = (1, 2, 5, 10, 30)  # upper edges, exclusive
_UNKNOWN = "unknown"


def duration_bin(duration: Seconds) -> str:
    """Return the name of the bin of a duration.

    >>> duration_bin(0.5), duration_bin(2.0), duration_bin(31)
    ('0-1s', '2-5s', '30s+')
    """
    low: Seconds = 0
    for edge in DURATION_BINS:
        if duration < edge:
            return f"{low:g}-{edge:g}s"
        low = edge
    return f"{low:g}s+"


def _noise(row: Utterance) -> str | None:
    return None if row.noisy is None else ("noisy" if row.noisy else "quiet")


_DIMENSIONS: dict[str, Callable[[Utterance], str | None]] = {
    "age": lambda row: row.age,
    "noise": _noise,
    "source": lambda row: row.source,
    "duration": lambda row: duration_bin(row.duration),
    "speaker": lambda row: row.speaker,
}
_ORDER: dict[str, list[str]] = {
    "age": list(AGE_BUCKETS),
    "noise": ["quiet", "noisy"],
    "duration": [duration_bin(low) for low in (0, *DURATION_BINS)],
}


def slice_indices(rows: Sequence[Utterance]) -> dict[str, list[int]]:
    """Return slice name ("all", "age=5-7", ...) to the positions of its utterances.

    What an utterance does not say counts as "unknown"; a property that no utterance has
    makes no slices.
    """
    slices = {ALL: list(range(len(rows)))}
    for dimension, value_of in _DIMENSIONS.items():
        found: dict[str, list[int]] = {}
        for i, row in enumerate(rows):
            found.setdefault(value_of(row) or _UNKNOWN, []).append(i)
        if set(found) == {_UNKNOWN}:
            continue
        order = _ORDER.get(dimension, [])
        for value in sorted(found, key=lambda v: (v == _UNKNOWN, _rank(order, v), v)):
            slices[f"{dimension}={value}"] = found[value]
    return slices


def _rank(order: list[str], value: str) -> int:
    return order.index(value) if value in order else len(order)
