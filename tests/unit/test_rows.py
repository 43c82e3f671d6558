"""Rows: their rules, ids and ages."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests import (
    AGE_BUCKETS,
    Hypothesis,
    NBest,
    Rejected,
    Utterance,
    Word,
    age_bucket,
    safe_utt_id,
)
from manifests.rows import UTT_ID, digest_id, nbest_problems, utterance_problems


def utterance(**fields: object) -> Utterance:
    values = {"utt_id": "u", "audio_filepath": "a.wav", "duration": 1.0, **fields}
    return msgspec.convert(values, Utterance)


def nbest(*words: Word, **fields: object) -> NBest:
    hyps = (Hypothesis(text="a", words=words),)
    return NBest(**{"utt_id": "u", "system": "s", "hyps": hyps, **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize("row_type", [Utterance, NBest, Hypothesis, Word, Rejected])
def test_rows_take_keywords_only(row_type: type[msgspec.Struct]) -> None:
    with pytest.raises(TypeError, match="positional"):
        row_type("u")


def test_rows_are_frozen() -> None:
    with pytest.raises(AttributeError):
        utterance().text = "changed"  # type: ignore[misc]


def test_unknown_is_absent_and_empty_text_is_not() -> None:
    assert msgspec.json.decode(msgspec.json.encode(utterance(text=""))) == {
        "utt_id": "u",
        "audio_filepath": "a.wav",
        "duration": 1.0,
        "text": "",
    }
    assert b"text" not in msgspec.json.encode(utterance())


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"utt_id": "a b"}, "utt_id is 'a b', must match [A-Za-z0-9._-]+"),
        ({"utt_id": "a\n"}, "utt_id is 'a\\n', must match [A-Za-z0-9._-]+"),
        ({"utt_id": ""}, "utt_id is '', must match [A-Za-z0-9._-]+"),
        ({"utt_id": "\u0661"}, "utt_id is '\u0661', must match [A-Za-z0-9._-]+"),
        ({"audio_filepath": ""}, "audio_filepath is '', must name a file"),
        ({"duration": 0}, "duration is 0 s, must be > 0"),
        ({"duration": float("nan")}, "duration is nan s, must be > 0"),
        ({"duration": float("inf")}, "duration is inf s, must be > 0"),
        ({"offset": -0.5}, "offset is -0.5 s, must be >= 0"),
    ],
)
def test_problems_name_value_and_rule(fields: dict[str, object], problem: str) -> None:
    assert utterance_problems(utterance(**fields)) == [problem]


def test_all_problems_of_a_row_are_named() -> None:
    assert len(utterance_problems(utterance(utt_id="?", duration=-1, offset=-1))) == 3
    assert utterance_problems(utterance()) == []


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (nbest(hyps=()), "hyps is empty, must hold at least one hypothesis (silence is text '')"),
        (nbest(Word(text="a", confidence=1.1)), "confidence is 1.1, must lie in [0, 1]"),
        (nbest(Word(text="a", start=2, end=1)), "word ends at 1 s, before its start 2 s"),
        (
            nbest(hyps=(Hypothesis(text="a", score=float("-inf")),)),
            "score is -inf, must be finite",
        ),
        (nbest(Word(text="a", start=-1, end=1)), "word starts at -1 s, must be >= 0"),
        (nbest(error="missing"), "error is 'missing', must come with one hypothesis, of text ''"),
    ],
)
def test_problems_of_what_was_heard(row: NBest, problem: str) -> None:
    assert nbest_problems(row) == [problem]


def test_a_decoded_row_without_problems() -> None:
    assert nbest_problems(nbest(Word(text="a", start=1, end=1, confidence=0.0))) == []
    assert nbest_problems(nbest(hyps=(Hypothesis(text=""),), error="no such file")) == []


@given(st.floats(0, 120))
def test_every_age_has_a_bucket_and_they_rise(years: float) -> None:
    assert AGE_BUCKETS.index(age_bucket(years)) <= AGE_BUCKETS.index(age_bucket(years + 1))


@pytest.mark.parametrize(
    ("years", "bucket"),
    [(0, "3-4"), (4.99, "3-4"), (5, "5-7"), (8, "8-11"), (11.99, "8-11"), (12, "12+")],
)
def test_bucket_borders(years: float, bucket: str) -> None:
    assert age_bucket(years) == bucket


@given(st.text())
def test_safe_ids_are_valid_and_keep_valid_ones(raw: str) -> None:
    safe = safe_utt_id(raw)
    assert UTT_ID.fullmatch(safe)
    assert safe_utt_id(safe) == safe


def test_safe_ids_differ_where_their_readable_part_is_the_same() -> None:
    assert len({safe_utt_id("a b"), safe_utt_id("a/b"), safe_utt_id("a_b")}) == 3


@given(st.text(), st.text())
def test_digest_ids_depend_on_the_identity_alone(readable: str, identity: str) -> None:
    assert UTT_ID.fullmatch(digest_id(readable, identity))
    assert digest_id(readable, identity) != digest_id(readable, identity + "x")
