"""NIST's CTM: one recognised word to a line, ``file channel start duration word [confidence]``.

An utterance is a file of its own. A CTM has no line for silence, so whoever reads one for a
known list of utterances names them (`to_nbests`). Alternatives (``<ALT_BEGIN>``) are refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from manifests.formats.lines import (
    check_token,
    format_number,
    parse_seconds,
    read_lines,
    write_lines,
)
from manifests.rows import Hypothesis, NBest, Seconds, Word

_ALTERNATIVES = ("<ALT_BEGIN>", "<ALT>", "<ALT_END>")
# Sums and differences of binary fractions are rounded to this many decimals of a second.
_DECIMALS = 6


@dataclass(frozen=True, slots=True)
class CtmLine:
    """One word; ``confidence`` is None where the line has none, never 0.

    >>> CtmLine.parse("anna-01 1 0.32 0.2 goed 0.71")
    CtmLine(file='anna-01', channel='1', start=0.32, duration=0.2, word='goed', confidence=0.71)
    >>> CtmLine("anna-01", "1", 0.52, 0.25, "home").serialize()
    'anna-01 1 0.52 0.25 home'
    """

    file: str
    channel: str
    start: Seconds
    duration: Seconds
    word: str
    confidence: float | None = None

    @classmethod
    def parse(cls, line: str) -> Self:
        """Return the word of ``line``; ValueError says which rule it breaks."""
        fields = line.split()
        if len(fields) not in (5, 6):
            raise ValueError(
                f"line is {line!r}, must be: file channel start duration word [confidence]"
            )
        file, channel, start, duration, word = fields[:5]
        _refuse_alternatives(word)
        confidence = None
        if len(fields) == 6 and fields[5] != "NA":  # NIST's word for "not given"
            confidence = _confidence(fields[5])
        return cls(
            file,
            channel,
            parse_seconds(start, "start"),
            parse_seconds(duration, "duration"),
            word,
            confidence,
        )

    def serialize(self) -> str:
        """Return the line; ValueError when CTM cannot carry a value."""
        for name in ("file", "channel", "word"):
            check_token(getattr(self, name), name)
        if self.file.startswith(";;"):
            raise ValueError(f"file is {self.file!r}, CTM reads a line like this as a comment")
        _refuse_alternatives(self.word)
        start, duration = format_number(self.start), format_number(self.duration)
        parse_seconds(start, "start")
        parse_seconds(duration, "duration")
        fields = [self.file, self.channel, start, duration, self.word]
        if self.confidence is not None:
            fields.append(format_number(_confidence(str(self.confidence))))
        return " ".join(fields)

    def to_word(self) -> Word:
        """Return our row (its end is rounded to the microsecond)."""
        end = round(self.start + self.duration, _DECIMALS)
        return Word(
            text=self.word, start=self.start, end=max(end, self.start), confidence=self.confidence
        )


def _confidence(value: str) -> float:
    try:
        confidence = float(value)
    except ValueError:
        confidence = -1.0
    if not 0 <= confidence <= 1:
        raise ValueError(f"confidence is {value}, must lie in [0, 1] or be left out")
    return confidence


def _refuse_alternatives(word: str) -> None:
    if word.upper() in _ALTERNATIVES:
        raise ValueError(
            f"word is {word}, alternatives are not supported: write the one word that counts"
        )


def from_nbest(row: NBest, channel: str = "1") -> list[CtmLine]:
    """Return the words of the best hypothesis; ValueError where a word has no time."""
    lines = []
    if row.best.words is None and row.best.text.strip():
        raise ValueError(f"{row.utt_id}: words are absent, CTM needs words with times")
    for word in row.best.words or ():
        if word.start is None or word.end is None:
            raise ValueError(f"{row.utt_id}: word {word.text!r} has no time, CTM needs both times")
        duration = round(word.end - word.start, _DECIMALS)
        lines.append(CtmLine(row.utt_id, channel, word.start, duration, word.text, word.confidence))
    return lines


def to_nbests(
    lines: Iterable[CtmLine], system: str, utt_ids: Sequence[str] | None = None
) -> list[NBest]:
    """Return one decoded row per file, its words sorted by start.

    With ``utt_ids`` there is one row for each of them in that order, text "" for those without
    a word, and a file that is not among them is a ValueError; without, files come as they
    first appear. A file with two channels is a ValueError.
    """
    words: dict[str, list[Word]] = {utt_id: [] for utt_id in utt_ids or ()}
    channels: dict[str, str] = {}
    for line in lines:
        if utt_ids is not None and line.file not in words:
            raise ValueError(f"file is {line.file!r}, which is not among the known utterances")
        if channels.setdefault(line.file, line.channel) != line.channel:
            raise ValueError(
                f"{line.file}: has channels {channels[line.file]!r} and {line.channel!r}, "
                "must have one"
            )
        words.setdefault(line.file, []).append(line.to_word())
    return [
        _nbest(utt_id, system, sorted(found, key=lambda word: word.start or 0.0))
        for utt_id, found in words.items()
    ]


def _nbest(utt_id: str, system: str, words: list[Word]) -> NBest:
    text = " ".join(word.text for word in words)
    return NBest(utt_id=utt_id, system=system, hyps=(Hypothesis(text=text, words=tuple(words)),))


def read_ctm(path: Path) -> Iterator[CtmLine]:
    """Stream the words of a CTM file (`manifests.RowError` at the first bad line)."""
    return read_lines(path, CtmLine.parse)


def write_ctm(path: Path, lines: Iterable[CtmLine]) -> int:
    """Write a CTM file atomically, in the order given, and return how many words there were."""
    return write_lines(path, (line.serialize() for line in lines))
