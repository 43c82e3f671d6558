"""Which of two spellings is right, by the letters in which they differ: "-our" or "-or".

What members leave out or mishear they do in many words: learned on dev from every slot in which
one of two words that differ in few letters was right.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from rapidfuzz.distance import Postfix, Prefix

_LETTERS = 6  # a difference has at most so many, on both sides together
_WRITTEN = 0.05  # arcs with a greater share are rivals

Edits = Mapping[str, int]
"""How often a difference, seen from the right word, was met; see `differences`."""


def differences(text: str, rival: str) -> tuple[str, ...]:
    """Return what ``text`` has in place of what ``rival`` has, without and with letters around.

    >>> differences("honours", "honors")
    ('u>', 'ou>r')
    >>> differences("seemed", "seem")
    ('ed>$', 'med>$')
    """
    if not text or not rival or text == rival:
        return ()
    start = Prefix.similarity(text, rival)
    left, right = text[start:], rival[start:]
    end = Postfix.similarity(left, right)
    after = left[len(left) - end :][:1] or "$"
    left, right = left[: len(left) - end], right[: len(right) - end]
    if len(left) + len(right) > _LETTERS:
        return ()
    before = text[start - 1] if start else "^"
    bare = f"{'' if start else '^'}{left}>{right}{'$' if after == '$' else ''}"
    return bare, f"{before}{left}>{right}{after}"


def met(slots: Sequence[Mapping[str, float]], said: Sequence[str]) -> Iterator[str]:
    """Yield the differences of the right words from their rivals, marked where they had less."""
    for shares, word in zip(slots, said, strict=True):
        for rival, share in shares.items():
            if share > _WRITTEN and word in shares:
                for difference in differences(word, rival):
                    yield difference + _mark(shares[word], share)


def _mark(share: float, rival: float) -> str:
    return "+" if share > rival else "-"


def odds(text: str, rival: str, share: float, rivals: float, edits: Edits) -> list[float]:
    """Return ln odds that a word and not its rival is right, and the ln count, both ways to see."""
    there, back = differences(text, rival), differences(rival, text)
    found = [0.0, 0.0, 0.0, 0.0]
    for n, (one, other) in enumerate(zip(there, back, strict=True)):
        right = edits.get(one + _mark(share, rivals), 0)
        wrong = edits.get(other + _mark(rivals, share), 0)
        found[2 * n] = math.log((right + 0.5) / (wrong + 0.5))
        found[2 * n + 1] = math.log1p(right + wrong)
    return found
