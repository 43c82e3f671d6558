"""Numbers for what a batch of texts says, so that thousands of texts are compared at once.

The numbers of keys are in the order of the keys, so rows of numbers sort as the keys would; 0 is
the null word. Those of spellings are in the order of their words. Where every word of a text
stands alone (see `scoring.normalize`) its spellings are looked up; `fusion.voting.tokens` cuts up
the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fusion.ragged import offsets, ranges
from fusion.voting.tokens import Keys, Space, Unit, scored, straighten, units_of
from scoring.normalize import words_stand_alone

Ints = NDArray[np.int64]

_NOT_ALONE = -1


class Spelling(NamedTuple):
    """Words as they are written, and the keys that they are compared by."""

    words: tuple[str, ...]
    keys: Keys
    free: bool  # compared by them whatever stands beside it


@dataclass(frozen=True, slots=True)
class Lexicon:
    """What the numbers of a batch mean."""

    keys: NDArray[np.object_]  # "" is the first
    width: Ints  # (number of spellings,) of each, in keys
    flat: NDArray[np.int32]  # the numbers of their keys, end to end
    extent: Ints  # of each spelling, in words
    words: NDArray[np.object_]  # those of all spellings, end to end
    free: NDArray[np.bool_]  # see `Spelling`


@dataclass(frozen=True, slots=True)
class Spelled:
    """The T spellings of H texts, end to end."""

    lexicon: Lexicon
    begins: Ints  # (H + 1,) where the spellings of each text begin
    spelling: Ints  # (T,) number in the lexicon
    first: Ints  # (T,) which word of its text it starts with
    words: Ints  # (H,) how many there are in each text

    def keys(self) -> NDArray[np.int32]:
        """Return the numbers of the K keys of all spellings, end to end."""
        width = self.lexicon.width
        begins = offsets(width)[:-1]
        found: NDArray[np.int32] = self.lexicon.flat[
            ranges(begins[self.spelling], width[self.spelling])
        ]
        return found


def spelled(texts: Sequence[str], space: Space) -> Spelled:
    """Return what texts say, as numbers."""
    numbers = _Numbers(space)
    together = " ".join(filter(None, texts))
    flat = together.split()
    plain = " ".join(flat) == together  # one space between any two words of a text, no other
    if plain:
        counts = np.array([text.count(" ") + 1 if text else 0 for text in texts], np.int64)
    else:
        counts = np.array([len(text.split()) for text in texts], np.int64)
    number = np.fromiter(map(numbers.__getitem__, flat), np.int64, len(flat))
    whole = np.zeros(len(texts), np.bool_)  # texts that have to be looked at as a whole
    whole[np.repeat(np.arange(len(texts)), counts)[number == _NOT_ALONE]] = True
    if space == "scorer" and not plain:
        # Where there are two spaces the normaliser does not see "he's been".
        whole |= [" ".join(text.split()) != text for text in texts]
    units = {n: units_of(texts[n], space) for n in np.flatnonzero(whole).tolist()}
    sizes = counts.copy()
    sizes[whole] = [len(found) for found in units.values()]
    spelling, first = np.zeros((2, sizes.sum()), np.int64)
    easy = np.repeat(~whole, sizes)
    kept = np.repeat(~whole, counts)
    spelling[easy] = number[kept]
    first[easy] = (np.arange(len(flat)) - np.repeat(offsets(counts)[:-1], counts))[kept]
    cut = list(chain.from_iterable(units.values()))
    spelling[~easy] = [numbers.of(_of_unit(unit, space)) for unit in cut]
    first[~easy] = [unit.first for unit in cut]
    lexicon, rank = _sorted(list(numbers.spellings))
    spelling = rank[spelling]
    # Words that are scored as nothing are no spelling of anything.
    said = lexicon.width[spelling] > 0
    spelling, text = spelling[said], np.repeat(np.arange(len(texts)), sizes)[said]
    return Spelled(
        lexicon=lexicon,
        begins=offsets(np.bincount(text, minlength=len(texts))),
        spelling=spelling,
        first=first[said],
        words=counts,
    )


def _sorted(known: Sequence[Spelling]) -> tuple[Lexicon, Ints]:
    """Return the lexicon of spellings in any order, and the number there of each."""
    # By words, then by width: sorting twice takes a third of the time of sorting pairs.
    order = sorted(range(len(known)), key=[len(one.keys) for one in known].__getitem__)
    order.sort(key=[one.words for one in known].__getitem__)
    words, keys, free = zip(*[known[n] for n in order], strict=True) if known else ((), (), ())
    texts = ("", *sorted(set(chain.from_iterable(keys))))
    place = {key: n for n, key in enumerate(texts)}
    rank = np.zeros(len(known), np.int64)
    rank[order] = np.arange(len(known))
    lexicon = Lexicon(
        keys=np.array(texts, object),
        width=np.array(list(map(len, keys)), np.int64),
        flat=np.array(list(map(place.__getitem__, chain.from_iterable(keys))), np.int32),
        extent=np.array(list(map(len, words)), np.int64),
        words=np.array(list(chain.from_iterable(words)), object),
        free=np.array(free, np.bool_),
    )
    return lexicon, rank


class _Numbers(dict[str, int]):
    """The number of each word that stands alone, in the order in which spellings come."""

    def __init__(self, space: Space) -> None:
        super().__init__()
        self._space = space
        self.spellings: dict[Spelling, int] = {}

    def __missing__(self, word: str) -> int:
        spelling = _alone(word, self._space)
        self[word] = _NOT_ALONE if spelling is None else self.of(spelling)
        return self[word]

    def of(self, spelling: Spelling) -> int:
        """Return the number of any spelling."""
        return self.spellings.setdefault(spelling, len(self.spellings))


@lru_cache(maxsize=1 << 17)
def _alone(word: str, space: Space) -> Spelling | None:
    """Return how a word is compared, None if that may depend on what stands beside it."""
    # After another word, for the first of a text may be one that no other may.
    if space == "scorer" and not words_stand_alone(f"a {word}"):
        return None
    return Spelling((straighten(word),), tuple(scored(word, space).split()), free=True)


def _of_unit(unit: Unit, space: Space) -> Spelling:
    alone = [_alone(word, space) for word in unit.words]
    keys = chain.from_iterable(one.keys for one in alone if one is not None)
    return Spelling(unit.words, unit.keys, None not in alone and tuple(keys) == unit.keys)
