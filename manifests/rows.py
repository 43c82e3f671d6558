"""The rows that cross every package border: what was said and what was heard.

All of them are frozen msgspec structs, stored one JSON object to a line. An unknown
field is an error; an unknown value is ``None`` and its key is absent, never 0 or "".
"""

from __future__ import annotations

import hashlib
import math
import re
from typing import Any, Literal, get_args

import msgspec

Seconds = float
"""Times and durations."""

LogProb = float
"""Natural logarithm of a probability; higher is better."""

AgeBucket = Literal["3-4", "5-7", "8-11", "12+"]
AGE_BUCKETS: tuple[AgeBucket, ...] = get_args(AgeBucket)

# What sclite, CTM and Kaldi can all carry in an id without quoting.
UTT_ID = re.compile(r"[A-Za-z0-9._-]+")


class Row(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """What all rows share: frozen, strict about unknown fields.

    Keyword-only too, which subclasses must repeat: msgspec does not hand it down.
    """


class Utterance(Row, frozen=True, kw_only=True):
    """One recording, or a part of one, and what was said in it.

    Keys are NeMo's where NeMo has one, so a manifest is also a NeMo manifest.
    """

    utt_id: str
    audio_filepath: str  # relative to the manifest's folder, or absolute
    duration: Seconds
    offset: Seconds = 0.0
    text: str | None = None  # as transcribed; None on a blind set, "" for silence
    speaker: str | None = None
    session: str | None = None
    age: AgeBucket | None = None
    language: str = "en"
    source: str | None = None  # corpus
    noisy: bool | None = None
    extra: dict[str, Any] | None = None  # carried along, never read by a system


# Unknown is absent: utterances with speaker "" would be one speaker's.
NEVER_EMPTY = ("speaker", "session", "language", "source")


class Word(Row, frozen=True, kw_only=True):
    """One recognised word; ``start`` and ``end`` are those of the word itself."""

    text: str
    start: Seconds | None = None
    end: Seconds | None = None
    confidence: float | None = None  # probability that the word is right; None = not given


class Hypothesis(Row, frozen=True, kw_only=True):
    """One transcript of an utterance; silence is text ""."""

    text: str  # raw, as the recogniser wrote it
    score: LogProb | None = None  # total
    lm_score: LogProb | None = None  # when rescored
    words: tuple[Word, ...] | None = None


SILENCE = Hypothesis(text="")


class NBest(Row, frozen=True, kw_only=True):
    """What one system heard: hypotheses best first, never an empty list.

    ``error`` says why an utterance could not be decoded; ``hyps`` is then one empty hypothesis.
    """

    utt_id: str
    system: str
    hyps: tuple[Hypothesis, ...]
    error: str | None = None

    @property
    def best(self) -> Hypothesis:
        return self.hyps[0]


class Arc(Row, frozen=True, kw_only=True):
    """One word that some voter has in a slot; "" is the null word, nothing said there."""

    text: str  # as it is written into a transcript
    share: float  # of the slot's votes, in [0, 1]


class WordNetwork(Row, frozen=True, kw_only=True):
    """What a fusion chose from: slots in the order of speech, each with its arcs, best first.

    Each way through, an arc of every slot, is a transcript: their texts, joined by spaces.
    """

    utt_id: str
    system: str
    slots: tuple[tuple[Arc, ...], ...]


class Rejected(Row, frozen=True, kw_only=True):
    """What could not become, or stay, an utterance; kept in lists so that nothing goes silently."""

    place: str  # "file:line", or the file
    reason: str  # "value, rule"
    utt_id: str | None = None  # None when it could not even be read


def safe_utt_id(raw: str) -> str:
    """Return ``raw`` if a row can carry it, else a stand-in that is as unique as ``raw`` is.

    Whoever uses it keeps ``raw`` in ``extra``, so that nothing is lost.

    >>> safe_utt_id("U_01"), safe_utt_id("dir/clip 1")
    ('U_01', 'dir_clip_1-199f50ad')
    """
    return raw if UTT_ID.fullmatch(raw) else digest_id(raw, raw)


def digest_id(readable: str, identity: str) -> str:
    """Return an id of what can be read in ``readable`` and a digest of ``identity``.

    >>> digest_id("child 7", "wavs/child 7.wav from 1.5 s")
    'child_7-507e0c23'
    """
    readable = re.sub(r"[^A-Za-z0-9._-]+", "_", readable).strip("_")[-60:]
    digest = hashlib.sha1(identity.encode(), usedforsecurity=False).hexdigest()[:8]
    return f"{readable}-{digest}" if readable else digest


def loosely(value: Any, to: Any) -> Any:
    """Return a value as the type of a field if it can be read as one; else msgspec.ValidationError.

    >>> loosely("3.2", float), loosely(7, str), loosely("true", bool)
    (3.2, '7', True)
    """
    try:
        return msgspec.convert(value, to, strict=False)
    except msgspec.ValidationError:
        if type(value) not in (int, float):
            raise
        return msgspec.convert(str(value), to)


def age_bucket(years: float) -> AgeBucket:
    """Return the age bucket of an age in years (below 3 counts as "3-4").

    >>> age_bucket(6), age_bucket(11.9), age_bucket(40)
    ('5-7', '8-11', '12+')
    """
    if years < 5:
        return "3-4"
    if years < 8:
        return "5-7"
    if years < 12:
        return "8-11"
    return "12+"


def utterance_problems(row: Utterance) -> list[str]:
    """Return what is wrong with a row by itself, each as "value, rule"."""
    problems = []
    if not UTT_ID.fullmatch(row.utt_id):
        problems.append(f"utt_id is {row.utt_id!r}, must match [A-Za-z0-9._-]+")
    if not row.audio_filepath:
        problems.append("audio_filepath is '', must name a file")
    if not 0 < row.duration < math.inf:
        problems.append(f"duration is {row.duration:g} s, must be > 0")
    if not 0 <= row.offset < math.inf:
        problems.append(f"offset is {row.offset:g} s, must be >= 0")
    if "" in (row.speaker, row.session, row.language, row.source):
        empty = [name for name in NEVER_EMPTY if getattr(row, name) == ""]
        problems += [f"{name} is '', must be left out where unknown" for name in empty]
    return problems


def network_problems(row: WordNetwork) -> list[str]:
    """Return what is wrong with a network by itself, each as "value, rule"."""
    problems = []
    if not UTT_ID.fullmatch(row.utt_id):
        problems.append(f"utt_id is {row.utt_id!r}, must match [A-Za-z0-9._-]+")
    if not all(row.slots):
        problems.append("a slot is empty, must hold at least one arc (nothing said is text '')")
    problems += [
        f"share is {arc.share:g}, must lie in [0, 1]"
        for slot in row.slots
        for arc in slot
        if not 0 <= arc.share <= 1
    ]
    return problems


def nbest_problems(row: NBest) -> list[str]:
    """Return what is wrong with a decoded row by itself, each as "value, rule"."""
    problems = []
    if not UTT_ID.fullmatch(row.utt_id):
        problems.append(f"utt_id is {row.utt_id!r}, must match [A-Za-z0-9._-]+")
    if not row.hyps:
        problems.append("hyps is empty, must hold at least one hypothesis (silence is text '')")
    if row.error is not None and [hyp.text for hyp in row.hyps] != [""]:
        problems.append(f"error is {row.error!r}, must come with one hypothesis, of text ''")
    for hyp in row.hyps:
        for name, score in (("score", hyp.score), ("lm_score", hyp.lm_score)):
            # JSON has no such numbers: written, they would come back as None.
            if score is not None and not math.isfinite(score):
                problems.append(f"{name} is {score}, must be finite")
        for word in hyp.words or ():
            if word.confidence is not None and not 0 <= word.confidence <= 1:
                problems.append(f"confidence is {word.confidence:g}, must lie in [0, 1]")
            if word.start is not None and word.start < 0:
                problems.append(f"word starts at {word.start:g} s, must be >= 0")
            if word.start is not None and word.end is not None and word.end < word.start:
                problems.append(f"word ends at {word.end:g} s, before its start {word.start:g} s")
    return problems
