"""The one text normalisation that the n-gram, its queries and (by config) training share."""

from __future__ import annotations

import re
import unicodedata

_APOSTROPHES = str.maketrans({"\u2019": "'", "\u2018": "'", "\u02bc": "'", "`": "'"})
_NOT_WORD = re.compile(r"[^\w' -]|_|--+")  # "no--no" holds a dash
# Runs of apostrophes and hyphens without a letter on either side; "rock-'n'-roll" keeps its own.
_EDGES = re.compile(r"(?<![\w'-])[-']+|[-']+(?![\w'-])")


def normalize_text(text: str) -> str:
    """Return ``text`` in lower case without punctuation; apostrophes and hyphens inside words stay.

    >>> normalize_text("He goed home, didn\u2019t he?  TWENTY-one \u2013 'yes'")
    "he goed home didn't he twenty-one yes"
    """
    text = unicodedata.normalize("NFKC", text).translate(_APOSTROPHES).lower()
    return " ".join(_EDGES.sub(" ", _NOT_WORD.sub(" ", text)).split())
