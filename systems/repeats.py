"""Cut back the loops that autoregressive recognisers fall into on noise and silence."""

from __future__ import annotations

from collections.abc import Sequence


def cut_loops(words: Sequence[str], max_repeats: int) -> list[int]:
    """Return the indices of the words to keep.

    A phrase said more than ``max_repeats`` times without a break is kept once; 0 keeps all.
    Shorter phrases are looked for first, so "no no no no no no" is "no", not "no no".

    >>> words = "i i go to the to the to the to the to the shop".split()
    >>> " ".join(words[index] for index in cut_loops(words, 3))
    'i i go to the shop'
    """
    kept = list(range(len(words)))
    if max_repeats < 1:
        return kept
    spelled = [word.casefold().strip(".,!?;:\"'") for word in words]
    size = 1
    while size * (max_repeats + 1) <= len(kept):
        at = 0
        while at + size <= len(kept):
            phrase = [spelled[index] for index in kept[at : at + size]]
            end = at + size
            while [spelled[index] for index in kept[end : end + size]] == phrase:
                end += size
            if (end - at) // size > max_repeats:
                del kept[at + size : end]
            at += 1
        size += 1
    return kept
