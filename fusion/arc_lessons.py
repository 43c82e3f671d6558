"""What dev's references tell about its networks: what was said in each slot, habits, spellings."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from rapidfuzz.distance import Indel

from fusion.arc_edits import met
from fusion.arc_features import Judged
from fusion.arc_slots import Slots
from fusion.slot_truth import slot_truth

_STRONG = 0.12  # arcs with a greater share show their habits
_JOINED = 0.85  # so like two words written in one a word is one, "alright" for "all right"


class Lessons:
    """The networks of dev with the truth; numbers are the utterances' places in dev."""

    def __init__(self, found: Mapping[int, Slots], truths: Mapping[int, tuple[str, ...]]) -> None:
        self._found = found
        self._truths = truths
        self._habits: dict[int, list[tuple[str, str]]] = {}
        self._edits: dict[int, list[str]] = {}
        for place, slots in found.items():
            said = slot_truth(_with_pairs(slots.shares, truths[place]), truths[place])
            self._habits[place] = [
                (text, word)
                for shares, word in zip(slots.shares, said, strict=True)
                for text, share in shares.items()
                if share > _STRONG
            ]
            self._edits[place] = list(met(slots.shares, said))

    def learned(self, places: Iterable[int]) -> tuple[dict[str, dict[str, int]], dict[str, int]]:
        """Return what some utterances tell: habits, and differences in spelling."""
        habits: dict[str, Counter[str]] = defaultdict(Counter)
        edits: Counter[str] = Counter()
        for place in places:
            edits.update(self._edits[place])
            for text, word in self._habits[place]:
                habits[text][word] += 1
        return {text: dict(said) for text, said in habits.items()}, dict(edits)

    def right(self, judged: Sequence[tuple[int, Judged]]) -> list[bool]:
        """Tell of each arc whether it is what was said in its slot."""
        slots = {
            place: [dict(shares) for shares in found.votes] for place, found in self._found.items()
        }
        for place, arc in judged:
            slots[place][arc.slot].setdefault(arc.text, 0.0)
        said = {place: slot_truth(slots[place], self._truths[place]) for place in slots}
        return [said[place][arc.slot] == arc.text for place, arc in judged]


def _with_pairs(
    slots: Sequence[Mapping[str, float]], truth: tuple[str, ...]
) -> list[dict[str, float]]:
    """Return slots with two words of the truth where one that is made of them was written."""
    joined = [(first + second, f"{first} {second}") for first, second in pairwise(truth)]
    found = []
    for shares in slots:
        arcs = dict(shares)
        for text in [text for text, share in shares.items() if text and share > _STRONG]:
            for word, pair in joined:
                if Indel.normalized_similarity(text, word, score_cutoff=_JOINED) >= _JOINED:
                    arcs.setdefault(pair, 0.0)
        found.append(arcs)
    return found
