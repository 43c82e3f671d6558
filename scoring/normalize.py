"""The competition's text normalisation: Whisper's EnglishTextNormalizer with its spelling table.

Known behaviour that matters for children: "one two three" becomes "123" (one token), "oh"
becomes "0", "and a half" disappears, um, uh and hmm vanish, a curly apostrophe splits the word.
"""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections.abc import Iterable
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Protocol, cast


def _package_folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)  # does not run the package
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"{package} is not installed: pip install {package}")
    return Path(spec.origin).parent


class _Normalizer(Protocol):
    ignore_patterns: str
    replacers: dict[str, str]
    standardize_numbers: Any
    standardize_spellings: Any

    def __call__(self, s: str) -> str: ...


@cache
def _normalizer() -> _Normalizer:
    """Build the normaliser from transformers' own file, loaded by path.

    Importing it through the package runs transformers' start-up (1.3 s here) for a module
    that needs only `re`.
    """
    path = _package_folder("transformers") / "models" / "whisper" / "english_normalizer.py"
    name = "scoring._english_normalizer"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"{path}: must be a Python module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    table = _package_folder("whisper_normalizer") / "normalizers" / "english.json"
    spelling = json.loads(table.read_text(encoding="utf-8"))
    return cast("_Normalizer", module.EnglishTextNormalizer(spelling))


# Sentences of plain words: what the normaliser does to these marks is a space. Two dots in a
# row are not here: it glues the second to the next word.
_PLAIN = re.compile(r"(?:[a-z ,?!]|\.(?!\.))*")
_TO_SPACE = str.maketrans(",?!.", "    ")
_WHOLE_WORD = re.compile(r"\\b([a-z]+)\\b")

# Texts that are normalised in parts: words, digits, apostrophes inside words, marks at their ends.
# One space: the normaliser does not see "he's been" where there are two.
_PARTED = re.compile(r"(?:[a-z0-9]++(?:'[a-z]++)*+[,?!.]?+(?: (?!\Z)|\Z))*+")
_LETTERS = re.compile(r"[a-z]+")
_NO_SYMBOLS = re.compile(r"[a-z0-9 ]*+")
# What is joined with the word or the number in front: "he's been", "7 th".
_JOINED = frozenset({"been", "gone", "done", "got", "and", "st", "nd", "rd", "th", "s"})


@cache
def _special_words() -> frozenset[str]:
    """Return the plain words that the normaliser changes other than by its spelling table."""
    normalizer = _normalizer()
    patterns = map(_WHOLE_WORD.fullmatch, normalizer.replacers)
    replaced = {match[1] for match in patterns if match}
    ignored = re.findall(r"[a-z]+", normalizer.ignore_patterns.replace("\\b", ""))
    # "and" joins numbers, and there are none without another of these words.
    numbers = set(normalizer.standardize_numbers.words) - {"and"}
    return frozenset({*numbers, *replaced, *ignored, "half"})


# The same references are scored for every system and checkpoint.
@lru_cache(maxsize=1 << 18)
def normalize_english(text: str) -> str:
    """Return ``text`` as the competition compares it.

    The normaliser takes 75 us or more a call. Texts of plain words, where it only looks up
    spellings, take a short cut, and others are put together from parts that were seen before;
    property tests hold both to the same output.

    >>> normalize_english("Um, he's got colour\\u2014 twenty-one of them!")
    'he has got color 21 of them'
    """
    lower = text.lower()
    plain = _plain(lower)
    if plain is not None:
        return plain
    if _PARTED.fullmatch(lower):
        done = [_part(part) for part in _parts(lower.split())]
        if None not in done:
            return " ".join(filter(None, done))
    return _normalizer()(text).strip()


def _plain(lower: str) -> str | None:
    """Return a sentence of plain words as it is compared; None if it is not one."""
    if not _PLAIN.fullmatch(lower):
        return None
    words = lower.translate(_TO_SPACE).split()
    if not _special_words().isdisjoint(words):
        return None
    spelling = _normalizer().standardize_spellings.mapping
    return " ".join([spelling.get(word, word) for word in words])


def words_stand_alone(text: str) -> bool:
    """Return whether ``text`` is compared as its words would be one by one; if unsure, False.

    >>> words_stand_alone("don't go"), words_stand_alone("twenty one")
    (True, False)
    """
    lower = text.lower()
    if not _PARTED.fullmatch(lower):
        return False
    words = lower.split()
    return _parts(words) == words and None not in map(_part, words)


def _parts(words: Iterable[str]) -> list[str]:
    """Return words in groups none of which changes what the normaliser makes of another."""
    parts: list[str] = []
    for word in words:
        if parts and not _starts_anew(word):
            parts[-1] += " " + word
        else:
            parts.append(word)
    return parts


@lru_cache(maxsize=1 << 16)
def _starts_anew(word: str) -> bool:
    """Return whether a word begins with one that no number, "um" or contraction reaches over."""
    letters = _LETTERS.match(word)
    # "n't" is cut off: "onen't" is "one not".
    heads = {letters[0], letters[0].removesuffix("n")} if letters else {""}
    return heads.isdisjoint(_reached_over())


@cache
def _reached_over() -> frozenset[str]:
    return _JOINED | _special_words() | {""}


@lru_cache(maxsize=1 << 17)
def _part(part: str) -> str | None:
    """Return a part as it is compared; None where the whole text has to be looked at.

    The normaliser looks for symbols' neighbours and for "and a half" beyond the part.
    """
    if "half" in part:
        return None
    plain = _plain(part)
    done = _normalizer()(part).strip() if plain is None else plain
    return done if _NO_SYMBOLS.fullmatch(done) else None
