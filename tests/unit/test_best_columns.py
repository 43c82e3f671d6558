"""Hypothesis rows as arrays: read at once they are what they are one by one."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fusion.best_columns
from fusion.batch import Part
from fusion.best_columns import _read_at_once, best_columns, decoded, read_best
from manifests import Hypothesis, NBest, RowError, Word

NOWHERE = Path("x.jsonl")
MAYBE = st.none() | st.floats(0, 1)
WORDS = st.builds(
    lambda text, start, length, confidence: Word(
        text=text,
        start=start,
        end=None if length is None else (start or 0) + length,
        confidence=confidence,
    ),
    st.text(max_size=3),
    MAYBE,
    MAYBE,
    MAYBE,
)
HYPS = st.builds(
    Hypothesis,
    text=st.text(max_size=9),
    score=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    words=st.none() | st.lists(WORDS, max_size=3).map(tuple),
)
SPOKEN = st.builds(
    NBest,
    utt_id=st.just("u"),
    system=st.text(max_size=2),
    hyps=st.lists(HYPS, min_size=1, max_size=3).map(tuple),
)
FAILED = NBest(utt_id="u", system="s", hyps=(Hypothesis(text=""),), error="damaged")


def part(*lines: bytes | None) -> Part:
    begins = [-1 if line is None else n for n, line in enumerate(lines)]
    return Part(b"".join(filter(None, lines)), begins, [len(line or b"") for line in lines])


def line(row: NBest | None) -> bytes | None:
    return None if row is None else msgspec.json.encode(row) + b"\n"


@settings(max_examples=80, deadline=None)
@given(st.lists(SPOKEN | st.just(FAILED) | st.none(), min_size=1, max_size=5))
def test_rows_read_at_once_are_rows_read_one_by_one(rows: list[NBest | None]) -> None:
    batch = part(*map(line, rows))
    fast = _read_at_once(batch, words=True)
    slow = best_columns(decoded(NOWHERE, batch), words=True)
    assert fast is not None
    assert (fast.texts, fast.words) == (slow.texts, slow.words)
    for name in ("voted", "offsets", "start", "end", "confidence"):
        np.testing.assert_array_equal(getattr(fast, name), getattr(slow, name))


ROW = '{"utt_id":"u","system":"s","hyps":[%s]}\n'
UNUSUAL = [
    ROW % "",
    ROW % "null",
    ROW % '{"text":null}',
    ROW % '{"text":"x","score":NaN}',
    ROW % '{"text":"x","score":-Infinity}',
    ROW % '{"text":"x","score":1e999}',
    ROW % '{"text":"x","score":"1"}',
    ROW % '{"text":"x","heard":1}',
    ROW % '{"text":"x","words":[null]}',
    ROW % '{"text":"x","words":[{"text":"x","start":-1}]}',
    ROW % '{"text":"x","words":[{"text":"x","start":2,"end":1}]}',
    ROW % '{"text":"x","words":[{"text":"x","confidence":1.5}]}',
    ROW % '{"text":"x"},{"text":"x","words":[{"text":"x","confidence":1.5}]}',
    ROW % '{"text":"\udc80"}',
    ROW % '{"text":"\\ud800"}',
    (ROW % '{"text":"x"}').replace('"u"', '"u 1"'),
    (ROW % '{"text":"x"}').replace('"u"', '"u\\nv"'),
    (ROW % '{"text":"x"}').replace('"u"', "null"),
    (ROW % '{"text":"x"}').replace('"s"', "null"),
    (ROW % '{"text":"x"}').replace("]}", '],"error":"e"}'),
    '{"utt_id":"u","system":"s","hyps":null}\n',
    '{"utt_id":"u","system":"s"}\n',
    (ROW % '{"text":"x"}').strip() + " " + ROW % '{"text":"x"}',
]


@pytest.mark.parametrize("text", UNUSUAL)
def test_a_bad_row_is_not_read_at_once(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    batch = part(path.read_bytes())
    assert _read_at_once(batch, words=False) is None
    with pytest.raises(RowError, match=r"x\.jsonl:1: "):
        read_best(path, batch)


def test_of_a_key_that_comes_twice_the_last_counts() -> None:
    batch = part(b'{"utt_id":"u","system":"s","hyps":[{"text":"x","text":"y"}]}\n')
    assert read_best(NOWHERE, batch).texts == ["y"]


def test_pieces_are_one_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    word = '{"text":"x","start":1,"end":%d,"confidence":0.5}'
    lines: list[bytes | None] = [
        ((ROW % '{"text":"x%d","words":[%s]}') % (n, word % (n + 1))).encode() for n in range(7)
    ]
    lines[4] = None
    batch = part(*lines)
    whole = read_best(NOWHERE, batch, words=True)
    monkeypatch.setattr(fusion.best_columns, "_AT_ONCE", 3)
    cut = read_best(NOWHERE, batch, words=True)
    assert (cut.texts, cut.words) == (whole.texts, whole.words)
    for name in ("voted", "offsets", "start", "end", "confidence"):
        np.testing.assert_array_equal(getattr(cut, name), getattr(whole, name))
    path = tmp_path / "x.jsonl"
    path.write_bytes((ROW % '{"text":"x"}').encode() * 5 + (ROW % '{"text":1}').encode())
    data = path.read_bytes().splitlines(keepends=True)
    begins = [sum(map(len, data[:n])) for n in range(6)]
    with pytest.raises(RowError, match=r"x\.jsonl:6: "):
        read_best(path, Part(b"".join(data), begins, list(map(len, data))))
