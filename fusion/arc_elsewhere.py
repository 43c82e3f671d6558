"""What members wrote in the utterances around one: the names and the words of a book, or a task."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import pairwise

from fusion.arc_edits import differences
from fusion.arc_slots import Slots

_FAINT = 0.02  # arcs with a greater share count
_RIVAL = 0.04  # and such with a greater one show how others spell
_HALVES = (4.0, 40.0)  # utterances: at this distance a word counts half


class Elsewhere:
    """How often a word, or two in a row, are expected in other utterances than one's own."""

    def __init__(self, found: Mapping[int, Slots]) -> None:
        self._seen: dict[str, tuple[list[int], list[float]]] = defaultdict(lambda: ([], []))
        for place in sorted(found):
            for text, count in _counts(found[place]).items():
                places, counts = self._seen[text]
                places.append(place)
                counts.append(count)
        self._totals = {text: sum(counts) for text, (_, counts) in self._seen.items()}
        self._sums: dict[str, list[tuple[list[float], list[float]]]] = {}

    def total(self, text: str, place: int) -> float:
        """Return how often a text is expected in all utterances but ``place``."""
        if text not in self._seen:
            return 0.0
        places, counts = self._seen[text]
        n = bisect_left(places, place)
        own = counts[n] if n < len(places) and places[n] == place else 0.0
        return max(0.0, self._totals[text] - own)

    def near(self, text: str, place: int) -> tuple[float, ...]:
        """Return the same by how near the others are, for two ideas of nearness."""
        if text not in self._seen:
            return (0.0,) * len(_HALVES)
        places, _ = self._seen[text]
        left, right = bisect_left(places, place) - 1, bisect_right(places, place)
        found = []
        for half, (before, after) in zip(_HALVES, self._decayed(text), strict=True):
            value = 0.0
            if left >= 0:
                value += before[left] * 0.5 ** ((place - places[left]) / half)
            if right < len(places):
                value += after[right] * 0.5 ** ((places[right] - place) / half)
            found.append(value)
        return tuple(found)

    def _decayed(self, text: str) -> list[tuple[list[float], list[float]]]:
        if text not in self._sums:
            places, counts = self._seen[text]
            turned = [-place for place in reversed(places)]
            self._sums[text] = [
                (_decay(places, counts, half), _decay(turned, counts[::-1], half)[::-1])
                for half in _HALVES
            ]
        return self._sums[text]


def _decay(places: Iterable[int], counts: Iterable[float], half: float) -> list[float]:
    sums: list[float] = []
    last, value = 0, 0.0
    for place, count in zip(places, counts, strict=True):
        value = value * 0.5 ** ((place - last) / half) + count if sums else count
        last = place
        sums.append(value)
    return sums


def _counts(slots: Slots) -> dict[str, float]:
    """Return the expected counts of words, of pairs of them, and of differences in spelling.

    Pairs are those of the likeliest words; two words that share a slot count there too.
    """
    counts: defaultdict[str, float] = defaultdict(float)
    chosen = ["<s>"]
    for shares in slots.shares:
        for text, share in shares.items():
            if share > _FAINT and text:
                for word in text.split():
                    counts[word] += share
                if " " in text:
                    counts[text] += share
            if share > _RIVAL and len(shares) > 1:
                for rival, other in shares.items():
                    if rival != text and other > _RIVAL:
                        for difference in differences(text, rival):
                            counts[difference] += share
        chosen += next(iter(shares)).split()
    for left, right in pairwise([*chosen, "</s>"]):
        counts[f"{left} {right}"] += 1
    return counts
