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


@dataclass(frozen=True, slots=True)
class Lexicon:
    """What the numbers of a batch mean."""

    keys: tuple[str, ...]  # "" is the first
    spellings: tuple[Spelling, ...]
    width: Ints  # (number of spellings,) of each, in keys
    flat: NDArray[np.int32]  # the numbers of their keys, end to end
    extent: Ints  # of each spelling, in words
    words: NDArray[np.object_]  # those of all spellings, end to end
    free: NDArray[np.bool_]  # compared by its keys whatever stands beside it


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
    book = _Book(space)
    words = [text.split() for text in texts]
    counts = np.fromiter(map(len, words), np.int64, len(words))
    flat = list(chain.from_iterable(words))
    number = np.fromiter(map(book.words.__getitem__, flat), np.int64, len(flat))
    whole = np.zeros(len(texts), np.bool_)  # texts that have to be looked at as a whole
    whole[np.repeat(np.arange(len(texts)), counts)[number == _NOT_ALONE]] = True
    if space == "scorer" and " ".join(flat) != " ".join(filter(None, texts)):
        # Where there are two spaces the normaliser does not see "he's been".
        whole |= [" ".join(own) != text for own, text in zip(words, texts, strict=True)]
    units = {n: units_of(texts[n], space) for n in np.flatnonzero(whole).tolist()}
    sizes = counts.copy()
    sizes[whole] = [len(found) for found in units.values()]
    spelling, first = np.zeros((2, sizes.sum()), np.int64)
    easy = np.repeat(~whole, sizes)
    kept = np.repeat(~whole, counts)
    spelling[easy] = number[kept]
    first[easy] = (np.arange(len(flat)) - np.repeat(offsets(counts)[:-1], counts))[kept]
    cut = list(chain.from_iterable(units.values()))
    spelling[~easy] = [book.of_unit(unit) for unit in cut]
    first[~easy] = [unit.first for unit in cut]
    lexicon, rank = _sorted(book)
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


def _sorted(book: _Book) -> tuple[Lexicon, Ints]:
    """Return what was numbered in its final order, and the final number of each number."""
    known = list(book.numbers)
    order = sorted(range(len(known)), key=known.__getitem__)
    spellings = tuple([known[n] for n in order])
    keys = ("", *sorted({key for one in spellings for key in one.keys}))
    place = {key: n for n, key in enumerate(keys)}
    rank = np.zeros(len(known), np.int64)
    rank[order] = np.arange(len(known))
    lexicon = Lexicon(
        keys=keys,
        spellings=spellings,
        width=np.array([len(one.keys) for one in spellings], np.int64),
        flat=np.array([place[key] for one in spellings for key in one.keys], np.int32),
        extent=np.array([len(one.words) for one in spellings], np.int64),
        words=np.array([word for one in spellings for word in one.words], object),
        free=np.array([_free(one, book.space) for one in spellings], np.bool_),
    )
    return lexicon, rank


class _Book:
    """Numbers in the order in which spellings come."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self.numbers: dict[Spelling, int] = {}
        self.words = _Words(self)

    def of_word(self, word: str) -> int:
        """Return the number of a word that stands alone."""
        keys = _alone(word, self.space)
        return _NOT_ALONE if keys is None else self._number(Spelling((straighten(word),), keys))

    def of_unit(self, unit: Unit) -> int:
        return self._number(Spelling(unit.words, unit.keys))

    def _number(self, spelling: Spelling) -> int:
        return self.numbers.setdefault(spelling, len(self.numbers))


class _Words(dict[str, int]):
    def __init__(self, book: _Book) -> None:
        super().__init__()
        self._book = book

    def __missing__(self, word: str) -> int:
        number = self[word] = self._book.of_word(word)
        return number


@lru_cache(maxsize=1 << 17)
def _alone(word: str, space: Space) -> Keys | None:
    """Return the keys of a word, None if they may depend on what stands beside it."""
    if space == "words":
        return (scored(word, space),)
    # After another word, for the first of a text may be one that no other may.
    return tuple(scored(word, space).split()) if words_stand_alone(f"a {word}") else None


def _free(spelling: Spelling, space: Space) -> bool:
    keys: list[str] = []
    for word in spelling.words:
        alone = _alone(word, space)
        if alone is None:
            return False
        keys += alone
    return tuple(keys) == spelling.keys
